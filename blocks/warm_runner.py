"""A Prefect task runner on Ray whose workers are warm: `RayTaskRunner`, over supervised async actors.

The stock runner starts a Ray task, and with it mostly a process, for every Prefect task. This one hands task
runs to a few named actors (`AgentHost`) that outlive the flow run: they are spread over the cluster's nodes,
restarted by Ray when they die, bounded in how much they run at once, and named after a digest of the code and
settings that they run, so a changed program never meets an old host. Task runs, states, names, parents,
retries and logs show in Prefect's UI as with the stock runner.

Nothing here knows of councils: the runner can be lifted out together with `agent_host.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import itertools
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

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
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.settings import Settings
from prefect.settings.context import get_current_settings
from prefect.states import Cancelled, exception_to_crashed_state
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect_ray import RayTaskRunner
from prefect_ray.task_runners import PrefectRayFuture
from ray.actor import ActorHandle

from blocks.agent_host import AgentHost, Submission
from blocks.exceptions import AgentsUnavailable

NAMESPACE = "conclave"
MAX_TASK_RETRIES = 2
"""Times that Ray repeats a task run whose host died; with 0 the task run would stay Running for ever."""

_connecting = threading.Lock()


class WarmFuture(PrefectRayFuture[Any]):
    """A future that an async flow awaits: `state = await future.settled()`.

    The inherited `wait` and `result` block the thread, and with it every flow on the loop.
    """

    def __init__(self, task_run_id: UUID, submission: Submission, hosts: _Hosts) -> None:
        self._submission = submission
        self._hosts = hosts
        self._final_state: State[Any] | None
        super().__init__(task_run_id=task_run_id, wrapped_future=hosts.run(submission))

    async def settled(self) -> State[Any]:
        """The final state; Crashed or Cancelled where Ray gave none. Never raises for the task's sake."""
        if self._final_state is None:
            self._final_state = await self._settle()
        return self._final_state

    async def _settle(self) -> State[Any]:
        for last in (False, True):
            try:
                state: State[Any] = await self.wrapped_future
                return state
            except ray.exceptions.TaskCancelledError:
                return Cancelled(message="Cancelled: the answer is no longer needed.")
            except ray.exceptions.ActorDiedError as error:
                # The host is gone for good (retired, or killed without restart): a fresh one takes over once.
                if last:
                    return await self._crashed(error)
                self._hosts.forget()
                self._wrapped_future = self._hosts.run(self._submission)
            except ray.exceptions.RayError as error:
                return await self._crashed(error)
        raise AssertionError("unreachable: the second round returns")

    async def _crashed(self, error: Exception) -> State[Any]:
        """A crash that no host could report, reported from here so that the run does not stay Running."""
        state = await exception_to_crashed_state(error)
        async with get_client() as client:
            with suppress(ObjectNotFound):  # a run that never began is unknown to Prefect
                await client.set_task_run_state(self.task_run_id, state, force=True)
        return state

    def cancel(self) -> None:
        """Ask for the end of the task run, down to what its code awaits; returns at once."""
        ray.cancel(self.wrapped_future, force=False, recursive=False)


