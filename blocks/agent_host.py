"""The warm Ray actor in which Prefect tasks run, many at a time, in one process on one event loop.

A Ray worker process for each task costs seconds of imports; here Prefect is imported once, its API client is
opened once, and a flow run's context is rebuilt once, not once for every task. Prefect is imported after the
actor has its environment, because Prefect reads its settings at import: this module must not import it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State
    from ray import ObjectRef

MAX_SCOPES = 512
"""Flow runs whose context is kept; the ones that were idle longest are dropped beyond."""


@dataclass
class Scope:
    """What the host keeps of one flow run."""

    context: contextvars.Context
    tasks: dict[str, Task[..., Any]] = field(default_factory=dict)
    running: int = 0
    used_at: float = 0.0


@dataclass(frozen=True)
class Submission:
    """One task run, as the runner sends it. References stand for what is sent once and used often."""

    scope_id: str
    context: ObjectRef
    task: ObjectRef
    task_run_id: UUID
    parameters: dict[str, Any]
    wait_for: list[Any]
    dependencies: dict[str, Any] | None


class AgentHost:
    """Async actor that runs the task runs of any number of flow runs."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._scopes: dict[str, asyncio.Task[Scope]] = {}
        self._ready: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._work: set[asyncio.Task[Any]] = set()

    async def ping(self) -> int:
        """Process id, once the host can take work."""
        await self._opened()
        return os.getpid()

    async def run(self, submission: Submission) -> State[Any]:
        """Run one task run to its final state. A cancelled call cancels the task's own code."""
        await self._opened()
        scope = await self._scope(submission)
        scope.running += 1
        try:
            token = Cancellation()
            task = token.guard(await self._task(scope, submission.task))
            work = self._start(scope, task, submission)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                token.cancel()
                return await work
        finally:
            scope.running -= 1
            scope.used_at = time.monotonic()

    async def release(self, scope_id: str) -> None:
        """Forget a flow run that has ended."""
        self._scopes.pop(scope_id, None)

    async def retire(self, patience_s: float) -> None:
        """End this actor for good once its work is done, or after `patience_s`."""
        import ray

        if self._work:
            await asyncio.wait(self._work, timeout=patience_s)
        self._stop.set()
        if self._ready is not None:
            await asyncio.gather(self._ready, return_exceptions=True)
        ray.actor.exit_actor()

    # --- inside -----------------------------------------------------------------------------------

    async def _opened(self) -> None:
        if self._ready is None:
            opened = asyncio.Event()
            self._ready = asyncio.create_task(self._keep_open(opened))
            self._opening = opened
        waiting = asyncio.create_task(self._opening.wait())
        await asyncio.wait({waiting, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            waiting.cancel()
            self._ready.result()

    async def _keep_open(self, opened: asyncio.Event) -> None:
        """Own the process's API client and connections until the host retires."""
        from prefect.client.orchestration import get_client
        from prefect.context import AsyncClientContext

        from blocks.connections import connections

        with get_client(sync_client=True) as self._sync_client:
            async with connections(), AsyncClientContext() as self._client_context:
                opened.set()
                await self._stop.wait()

    async def _scope(self, submission: Submission) -> Scope:
        task = self._scopes.get(submission.scope_id)
        if task is None or (task.done() and task.exception() is not None):
            self._evict()
            task = self._scopes[submission.scope_id] = asyncio.create_task(self._hydrate(submission))
        return await asyncio.shield(task)

    async def _hydrate(self, submission: Submission) -> Scope:
        from prefect.context import AsyncClientContext, hydrated_context

        serialized = await submission.context
        context = contextvars.copy_context()
        context.run(hydrated_context(serialized, client=self._sync_client).__enter__)
        context.run(AsyncClientContext.__var__.set, self._client_context)
        return Scope(context, used_at=time.monotonic())

    def _evict(self) -> None:
        idle = [
            (task.result().used_at, scope_id)
            for scope_id, task in self._scopes.items()
            if task.done() and not task.cancelled() and task.exception() is None and not task.result().running
        ]
        for _, scope_id in sorted(idle)[: max(0, len(self._scopes) - MAX_SCOPES + 1)]:
            del self._scopes[scope_id]

    async def _task(self, scope: Scope, reference: ObjectRef) -> Task[..., Any]:
        key = reference.hex()
        if key not in scope.tasks:
            scope.tasks[key] = await reference
        return scope.tasks[key]

    def _start(self, scope: Scope, task: Task[..., Any], submission: Submission) -> asyncio.Task[Any]:
        context = scope.context.copy()
        work = asyncio.get_running_loop().create_task(_run(task, submission, context), context=context)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return work


async def _run(task: Task[..., Any], submission: Submission, context: contextvars.Context) -> Any:
    """Prefect's own engine, given an id and parameters whose upstream results have arrived."""
    from prefect.task_engine import run_task_async, run_task_sync

    parameters, wait_for = await _resolved([submission.parameters, submission.wait_for])
    arguments: dict[str, Any] = {
        "task": task,
        "task_run_id": submission.task_run_id,
        "parameters": parameters,
        "wait_for": wait_for or None,
        "dependencies": submission.dependencies,
        "context": None,
        "return_type": "state",
    }
    if task.isasync:
        return await run_task_async(**arguments)
    run = functools.partial(run_task_sync, **arguments)
    return await asyncio.get_running_loop().run_in_executor(None, context.copy().run, run)


async def _resolved(value: Any) -> Any:
    """The value with every Ray reference in it replaced by what it refers to."""
    import ray
    from prefect.utilities.collections import visit_collection

    found: dict[Any, Any] = {}

    def note(expression: Any) -> Any:
        if isinstance(expression, ray.ObjectRef):
            found[expression] = None
        return expression

    visit_collection(value, visit_fn=note, return_data=False)
    if not found:
        return value
    found.update(zip(found, await asyncio.gather(*found), strict=True))

    def put(expression: Any) -> Any:
        return found[expression] if isinstance(expression, ray.ObjectRef) else expression

    return visit_collection(value, visit_fn=put, return_data=True)


class Cancellation:
    """Cancels a task's own code and lets Prefect's engine record it, so that the run ends Cancelled.

    A CancelledError that reaches the engine would be recorded as Crashed. A sync task cannot be interrupted
    in its thread; it is cancelled only if it has not begun.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._inner: asyncio.Task[Any] | None = None

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
        @functools.wraps(fn)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._cancelled:
                return _cancelled_state()
            self._inner = asyncio.get_running_loop().create_task(fn(*args, **kwargs))
            try:
                return await self._inner
            except asyncio.CancelledError:
                if not self._cancelled:
                    self._inner.cancel()
                    raise
                return _cancelled_state()

        return guarded

    def _guard_sync(self, fn: Any) -> Any:
        @functools.wraps(fn)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return _cancelled_state() if self._cancelled else fn(*args, **kwargs)

        return guarded


def _cancelled_state() -> State[Any]:
    from prefect.states import Cancelled

    return Cancelled(message="Cancelled: the answer is no longer needed.")
