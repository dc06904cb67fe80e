"""The process that ends a worker whose loops stand still; a script of the standard library alone, so that it is small.

It is told each second for how long a loop has stood still. Told nothing, it counts on by itself: then something holds
the worker's interpreter, and no thread in there could do so. It counts its own waits, each for a few ticks at most and
only while the worker is not stopped: a machine that slept, or a clock that was set, adds next to nothing.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

TOLD_S = 2.0
"""How long the worker may take to write down what its threads are at."""
BUFFER = 1 << 16
MOST_TICKS = 3
"""A wait that took longer than so many ticks was a pause of the machine."""


def watch(worker: int, tick_s: float, end_s: float) -> None:
    """Read seconds from standard input, a line each, until it is closed; end the worker where they come to `end_s`."""
    still_s = 0.0
    while still_s < end_s:
        since = time.monotonic()
        if select.select([0], [], [], tick_s)[0]:
            lines = os.read(0, BUFFER).split(b"\n")
            if lines == [b""]:
                return  # the worker has ended
            still_s = float(lines[-2])
        elif not _is_stopped(worker):
            still_s += min(time.monotonic() - since, MOST_TICKS * tick_s)
    said = f"a loop of the worker (process {worker}) has stood still for {still_s:.0f} s: it is ended, and what it ran"
    os.write(2, f"{said} is delivered again. Its threads:\n".encode())
    if _send(worker, signal.SIGUSR2):
        time.sleep(TOLD_S)
        _send(worker, signal.SIGKILL)


def _is_stopped(process: int) -> bool:
    """Whether somebody has stopped the process, or debugs it; on Linux."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state in (b"T", b"t")


def _send(worker: int, number: signal.Signals) -> bool:
    """Send a signal, unless the worker is gone and its number may be another's."""
    if os.getppid() != worker:
        return False
    os.kill(worker, number)
    return True


if __name__ == "__main__":
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the worker drains then, and is watched meanwhile
        signal.signal(one, signal.SIG_IGN)
    watch(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