class WarmRayTaskRunner(RayTaskRunner[Any]):
    """Runs Prefect tasks in warm Ray actors.

    Args:
        address: Ray cluster to use; `RAY_ADDRESS` where left out, else a local Ray that lives as long as the
            process. `auto` is the cluster on this node, and an error without one.
        init_kwargs: further arguments of `ray.init`.
        hosts: actors to spread the work over.
        concurrency: task runs at once in one actor.
        packages: packages whose source is part of the actors' identity.
    """

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: dict[str, Any] | None = None,
        hosts: int = 2,
        concurrency: int = 1000,
        packages: tuple[str, ...] = (),
    ) -> None:
        super().__init__(address=address, init_kwargs=init_kwargs)
        self.hosts, self.concurrency, self.packages = hosts, concurrency, packages
        self._scope_id = uuid4().hex
        self._contexts: dict[Any, tuple[str, ray.ObjectRef]] = {}
        self._tasks: dict[int, tuple[Task[..., Any], ray.ObjectRef]] = {}
        self._shared_hosts: _Hosts | None = None

    def _settings(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "init_kwargs": self.init_kwargs,
            "hosts": self.hosts,
            "concurrency": self.concurrency,
            "packages": self.packages,
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
        connect(self.address, self.init_kwargs)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Let the hosts forget this flow run; Ray and the hosts stay."""
        if self._contexts and ray.is_initialized():
            for scope_id, _ in self._contexts.values():
                self._host_set().release(scope_id)
        self._contexts.clear()
        self._tasks.clear()
        TaskRunner.__exit__(self, *exc_info)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> WarmFuture:
        """Hand a task run to a host; returns at once."""
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        scope_id, context = self._context()
        exchanged, _ = self._exchange_prefect_for_ray_futures(
            {"parameters": parameters, "wait_for": list(wait_for or ())}
        )
        task_run_id = uuid4()
        submission = Submission(
            scope_id=scope_id,
            context=context,
            task=self._task_reference(task),
            task_run_id=task_run_id,
            parameters=exchanged["parameters"],
            wait_for=exchanged["wait_for"],
            dependencies=dependencies,
        )
        return WarmFuture(task_run_id, submission, self._host_set())

    def warm(self, timeout_s: float = 60.0) -> list[int]:
        """Start the hosts, or find them, and wait for each; the process ids. Raises AgentsUnavailable."""
        connect(self.address, self.init_kwargs)
        return self._host_set().check(timeout_s)

    def _host_set(self) -> _Hosts:
        if self._shared_hosts is None:
            job = ray.get_runtime_context().get_job_id()
            self._shared_hosts = _host_set(job, self.hosts, self.concurrency, self.packages, _environment())
        return self._shared_hosts

    def _context(self) -> tuple[str, ray.ObjectRef]:
        """The serialized context, sent once for each set of tags and parent task run."""
        tags, parent = TagsContext.get().current_tags, TaskRunContext.get()
        key = (frozenset(tags), parent.task_run.id if parent else None)
        if key not in self._contexts:
            self._contexts[key] = (f"{self._scope_id}-{len(self._contexts)}", ray.put(_context_of_run()))
        return self._contexts[key]

    def _task_reference(self, task: Task[..., Any]) -> ray.ObjectRef:
        if id(task) not in self._tasks:
            self._tasks[id(task)] = (task, ray.put(task))
        return self._tasks[id(task)][1]


class _Hosts:
    """The actors of one configuration, found or started at first use and shared by all its runners."""

    def __init__(self, count: int, concurrency: int, name: str, environment: dict[str, str]) -> None:
        self._count, self._concurrency, self._name = count, concurrency, name
        self._environment = environment
        self._handles: list[ActorHandle] = []
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def run(self, submission: Submission) -> ray.ObjectRef:
        handles = self._found()
        return handles[next(self._turn) % len(handles)].run.remote(submission)

    def release(self, scope_id: str) -> None:
        for handle in self._handles:
            handle.release.remote(scope_id)

    def forget(self) -> None:
        self._handles = []

    def check(self, timeout_s: float) -> list[int]:
        """Ask every host for an answer; one that gives none is killed, and Ray starts it again."""
        references = [handle.ping.remote() for handle in self._found()]
        try:
            return list(ray.get(references, timeout=timeout_s))
        except ray.exceptions.GetTimeoutError as error:
            _, silent = ray.wait(references, num_returns=len(references), timeout=0)
            for handle, reference in zip(self._handles, references, strict=True):
                if reference in silent:
                    ray.kill(handle, no_restart=False)
            raise AgentsUnavailable(
                f"{len(silent)} of {len(references)} agent hosts gave no answer in {timeout_s:g} s; restarted"
            ) from error
        except ray.exceptions.RayError as error:
            self.forget()
            raise AgentsUnavailable(f"the agent hosts cannot start: {error}") from error

    def _found(self) -> list[ActorHandle]:
        with self._lock:
            if not self._handles:
                self._handles = [self._host(index) for index in range(self._count)]
                self._retire_others()
            return self._handles

    def _host(self, index: int) -> ActorHandle:
        actor = ray.remote(AgentHost).options(
            name=f"{self._name}-{index}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=MAX_TASK_RETRIES,
            max_concurrency=self._concurrency,
            max_pending_calls=10 * self._concurrency,
            scheduling_strategy="SPREAD",
        )
        return actor.remote(self._environment)

    def _retire_others(self) -> None:
        """End the hosts that run another state of this program against the same Prefect server."""
        family = self._name.rsplit("-", 1)[0]
        for found in ray.util.list_named_actors(all_namespaces=True):
            name = found["name"]
            if found["namespace"] == NAMESPACE and name.startswith(family) and not name.startswith(self._name):
                try:
                    ray.get_actor(name, namespace=NAMESPACE).retire.remote(600.0)
                except ValueError:
                    continue  # it ended in the meantime


@lru_cache(maxsize=16)
def _host_set(
    job: str, count: int, concurrency: int, packages: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> _Hosts:
    settings = dict(environment)
    server = hashlib.sha256(settings.get("PREFECT_API_URL", "").encode()).hexdigest()[:8]
    content = hashlib.sha256(repr((_source_digest(packages), concurrency, environment)).encode())
    return _Hosts(count, concurrency, f"agents-{server}-{content.hexdigest()[:12]}", settings)


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


_known_environment: tuple[Settings, tuple[tuple[str, str], ...]] | None = None


def _environment() -> tuple[tuple[str, str], ...]:
    """This process's Prefect settings as environment variables; worked out once, since it takes 30 ms."""
    global _known_environment
    settings = get_current_settings()
    if _known_environment is None or _known_environment[0] is not settings:
        variables = settings.to_environment_variables(exclude_unset=True)
        _known_environment = (settings, tuple(sorted(variables.items())))
    return _known_environment[1]


@lru_cache(maxsize=16)
def _source_digest(packages: tuple[str, ...]) -> str:
    """SHA-256 of the source of `packages`, of this module, and of the versions below it."""
    digest = hashlib.sha256(f"{version('prefect')} {version('ray')}".encode())
    files = [Path(__file__), Path(__file__).with_name("agent_host.py")]
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            files += sorted(Path(folder).rglob("*.py"))
    for file in files:
        digest.update(str(file.name).encode() + file.read_bytes())
    return digest.hexdigest()


def connect(address: str | None, init_kwargs: dict[str, Any] | None = None) -> None:
    """Connect this process to Ray once and for good; a flow run never shuts it down.

    `address` or else `RAY_ADDRESS` names the cluster, without either a local Ray is started. Raises
    AgentsUnavailable where a cluster is named and there is none.
    """
    with _connecting:
        if ray.is_initialized():
            return
        target = address or os.environ.get("RAY_ADDRESS") or "local"
        quiet = {"log_to_driver": False, "configure_logging": False, "namespace": NAMESPACE}
        local = {"include_dashboard": False} if target == "local" else {}
        try:
            ray.init(target, **{**quiet, **local, **(init_kwargs or {})})
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise AgentsUnavailable(
                f"no Ray cluster at {target!r} (RAY_ADDRESS or the block's address): {error}"
            ) from error


def _rebuilt(kind: type[WarmRayTaskRunner], settings: dict[str, Any]) -> WarmRayTaskRunner:
    return kind(**settings)


async def settled(future: PrefectRayFuture[Any], timeout_s: float | None = None) -> State[Any] | None:
    """The final state of a warm or a stock future without blocking the loop; None after `timeout_s`."""
    if isinstance(future, WarmFuture):
        waiting = asyncio.ensure_future(future.settled())
        done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
        if not done:
            waiting.cancel()
            return None
        return waiting.result()
    await asyncio.to_thread(future.wait, timeout_s)
    return future.state if future.state.is_final() else None
