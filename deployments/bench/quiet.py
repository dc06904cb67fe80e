"""Whether the machine is quiet: before a sample the stack itself, and during it everything else.

Processor time is counted in cores: 1.0 is one core kept busy. What others use is all that the machine did,
less what the stack's processes and this one did, so it is right to about a tenth of a core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.stack.processes import family

WINDOW_S = 0.5
QUIET_CORES = 0.06
"""What Prefect's server uses while it has nothing to do, and a little."""
QUIET_S = 2.5
"""How long it has to use no more than that: clients send logs and events in batches, 2 s apart."""
REST_S = 10.0
"""How long it is watched at rest: its own services come round every few seconds."""
BUSY_SHARE = 0.1
"""Share of the machine that others may use before its figures are called disturbed."""
_GONE = (psutil.NoSuchProcess, psutil.AccessDenied)


@dataclass(frozen=True)
class Reading:
    """Processor seconds so far: of the whole machine, and of the stack with this process."""

    at: float
    machine_s: float
    ours_s: float

    def others(self, before: Reading) -> float:
        """Cores that other processes used since `before`."""
        others_s = (self.machine_s - before.machine_s) - (self.ours_s - before.ours_s)
        return max(0.0, others_s / (self.at - before.at))


@dataclass(frozen=True)
class Settled:
    """How long it took until the server was quiet, in seconds, and whether it came to that."""

    seconds: float
    quiet: bool


class Watch:
    """Watches the processes of one stack."""

    def __init__(self, home: Path, server_pid: int | None) -> None:
        """`server_pid` is Prefect's first process."""
        self._home, self._server_pid = home, server_pid
        self._seen_at = self._busy_at = time.monotonic()
        self._server_used_s = self._server_s()
        self._rest_cores = 0.0

    async def rest(self) -> None:
        """Learn what the server uses while nothing runs: a worker asks it for runs five times a second."""
        used, began = self._server_s(), time.monotonic()
        await asyncio.sleep(REST_S)
        self._rest_cores = (self._server_s() - used) / (time.monotonic() - began)

    async def settle(self, most_s: float) -> Settled:
        """Wait until Prefect's server has worked off the last run: quiet for QUIET_S, `most_s` seconds at most.

        What it did since the last call counts, so after a sample that left it alone there is nothing to wait for.
        """
        started = time.monotonic()
        while True:
            now = self._look()
            quiet, waited = now - self._busy_at >= QUIET_S, now - started
            if quiet or waited >= most_s:
                return Settled(round(waited, 2), quiet)
            await asyncio.sleep(WINDOW_S)

    def reading(self) -> Reading:
        """The processor time used until now."""
        return used_by(family(self._home).everyone)

    def _look(self) -> float:
        """Note whether the server worked since the last look."""
        now, used = time.monotonic(), self._server_s()
        if used - self._server_used_s > (self._rest_cores + QUIET_CORES) * (now - self._seen_at):
            self._busy_at = now
        self._seen_at, self._server_used_s = now, used
        return now

    def _server_s(self) -> float:
        with contextlib.suppress(*_GONE):
            server = psutil.Process(self._server_pid) if self._server_pid else None
            if server is not None:
                return _used_s([server, *server.children(recursive=True)])
        return 0.0


def used_by(ours: Iterable[psutil.Process]) -> Reading:
    """The processor time used until now, by these processes with this one."""
    return Reading(time.monotonic(), _machine_s(), _used_s([*ours, psutil.Process()]))


def busy(others: float) -> str:
    """What others use, in words."""
    return f"other work keeps {others:.1f} of {os.cpu_count()} cores busy"


def _machine_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice already
    return float(sum(times) - idle - twice)


def _used_s(processes: Iterable[psutil.Process]) -> float:
    """Processor seconds of processes, and of those children of theirs that have ended."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(*_GONE):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
