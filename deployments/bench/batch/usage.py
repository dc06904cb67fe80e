"""Processor time and memory of groups of processes, from /proc."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from deployments.stack.processes import family

_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)
_MIB = 2**20

Groups = Mapping[str, list[psutil.Process]]

OURS = ("driver", "agent hosts", "gateway")
"""Groups whose processor time is judged."""
_PARTS = {"worker": "driver", "llm": "simulator"}
"""What parts of a stack are called here, where it is another name."""


class Meter:
    """Adds up what processes use, those included that end meanwhile: they count as they were last seen."""

    def __init__(self, look: Callable[[], Groups]) -> None:
        """`look` gives the living processes by group."""
        self._look = look
        self._used: dict[str, dict[tuple[int, float], float]] = {}

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of each group so far."""
        for name, processes in self._look().items():
            used = self._used.setdefault(name, {})
            for process in processes:
                try:
                    times = process.cpu_times()
                    used[process.pid, process.create_time()] = times.user + times.system
                except _GONE:
                    continue
        return {name: sum(used.values()) for name, used in self._used.items()}

    def memory_mib(self) -> dict[str, float]:
        """Memory of each group now, MiB: what is shared is divided among those who share it (PSS)."""
        return {name: round(sum(map(_pss, processes)) / _MIB, 1) for name, processes in self._look().items()}


def tree(pid: int) -> list[psutil.Process]:
    """A process with all that it started; none where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except _GONE:
        return []


def stack_groups(home: Path) -> Callable[[], Groups]:
    """Looks at the parts of a stack: driver (the worker), agent hosts, gateway, and what is shown beside them."""
    parts = {name: process.pid for name, process in family(home).parts.items()}

    def look() -> Groups:
        groups: dict[str, list[psutil.Process]] = {}
        for part, pid in parts.items():
            if part == "ray":
                groups |= ray_groups(tree(pid))
            else:
                groups[_PARTS.get(part, part)] = tree(pid)
        return groups

    return look


def ray_groups(processes: Iterable[psutil.Process]) -> dict[str, list[psutil.Process]]:
    """Ray's own daemons, and the processes in which it lets others' code run: those call themselves `ray::...`."""
    groups: dict[str, list[psutil.Process]] = {"agent hosts": [], "Ray's daemons": []}
    for process in processes:
        try:
            titled = "".join(process.cmdline()[:1]).startswith("ray::")
        except _GONE:
            continue
        groups["agent hosts" if titled else "Ray's daemons"].append(process)
    return groups


def used(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What each group used between two readings, in seconds."""
    return {name: round(value - before.get(name, 0.0), 3) for name, value in after.items()}


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except _GONE:
        return 0
