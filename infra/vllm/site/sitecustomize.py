"""Python imports this at the start of each of vLLM's processes: they sleep where they would wait in a loop.

vLLM's engine and its worker wait for each other by `os.sched_yield` (vllm/distributed/utils.py). Where there are few
cores, some kernels then leave everybody else waiting, the API server and its clients, until the engine has nothing to
do: up to 90 s was seen on two cores with Linux 6.18. The kernel's own mend is "sched/fair: Fix zero_vruntime tracking".
"""

import os
import time

PAUSE_S = 50e-6


def _pause() -> None:
    time.sleep(PAUSE_S)


os.sched_yield = _pause
