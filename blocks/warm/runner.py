"""A Prefect task runner on Ray whose workers are warm: `RayTaskRunner`, over supervised async actors.

The stock runner starts a Ray task, and with it mostly a process, for every Prefect task. This one hands task
runs to a few named actors (`AgentHost`) that outlive the flow run: they are spread over the cluster's nodes,
restarted by Ray when they die, and bounded in how much they run at once. Task runs, states, names, parents,
retries and logs show in Prefect's UI as with the stock runner.

Nothing in this package knows of the program that uses it: what is the program's comes in by the runner's arguments.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import httpx
import ray
import ray.exceptions
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import (  # as prefect.context.serialize_context sends them
    FlowRunContext,
    TagsContext,
    TaskRunContext,
    _deployment_id,
    _deployment_parameters,
)
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, exception_to_crashed_state
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.engine import emit_task_run_state_change_event
from prefect_ray import RayTaskRunner
from prefect_ray.task_runners import PrefectRayFuture

from blocks.warm.exceptions import AgentsUnavailable
from blocks.warm.host import PREFECT_CLIENTS, ScopeId, Submission, host_environment
from blocks.warm.pool import NAMESPACE, AgentPool, PoolSettings, agent_pool, connect, connected

CANCEL_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class WarmFuture(PrefectRayFuture[Any]):
    """A future that an async flow awaits: `state = await future.settled()`.

    The blocking `wait` and `result` are for sync flows: in an async one they hold up every flow on the loop.
    """

    def __init__(self, task: Task[..., Any], submission: Submission, pool: AgentPool) -> None:
        self._task, self._submission, self._pool = task, submission, pool
        self._context = contextvars.copy_context()
        self._cancelled = False
        self._final_state: State[Any] | None
        super().__init__(task_run_id=submission.task_run_id, wrapped_future=pool.run(submission))

    async def settled(self) -> State[Any]:
        """The final state; Crashed or Cancelled where Ray gave none. Never raises for the task's sake.

        Raises AgentsUnavailable when the Ray cluster is gone: then no task run of this process can end.
        """
        if self._final_state is None:
            self._final_state = await self._settle()
        return self._final_state

    def wait(self, timeout: float | None = None) -> None:
        """Block until the task run has ended, or for `timeout` seconds."""
        if _on_the_loop_of_a_host():
            raise RuntimeError("this would block every task run of the agent host: use `await settled(future)`")
        run_coro_as_sync(settled(self, timeout))

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Block until the task run has ended, and give its result."""
        self.wait(timeout)
        if self._final_state is None:
            raise TimeoutError(f"Task run {self.task_run_id} did not complete within {timeout} seconds")
        return super().result(raise_on_failure=raise_on_failure)

    def cancel(self) -> None:
        """Ask for the end of the task run, down to what its code awaits; returns at once."""
        self._cancelled = True
        ray.cancel(self.wrapped_future, force=False, recursive=False)

    async def _settle(self) -> State[Any]:
        try:
            try:
                return await self._answer(self.wrapped_future)
            except ray.exceptions.ActorDiedError:
                # The host is gone for good (retired, or killed without restart): a fresh one takes over once.
                if self._cancelled:
                    raise
                return await self._answer(self._submitted_again())
        except (ray.exceptions.RayError, AgentsUnavailable) as error:
            cancelled = self._cancelled or isinstance(error, ray.exceptions.TaskCancelledError)
            state: State[Any] = (
                Cancelled(message="Cancelled by whoever submitted it.")
                if cancelled
                else await exception_to_crashed_state(error)
            )
            gone = not cancelled and not await asyncio.to_thread(connected)
        await asyncio.create_task(self._report(state), context=self._context.copy())
        if gone:
            raise AgentsUnavailable("the Ray cluster is gone, and with it the agent hosts that were at work")
        return state

    async def _answer(self, reference: ray.ObjectRef) -> State[Any]:
        """What the host answers. A cancel is repeated until it is heard: one that overtakes its task is lost."""
        answer = asyncio.ensure_future(reference)
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=CANCEL_AGAIN_S)
                if self._cancelled and not answer.done():
                    ray.cancel(reference, force=False, recursive=False)
            state: State[Any] = answer.result()
            return state
        finally:
            answer.cancel()

    def _submitted_again(self) -> ray.ObjectRef:
        self._pool.forget()
        self._wrapped_future = self._pool.run(self._submission)
        return self._wrapped_future

    async def _report(self, state: State[Any]) -> None:
        """Tell Prefect of an end that no host could tell, so that the run does not stay Running.

        As the engine does, by an event: Prefect puts events in order and makes the run if it is not known.
        """
        try:
            async with get_client() as client:
                try:
                    run = await client.read_task_run(self.task_run_id)
                except ObjectNotFound:
                    run = await self._task.create_local_run(client, id=self.task_run_id)
        except (httpx.HTTPError, PrefectException):  # the API is away: the caller gets its state all the same
            _log.warning("Prefect was not told that task run %s is %s", self.task_run_id, state.name, exc_info=True)
            return
        ended = {"state": state, "state_id": state.id, "state_type": state.type, "state_name": state.name}
        emit_task_run_state_change_event(
            run.model_copy(update={**ended, "end_time": state.timestamp}), run.state, state
        )


