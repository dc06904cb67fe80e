"""Waiting until parts answer: all at once, each within the timeout, with a line of progress for each."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from deployments.stack.exceptions import (
    ExternalPartError,
    NoAnswerError,
    PartExitedError,
    PartTimeoutError,
    SupervisorError,
)
from deployments.stack.parts import Part
from deployments.stack.paths import StackPaths, log_tail
from deployments.stack.supervision import Supervisor

_EVERY_S = 0.15
_EVERY_S_OUTSIDE = 1.0
"""How often a part that somebody else runs is asked, who counts requests."""
EXTERNAL_TIMEOUT_S = 10.0

Answers = dict[str, dict[str, str]]  # of parts, by name
Question = Callable[[Part], dict[str, str]]


def wait_for(
    parts: list[Part], question: Question, paths: StackPaths, timeout_s: float, report: Callable[[str], None]
) -> Answers:
    """Wait until every part has answered; gives the answers by name.

    Raises a `PartError` for the first part that ends, or does not answer in `timeout_s` seconds.
    """
    stop = threading.Event()
    started = time.monotonic()
    answers: Answers = {}
    with ThreadPoolExecutor(max(1, len(parts)), thread_name_prefix="ready") as pool:
        waits: dict[Future[dict[str, str]], Part] = {
            pool.submit(_wait_for_one, part, question, paths, timeout_s, stop): part for part in parts
        }
        try:
            pending = set(waits)
            while pending:
                done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    part = waits[future]
                    answers[part.name] = future.result()
                    kind = "external, " if part.external else ""
                    report(f"{part.name} ready at {part.where} ({kind}{time.monotonic() - started:.1f} s)")
        finally:
            stop.set()
    return answers


def _wait_for_one(
    part: Part, question: Question, paths: StackPaths, timeout_s: float, stop: threading.Event
) -> dict[str, str]:
    deadline = time.monotonic() + timeout_s
    first_pid: int | None = None
    supervisor = Supervisor(paths.socket)
    while not stop.is_set():
        try:
            return question(part)
        except NoAnswerError as error:
            if time.monotonic() > deadline:
                raise _timeout(part, paths, timeout_s, error) from error
        if not part.external:
            first_pid = _still_there(part, paths, supervisor, first_pid)
        stop.wait(_EVERY_S_OUTSIDE if part.external else _EVERY_S)
    raise PartTimeoutError(part.name, f"{part.name}: no longer waited for")


def _still_there(part: Part, paths: StackPaths, supervisor: Supervisor, first_pid: int | None) -> int | None:
    """The part's process id, or `PartExitedError` if it ended or is another one than the first time."""
    try:
        seen = supervisor.parts()[part.name]
    except SupervisorError as error:
        raise PartExitedError(part.name, f"{part.name} was stopped while it was starting: {error}") from error
    if seen.state in ("failed", "stopped") or (first_pid and seen.pid and seen.pid != first_pid):
        why = f" ({seen.reason})" if seen.reason else ""
        raise PartExitedError(part.name, f"{part.name} ended while it was starting{why}{_log(part, paths)}")
    return first_pid or seen.pid


def _timeout(
    part: Part, paths: StackPaths, timeout_s: float, error: NoAnswerError
) -> PartTimeoutError | ExternalPartError:
    if part.external:
        text = f"{part.name} at {part.where} (from {part.source}) does not answer: {error}"
        return ExternalPartError(part.name, text)
    text = f"{part.name} at {part.where} did not answer within {timeout_s:g} s: {error}{_log(part, paths)}"
    return PartTimeoutError(part.name, text)


def _log(part: Part, paths: StackPaths) -> str:
    path = paths.log(part.name)
    tail = log_tail(path)
    return f"\n{tail}\n  (the end of {path})" if tail else ""
