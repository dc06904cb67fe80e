"""Finding and ending exactly the processes that a stack started, also after its supervisor was killed.

Every process of a stack inherits `MARK`, the stack's home, in its environment, and Supervisor adds the name
of the part. So nothing depends on process ids that were written down and may belong to someone else by now.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from deployments.stack.exceptions import StackError

MARK = "CONCLAVE_STACK_HOME"
_PART = "SUPERVISOR_PROCESS_NAME"
_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)


@dataclass(frozen=True)
class Family:
    """The living processes of a stack."""

    supervisor: psutil.Process | None
    parts: dict[str, psutil.Process]  # the first process of each part
    everyone: set[psutil.Process]


class _Marked(NamedTuple):
    """A process that carries a home's mark, and the part that it belongs to; none for the supervisor."""

    process: psutil.Process
    part: str | None


def family(home: Path) -> Family:
    """All living processes of the stack with this home, except the caller and those it runs under."""
    kin = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    marked = _marked(home)
    supervisor, parts, everyone = None, {}, set()
    for process, part in marked.values():
        with contextlib.suppress(*_GONE):
            everyone |= {process, *process.children(recursive=True)}
            parent = marked.get(process.ppid())
            if part is None and parent is None:
                supervisor = process
            elif part is not None and (parent is None or parent.part != part):
                parts[part] = process
    return Family(supervisor, parts, _living(process for process in everyone if process.pid not in kin))


def _marked(home: Path) -> dict[int, _Marked]:
    """The processes that carry this home's mark, by their ids."""
    marked = {}
    for process in psutil.process_iter():
        with contextlib.suppress(*_GONE, OSError):
            environ = process.environ()
            if environ.get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                marked[process.pid] = _Marked(process, environ.get(_PART))
    return marked


def age_s(pid: int) -> float | None:
    """How many seconds ago the process was started; None if it is gone."""
    try:
        return time.time() - psutil.Process(pid).create_time()
    except _GONE:
        return None


def end(home: Path, patience_s: float, report: Callable[[str], None]) -> bool:
    """End the stack's processes: the supervisor in order, then whatever is left; says whether there were any.

    The supervisor gets `patience_s` seconds to stop its parts; the rest gets SIGTERM, and SIGKILL 5 s later.
    Raises `StackError` if a process survives that.
    """
    first = family(home)
    known = first.everyone
    if first.supervisor is not None:
        _signal(first.supervisor, psutil.Process.terminate)
        _wait_gone({first.supervisor}, patience_s)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        left = _living(known | family(home).everyone)  # looked for again: what is ended may have started others
        if not left:
            break
        report(f"ending {len(left)} left-over processes")
        for process in left:
            _signal(process, send)
        _wait_gone(left, 5.0)
        known |= left
    left = _living(known | family(home).everyone)
    if left:
        raise StackError(f"these processes could not be ended: {sorted(process.pid for process in left)}")
    return bool(known)


def _signal(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(*_GONE):
        send(process)


def _living(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    return {process for process in processes if _alive(process)}


def _alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except _GONE:
        return False


def _wait_gone(processes: set[psutil.Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
