"""The warm Ray actor in which Prefect tasks run, many at a time, in one process on one event loop.

A Ray worker process for each task costs seconds of imports; here Prefect is imported once, its API client is
opened once, and a flow run's context is rebuilt once, not once for every task. Prefect is imported after the
actor has its environment, because Prefect reads its settings at import: this module must not import it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import os
import pkgutil
import time
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from blocks.warm.cancellation import Cancellation, TaskExit
from blocks.warm.garbage import spare_what_is_loaded

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State
    from ray import ObjectRef

MAX_SCOPES = 512
"""Contexts that are kept; beyond, those that were idle longest are dropped. A driver may die without releasing."""

PREFECT_CLIENTS = f"{__name__}:prefect_clients"
"""The lifespan of a host that has no other."""

Environment = tuple[tuple[str, str], ...]
"""Environment variables, sorted by name."""

host_environment: contextvars.ContextVar[Environment] = contextvars.ContextVar("host_environment")
"""Set in a host's task runs: what the host was given, so that what they submit finds the same hosts."""


class ScopeId(NamedTuple):
    """Which context a task run needs, and the flow run that owns it and releases it."""

    owner: str
    key: str


@dataclass(frozen=True)
class Submission:
    """One task run, as the runner sends it. References stand for what is sent once and used often."""

    scope_id: ScopeId
    context: ObjectRef
    task: ObjectRef
    task_run_id: UUID
    parameters: dict[str, Any]
    wait_for: list[Any]
    dependencies: dict[str, Any] | None


@dataclass(frozen=True)
class Stats:
    """What a host has in hand."""

    pid: int
    scopes: int
    running: int
    waiting: int


