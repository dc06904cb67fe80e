"""Finding and ending exactly the processes that a stack started, also after its supervisor was killed.

Every process of a stack inherits `MARK`, the stack's home, in its environment, and Supervisor adds the name
of the part. So nothing depends on process ids that were written down and may belong to someone else by now.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


def family(home: Path) -> Family:
    """All living processes of the stack with this home, except the caller and those it runs under."""
    kin = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    marked: dict[int, tuple[psutil.Process, str | None]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(*_GONE, OSError):
            environ = process.environ()
            if environ.get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                marked[process.pid] = (process, environ.get(_PART))
    supervisor, parts, everyone = None, {}, set()
    for process, part in marked.values():
        with contextlib.suppress(*_GONE):
            everyone |= {process, *process.children(recursive=True)}
            parent = marked.get(process.ppid())
            if part is None and parent is None:
                supervisor = process
            elif part is not None and (parent is None or parent[1] != part):
                parts[part] = process
    return Family(supervisor, parts, {process for process in everyone if process.pid not in kin and _alive(process)})


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
    found = family(home)
    known = found.everyone
    if found.supervisor is not None:
        _signal(found.supervisor, psutil.Process.terminate)
        _wait_gone({found.supervisor}, patience_s)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        left = {process for process in known | family(home).everyone if _alive(process)}
        if not left:
            break
        report(f"ending {len(left)} left-over processes")
        for process in left:
            _signal(process, send)
        _wait_gone(left, 5.0)
        known |= left
    left = {process for process in known | family(home).everyone if _alive(process)}
    if left:
        raise StackError(f"these processes could not be ended: {sorted(process.pid for process in left)}")
    return bool(known)


def _signal(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(*_GONE):
        send(process)


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
