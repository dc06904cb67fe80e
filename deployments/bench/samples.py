"""One measured council. Imports nothing of Prefect, whose settings are read when it is imported."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One council, in seconds.

    `wall_s`: from the start (a flow's: that of its run) to the decision. `call_s`: the same from the call.
    As the model server saw it: `spread_s` between its first and last request, `tail_s` from the last answer
    sent to the decision, `server_s` from the first request to the last answer.
    """

    wall_s: float
    call_s: float
    spread_s: float
    tail_s: float
    server_s: float


def now() -> float:
    """The clock of every measurement: epoch seconds, which the server's book and Prefect's runs have too."""
    return time.time()
