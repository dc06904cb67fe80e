"""Cancelling a task's own code inside of Prefect's engine, and keeping in what would end the process.

Belongs to `host`, and like it must not import Prefect.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State


class TaskExit(BaseException):
    """The task's code tried to end the process, which is not its own here. Prefect calls that Crashed."""


class Cancellation:
    """Cancels a task's own code and lets Prefect's engine record it, so that the run ends Cancelled.

    A CancelledError that reaches the engine would be recorded as Crashed. A sync task cannot be interrupted
    in its thread; it is cancelled only if it has not begun. One that waits for a retry ends after the wait.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._inner: asyncio.Task[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a new one: it travels in the parent's context of what the task submits."""
        return type(self), ()

    def cancel(self) -> None:
        """Cancel now, or as soon as the code begins."""
        self._cancelled = True
        if self._inner is not None:
            self._inner.cancel()

    def guard(self, task: Task[..., Any]) -> Task[..., Any]:
        """A copy of the task whose code this cancels."""
        guarded = copy.copy(task)
        guarded.fn = self._guard_async(task.fn) if task.isasync else self._guard_sync(task.fn)
        return guarded

    def _guard_async(self, fn: Any) -> Any:
        async def code(*args: Any, **kwargs: Any) -> Any:
            with _kept_in():
                return await fn(*args, **kwargs)

        @functools.wraps(fn)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._cancelled:
                return _cancelled_state()
            self._inner = asyncio.get_running_loop().create_task(code(*args, **kwargs))
            try:
                return await self._inner
            except asyncio.CancelledError:
                if not self._cancelled:
                    raise
                return _cancelled_state()

        return guarded

    def _guard_sync(self, fn: Any) -> Any:
        @functools.wraps(fn)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with _kept_in():
                return _cancelled_state() if self._cancelled else fn(*args, **kwargs)

        return guarded


@contextmanager
def _kept_in() -> Generator[None, None, None]:
    """Turn what would end the event loop, and with it everybody's work, into a crash of this task run."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskExit(repr(error)) from error


def _cancelled_state() -> State[Any]:
    from prefect.states import Cancelled

    return Cancelled(message="Cancelled by whoever submitted it.")