class WarmRayTaskRunner(RayTaskRunner[Any]):
    """Runs Prefect tasks in warm Ray actors.

    Args:
        address: Ray cluster to use; `RAY_ADDRESS` where left out, else a local Ray that lives as long as the
            process. `auto` is the cluster on this node, and an error without one. A process has one Ray: if
            it is connected already, that one is used.
        init_kwargs: further arguments of `ray.init`.
        hosts: actors to spread the work over.
        concurrency: task runs at once in one actor. One that waits for task runs of its own holds its place.
        packages: packages whose source is part of the actors' identity.
        namespace: Ray namespace of the actors.
        pass_env: environment variables that the actors get as this process has them, as they get Prefect's settings.
        preload: modules that the actors import before they take work.
        lifespan: `module:name` of an async context manager in which an actor does all its work; where left out, one
            that keeps Prefect's API clients open. The actor imports it once it has its environment.
    """

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: dict[str, Any] | None = None,
        hosts: int = 2,
        concurrency: int = 1000,
        packages: tuple[str, ...] = (),
        namespace: str = NAMESPACE,
        pass_env: tuple[str, ...] = (),
        preload: tuple[str, ...] = (),
        lifespan: str = PREFECT_CLIENTS,
    ) -> None:
        super().__init__(address=address, init_kwargs=init_kwargs)
        self.hosts, self.concurrency, self.packages = hosts, concurrency, packages
        self.namespace, self.pass_env = namespace, pass_env
        self.preload, self.lifespan = preload, lifespan
        self._id = uuid4().hex
        self._contexts: dict[Any, tuple[ScopeId, ray.ObjectRef]] = {}
        self._tasks: dict[int, tuple[Task[..., Any], ray.ObjectRef]] = {}
        self._pool: AgentPool | None = None

    def _settings(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "init_kwargs": self.init_kwargs,
            "hosts": self.hosts,
            "concurrency": self.concurrency,
            "packages": self.packages,
            "namespace": self.namespace,
            "pass_env": self.pass_env,
            "preload": self.preload,
            "lifespan": self.lifespan,
        }

    def duplicate(self) -> WarmRayTaskRunner:
        """A new runner with the same settings."""
        return type(self)(**self._settings())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its settings: a runner travels inside the context of its flow."""
        return _rebuilt, (type(self), self._settings())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WarmRayTaskRunner) and self._settings() == other._settings()

    __hash__ = None  # type: ignore[assignment]  # settings are mutable, as in the stock runner

    def __enter__(self) -> WarmRayTaskRunner:
        TaskRunner.__enter__(self)
        self._connect()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Let the hosts forget this flow run; Ray and the hosts stay."""
        if self._contexts and ray.is_initialized():
            for owner in {scope_id.owner for scope_id, _ in self._contexts.values()}:
                self._agents().release(owner)
        self._contexts.clear()
        self._tasks.clear()
        self._pool = None
        TaskRunner.__exit__(self, *exc_info)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> WarmFuture:
        """Hand a task run to a host; returns at once. Raises AgentsUnavailable when too many wait."""
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        scope_id, context = self._context()
        exchanged, _ = self._exchange_prefect_for_ray_futures(
            {"parameters": parameters, "wait_for": list(wait_for or ())}
        )
        submission = Submission(
            scope_id=scope_id,
            context=context,
            task=self._task_reference(task),
            task_run_id=uuid4(),
            parameters=exchanged["parameters"],
            wait_for=exchanged["wait_for"],
            dependencies=dependencies,
        )
        return WarmFuture(task, submission, self._agents())

    def warm(self, timeout_s: float = 60.0) -> list[int]:
        """Start the hosts, or find them, and wait for each; the process ids. Raises AgentsUnavailable."""
        self._connect()
        return self.pool().check(timeout_s)

    def pool(self) -> AgentPool:
        """The hosts of these settings; the process is connected to Ray."""
        settings = PoolSettings(
            hosts=self.hosts,
            concurrency=self.concurrency,
            namespace=self.namespace,
            packages=self.packages,
            pass_env=self.pass_env,
            preload=(type(self).__module__, *self.preload),  # the runner is in the context of every flow run
            lifespan=self.lifespan,
        )
        return agent_pool(settings)

    def _connect(self) -> None:
        connect(self.address, self.init_kwargs, self.namespace)

    def _agents(self) -> AgentPool:
        if self._pool is None:
            self._pool = self.pool()
        return self._pool

    def _context(self) -> tuple[ScopeId, ray.ObjectRef]:
        """The serialized context, sent once for each set of tags and parent task run."""
        flow_run, parent, tags = FlowRunContext.get(), TaskRunContext.get(), TagsContext.get().current_tags
        key = (frozenset(tags), parent.task_run.id if parent else None)
        if key not in self._contexts:
            owner = str(flow_run.flow_run.id) if flow_run and flow_run.flow_run else self._id
            scope_id = ScopeId(owner, f"{self._id}-{len(self._contexts)}")
            self._contexts[key] = (scope_id, ray.put(_context_of_run()))
        return self._contexts[key]

    def _task_reference(self, task: Task[..., Any]) -> ray.ObjectRef:
        if id(task) not in self._tasks:
            self._tasks[id(task)] = (task, ray.put(task))
        return self._tasks[id(task)][1]


async def settled(future: PrefectRayFuture[Any], timeout_s: float | None = None) -> State[Any] | None:
    """The final state of a warm or a stock future without blocking the loop; None after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(future, WarmFuture):
                return await future.settled()
            try:
                return await future.wrapped_future
            except ray.exceptions.RayError as error:
                return await exception_to_crashed_state(error)
    except TimeoutError:
        return None


def _context_of_run() -> dict[str, Any]:
    """Prefect's `serialize_context()` without the settings: the host has its own, and to dump and rebuild them
    costs 60 ms."""
    flow_run, task_run = FlowRunContext.get(), TaskRunContext.get()
    return {
        "flow_run_context": flow_run.serialize() if flow_run else {},
        "task_run_context": task_run.serialize() if task_run else {},
        "tags_context": TagsContext.get().serialize(),
        "deployment_id": str(deployment_id) if (deployment_id := _deployment_id.get()) else None,
        "deployment_parameters": _deployment_parameters.get(),
    }


def _on_the_loop_of_a_host() -> bool:
    return host_environment.get(None) is not None and asyncio._get_running_loop() is not None


def _rebuilt(kind: type[WarmRayTaskRunner], settings: dict[str, Any]) -> WarmRayTaskRunner:
    return kind(**settings)