class Scope:
    """A Prefect context that is rebuilt once, and the tasks that ran in it."""

    def __init__(self, hydrating: asyncio.Task[tuple[contextvars.Context, AbstractContextManager[None]]]) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.users = 0
        self.used_at = time.monotonic()
        self._hydrating = hydrating
        self._dropped = False

    @property
    def failed(self) -> bool:
        """Whether the context could not be rebuilt."""
        return _failed(self._hydrating)

    async def context(self) -> contextvars.Context:
        """A copy of the context, for one task run."""
        context, _ = await asyncio.shield(self._hydrating)
        return context.copy()

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """Keep the context until the block ends, even if the scope is dropped meanwhile."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.used_at = time.monotonic()
            self._leave_if_done()

    def drop(self) -> None:
        """Leave the context now, or as soon as nobody uses it."""
        self._dropped = True
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._dropped and not self.users:
            self._hydrating.add_done_callback(_leave)


def _leave(hydrating: asyncio.Task[tuple[contextvars.Context, AbstractContextManager[None]]]) -> None:
    if not _failed(hydrating):
        context, hydrated = hydrating.result()
        context.run(hydrated.__exit__, None, None, None)


@asynccontextmanager
async def prefect_clients() -> AsyncGenerator[None, None]:
    """Keep one Prefect API client of each kind open; without, every flow run builds its own."""
    from prefect.context import AsyncClientContext, SyncClientContext

    async with AsyncClientContext.get_or_create():
        with SyncClientContext.get_or_create():
            yield


class AgentHost:
    """Async actor that runs the task runs of any number of flow runs, `concurrency` of them at once.

    Args:
        environment: environment variables, set before Prefect is imported.
        concurrency: task runs at once.
        preload: modules that are imported before the host takes work.
        lifespan: `module:name` of an async context manager in which the host does all its work.
    """

    def __init__(
        self,
        environment: Environment,
        concurrency: int,
        preload: tuple[str, ...] = (),
        lifespan: str = PREFECT_CLIENTS,
    ) -> None:
        os.environ.update(environment)
        self._preload, self._lifespan = preload, lifespan
        self._base = contextvars.copy_context()
        self._base.run(host_environment.set, environment)
        self._slots = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="sync-task")
        self._opening: asyncio.Task[None] | None = None
        self._closing = AsyncExitStack()
        self._scopes: dict[ScopeId, Scope] = {}
        self._accepted = self._running = 0
        self._active_at = time.monotonic()
        self._retiring = False

    async def ping(self) -> int:
        """Process id, once the host can take work."""
        await self._opened()
        return os.getpid()

    async def stats(self) -> Stats:
        """What the host has in hand."""
        return Stats(os.getpid(), len(self._scopes), self._running, self._accepted - self._running)

    async def run(self, submission: Submission) -> State[Any]:
        """Run one task run to its final state.

        A cancelled call cancels the task's own code, and the run ends Cancelled. A call that is cancelled
        before its turn has come raises: Prefect knows nothing of that run yet.
        """
        with self._at_work():
            await self._opened()
            scope = self._scope(submission)
            with scope.in_use():
                context = await scope.context()
                parameters, wait_for = await _resolved([submission.parameters, submission.wait_for])
                task = await self._task(scope, submission.task)
                async with self._slots:
                    return await self._engine(task, submission, parameters, wait_for, context)

    async def release(self, owner: str) -> None:
        """Forget a flow run that has ended."""
        self._drop([scope_id for scope_id in self._scopes if scope_id.owner == owner])

    async def retire(self, idle_s: float) -> None:
        """End this actor for good once it has had no work for `idle_s`; whoever still uses it keeps it."""
        import ray

        if self._retiring:
            return
        self._retiring = True
        while self._accepted or time.monotonic() - self._active_at < idle_s:  # noqa: ASYNC110  # time has to pass
            await asyncio.sleep(idle_s / 10)
        await asyncio.to_thread(_send_what_prefect_holds)
        await asyncio.get_running_loop().create_task(self._closing.aclose(), context=self._base)
        ray.actor.exit_actor()

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _at_work(self) -> Generator[None, None, None]:
        self._accepted += 1
        self._active_at = time.monotonic()
        try:
            yield
        finally:
            self._accepted -= 1
            self._active_at = time.monotonic()

    async def _opened(self) -> None:
        """Enter the lifespan, once; whatever runs here runs in its context."""
        if self._opening is None or _failed(self._opening):
            self._opening = asyncio.get_running_loop().create_task(self._open(), context=self._base)
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        _load_what_a_task_run_needs(self._preload)
        from blocks.warm.reporting import report_in_pauses

        report_in_pauses(lambda: self._active_at)
        await self._closing.enter_async_context(pkgutil.resolve_name(self._lifespan)())

    def _scope(self, submission: Submission) -> Scope:
        scope = self._scopes.get(submission.scope_id)
        if scope is None or scope.failed:
            self._evict()
            scope = Scope(asyncio.get_running_loop().create_task(self._hydrate(submission.context)))
            self._scopes[submission.scope_id] = scope
        return scope

    async def _hydrate(self, reference: ObjectRef) -> tuple[contextvars.Context, AbstractContextManager[None]]:
        from prefect.context import hydrated_context

        serialized = await reference
        context, hydrated = self._base.copy(), hydrated_context(serialized)
        context.run(hydrated.__enter__)
        return context, hydrated

    def _evict(self) -> None:
        idle = [scope_id for scope_id, scope in self._scopes.items() if not scope.users]
        idle.sort(key=lambda scope_id: self._scopes[scope_id].used_at)
        self._drop(idle[: max(0, len(self._scopes) - MAX_SCOPES + 1)])

    def _drop(self, scope_ids: Iterable[ScopeId]) -> None:
        for scope_id in scope_ids:
            self._scopes.pop(scope_id).drop()

    async def _task(self, scope: Scope, reference: ObjectRef) -> Task[..., Any]:
        key = reference.hex()
        if key not in scope.tasks:
            scope.tasks[key] = await reference
        return scope.tasks[key]

    async def _engine(
        self,
        task: Task[..., Any],
        submission: Submission,
        parameters: dict[str, Any],
        wait_for: list[Any],
        context: contextvars.Context,
    ) -> State[Any]:
        """Prefect's own engine, shielded from cancellation, which goes to the task's code instead."""
        cancellation = Cancellation()
        arguments = {
            "task": cancellation.guard(task),
            "task_run_id": submission.task_run_id,
            "parameters": parameters,
            "wait_for": wait_for or None,
            "dependencies": submission.dependencies,
            "context": None,
            "return_type": "state",
        }
        self._running += 1
        try:
            work = asyncio.get_running_loop().create_task(_run(arguments, self._threads), context=context)
            while not work.done():
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError:
                    cancellation.cancel()
            return work.result()
        finally:
            self._running -= 1


async def _run(arguments: dict[str, Any], threads: ThreadPoolExecutor) -> State[Any]:
    from prefect.exceptions import ExternalSignal
    from prefect.states import exception_to_crashed_state
    from prefect.task_engine import run_task_async, run_task_sync

    state: Any
    try:
        if arguments["task"].isasync:
            state = await run_task_async(**arguments)
        else:
            call: Any = functools.partial(run_task_sync, **arguments)
            state = await asyncio.get_running_loop().run_in_executor(threads, contextvars.copy_context().run, call)
    except (asyncio.CancelledError, TaskExit, ExternalSignal) as error:
        return await exception_to_crashed_state(error)  # as the engine has recorded before it raised
    return state


async def _resolved(value: Any) -> Any:
    """The value with every Ray reference in it replaced by what it refers to, or by a Crashed state."""
    import ray
    from prefect.states import exception_to_crashed_state
    from prefect.utilities.collections import visit_collection

    found: dict[Any, Any] = {}

    def note(expression: Any) -> Any:
        if isinstance(expression, ray.ObjectRef):
            found[expression] = None
        return expression

    visit_collection(value, visit_fn=note, return_data=False)
    if not found:
        return value
    for reference, result in zip(found, await asyncio.gather(*found, return_exceptions=True), strict=True):
        crashed = isinstance(result, BaseException)
        found[reference] = await exception_to_crashed_state(result) if crashed else result

    def put(expression: Any) -> Any:
        return found[expression] if isinstance(expression, ray.ObjectRef) else expression

    return visit_collection(value, visit_fn=put, return_data=True)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _load_what_a_task_run_needs(preload: Iterable[str]) -> None:
    """Load what the first task run would load, which takes it 1.5 s: a host that answers is warm."""
    from prefect import main, task_engine  # noqa: F401
    from prefect.logging.configuration import ensure_logging_setup
    from prefect.plugins import load_prefect_collections

    for module in preload:
        importlib.import_module(module)
    ensure_logging_setup()
    load_prefect_collections()
    spare_what_is_loaded()


def _send_what_prefect_holds() -> None:
    """Send the events and logs that Prefect's threads still hold."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)
