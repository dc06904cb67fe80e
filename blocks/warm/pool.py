"""The agent hosts as their users see them: the connection to Ray, and the pool of actors that share the work.

A pool's actors are named after a digest of the settings that they were given and of the code that they run, so
a changed program never meets an old host, and processes with the same program and settings share theirs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # ships no type information
import ray
import ray.exceptions
from prefect.settings import Settings
from prefect.settings.context import get_current_settings
from ray._private import ray_constants
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.actor import ActorHandle

from blocks.warm.exceptions import AgentsUnavailable
from blocks.warm.host import PREFECT_CLIENTS, AgentHost, Environment, Submission, host_environment

NAMESPACE = "agent-hosts"
MAX_TASK_RETRIES = 2
"""Times that Ray repeats a task run whose host died; with 0 the task run would stay Running for ever."""
PENDING_PER_SLOT = 10
"""Task runs that one process may have in a host, running and waiting, for each that can run at once."""
RETIRE_IDLE_S = 30.0
"""How long a host of older code must have been without work before it ends."""
CONNECT_S = 5.0
ONE_NODE = b"\x08\x01"
"""Ray's question for its nodes, with a limit (field 1) of one."""
OTHERS = (
    "PREFECT_CLI_",
    "PREFECT_LOGGING_HANDLERS_",
    "PREFECT_SERVER_API_AUTH_",
    "PREFECT_SERVER_API_CORS_",
    "PREFECT_SERVER_ANALYTICS_",
    "PREFECT_SERVER_CONCURRENCY_",
    "PREFECT_SERVER_DATABASE_",
    "PREFECT_SERVER_UI_",
    "PREFECT_WORKER_",
)
"""Settings of commands, terminals, servers and workers: a host needs none of them, so all of these share theirs."""
QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"}
"""A host has no terminal; what its task runs log goes to Prefect."""
_CALLS = 1_000_000  # what Ray lets into a host; the host bounds what runs, and must answer while it is full

_connecting = threading.Lock()


def _is_news(said: logging.LogRecord) -> bool:
    """Whether it is not that Ray sets no SIGTERM handler on another thread, where we do not want one (see below)."""
    return "SIGTERM handler is not set" not in said.getMessage()


logging.getLogger("ray._private.worker").addFilter(_is_news)


def connect(address: str | None, init_kwargs: dict[str, Any] | None = None, namespace: str = NAMESPACE) -> None:
    """Connect this process to Ray once and for good; a flow run never shuts it down.

    `address` or else `RAY_ADDRESS` names the cluster, without either a local Ray is started. Raises
    AgentsUnavailable where a cluster is named and there is none.
    """
    with _connecting:
        if ray.is_initialized():
            return
        target = address or os.environ.get("RAY_ADDRESS") or "local"
        quiet = {"log_to_driver": False, "configure_logging": False, "namespace": namespace}
        local = {"include_dashboard": False} if target == "local" else {}
        try:
            if target != "local":
                _probe(target)
            with _sigterm_kept():
                ray.init(target, **{**quiet, **local, **(init_kwargs or {})})
        except (OSError, ValueError, RuntimeError, grpc.FutureTimeoutError) as error:
            reason = str(error) or f"nothing answers within {CONNECT_S:g} s"
            raise AgentsUnavailable(
                f"no Ray cluster at {target!r} (RAY_ADDRESS or the block's address): {reason}"
            ) from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the process's own answer to SIGTERM, which Ray replaces twice while it connects.

    Under its handler in Python, Prefect takes the cancel of a process for a crash. The one below it, in C++, writes a
    stack trace and has the process aborted 3 s after any SIGTERM (https://github.com/ray-project/ray/pull/64830). On
    the main thread the handler that stood is set again, over both; another thread cannot set any, so Ray is told to
    leave its second one out (`RAY_DISABLE_FAILURE_SIGNAL_HANDLER`, which Ray reads once, when it is imported).
    """
    on_main = threading.current_thread() is threading.main_thread()
    handler, left_out = signal.getsignal(signal.SIGTERM), ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = left_out or not on_main
    try:
        yield
    finally:
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = left_out
        if callable(handler) and on_main:
            signal.signal(signal.SIGTERM, handler)


def _probe(target: str) -> None:
    """Raise where nothing answers, or our token is refused: `ray.init` would try for minutes, and hold up the loop."""
    address = target if target.startswith("ray://") else canonicalize_bootstrap_address_or_die(target)
    with init_grpc_channel(address.removeprefix("ray://"), [("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_S)
        if target.startswith("ray://"):
            return
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")(ONE_NODE, timeout=CONNECT_S)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise PermissionError("it refuses our token (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)") from error
            raise ConnectionError(str(error.details())) from error


def connected() -> bool:
    """Whether the cluster that this process is connected to still counts its node among the living.

    A cluster that was started anew at the same address does not: it is another one. Takes `CONNECT_S` at most,
    or twice that, and blocks.
    """
    context = ray.get_runtime_context()
    node, address = ray.NodeID.from_hex(context.get_node_id()), context.gcs_address
    try:
        _probe(address)
        return all(GcsClient(address=address).check_alive([node], CONNECT_S))
    except (grpc.FutureTimeoutError, ray.exceptions.RayError, OSError):
        return False


@dataclass(frozen=True)
class PoolSettings:
    """What a runner says of its hosts; runners that say the same share them."""

    hosts: int = 2
    concurrency: int = 1000
    namespace: str = NAMESPACE
    packages: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    lifespan: str = PREFECT_CLIENTS


class AgentPool:
    """The actors of one configuration, found or started at first use and shared by all its runners."""

    def __init__(self, settings: PoolSettings, environment: Environment) -> None:
        self._settings, self._environment = settings, environment
        self._family = _family(settings, environment)
        self._name = f"{self._family}-{_code(settings)}"
        self._handles: list[ActorHandle] = []
        self._retired_others = False
        self._turn = itertools.count()
        self._lock = threading.Lock()

    @property
    def _pending_limit(self) -> int:
        return PENDING_PER_SLOT * self._settings.concurrency

    def run(self, submission: Submission) -> ray.ObjectRef:
        """Hand a task run to the next host. Raises AgentsUnavailable when too many wait for it."""
        handles = self.hosts()
        with self._limit_named():
            return handles[next(self._turn) % len(handles)].run.remote(submission)

    def release(self, owner: str) -> None:
        """Let the hosts forget a flow run."""
        for handle in self._handles:
            with suppress(ray.exceptions.PendingCallsLimitExceeded):  # MAX_SCOPES bounds what is left behind
                handle.release.remote(owner)

    def forget(self) -> None:
        """Look for the hosts anew at the next use, because one of them is gone for good."""
        self._handles = []

    def check(self, timeout_s: float) -> list[int]:
        """Process id of every host; one that gives no answer is killed, and Ray starts it again."""
        handles = self.hosts()
        with self._limit_named():
            references = [handle.ping.remote() for handle in handles]
        try:
            return list(ray.get(references, timeout=timeout_s))
        except ray.exceptions.GetTimeoutError as error:
            _, silent = ray.wait(references, num_returns=len(references), timeout=0)
            for handle, reference in zip(handles, references, strict=True):
                if reference in silent:
                    ray.kill(handle, no_restart=False)
            raise AgentsUnavailable(
                f"{len(silent)} of {len(references)} agent hosts gave no answer in {timeout_s:g} s; restarted"
            ) from error
        except ray.exceptions.RayError as error:
            self.forget()
            raise AgentsUnavailable(f"the agent hosts cannot start: {error}") from error

    def hosts(self) -> list[ActorHandle]:
        """The actors, found or started."""
        with self._lock:
            if not self._handles:
                self._handles = [self._host(index) for index in range(self._settings.hosts)]
                self._retire_others()
            return self._handles

    @contextmanager
    def _limit_named(self) -> Iterator[None]:
        try:
            yield
        except ray.exceptions.PendingCallsLimitExceeded as error:
            raise AgentsUnavailable(
                f"an agent host has {self._pending_limit} task runs of this process in hand, its"
                " limit: allow more hosts or concurrency, or submit less at once"
            ) from error

    def _host(self, index: int) -> ActorHandle:
        actor = ray.remote(AgentHost).options(
            name=f"{self._name}-{index}",
            namespace=self._settings.namespace,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=MAX_TASK_RETRIES,
            max_concurrency=_CALLS,
            max_pending_calls=self._pending_limit,
            scheduling_strategy="SPREAD",
        )
        return actor.remote(
            self._environment, self._settings.concurrency, self._settings.preload, self._settings.lifespan
        )

    def _retire_others(self) -> None:
        """Ask the hosts of this family that run other code to end once idle.

        Once in a process: while two programs run side by side, as in a rolling update, neither must go on
        ending the other's.
        """
        if self._retired_others:
            return
        self._retired_others = True
        namespace = self._settings.namespace
        for found in ray.util.list_named_actors(all_namespaces=True):
            name = found["name"]
            ours = name.startswith(f"{self._name}-") or not name.startswith(f"{self._family}-")
            if found["namespace"] == namespace and not ours:
                with suppress(ValueError):  # it ended in the meantime
                    host = ray.get_actor(name, namespace=namespace)
                    host.retire.options(max_task_retries=0).remote(RETIRE_IDLE_S)


def agent_pool(settings: PoolSettings) -> AgentPool:
    """This process's pool of these settings, under its present Prefect settings and connection to Ray."""
    context = ray.get_runtime_context()
    job = f"{context.get_job_id()} {context.get_node_id()}"  # a new cluster counts jobs anew
    return _pool(job, settings, _environment(settings.pass_env))


@lru_cache(maxsize=16)
def _pool(job: str, settings: PoolSettings, environment: Environment) -> AgentPool:
    return AgentPool(settings, environment)


def _family(settings: PoolSettings, environment: Environment) -> str:
    """What hosts of the same settings have in common, whatever code they run."""
    told = repr((settings.concurrency, settings.packages, environment))
    return f"agents-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _code(settings: PoolSettings) -> str:
    """What hosts of the same code have in common."""
    told = repr((_source_digest(settings.packages), settings.preload, settings.lifespan))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


_known: tuple[Settings, dict[str, str]] | None = None


def _environment(pass_env: tuple[str, ...]) -> Environment:
    """The environment variables of a host: Prefect's settings and `pass_env`, as this process has them."""
    if given := host_environment.get(None):
        return given
    passed = {name: os.environ.get(name, "") for name in pass_env}  # an empty one too: Ray's processes may have another
    return tuple(sorted({**_prefect_settings(), **QUIET, **passed}.items()))


def _prefect_settings() -> dict[str, str]:
    """Those of Prefect's settings that a host needs. Worked out once, since it takes 30 ms."""
    global _known
    settings = get_current_settings()
    if _known is None or _known[0] is not settings:
        variables = settings.to_environment_variables(exclude_unset=True)
        _known = (settings, {name: value for name, value in variables.items() if not name.startswith(OTHERS)})
    return _known[1]


@lru_cache(maxsize=16)
def _source_digest(packages: tuple[str, ...]) -> str:
    """SHA-256 of the source of `packages`, of the runner's own, and of the versions below it."""
    digest = hashlib.sha256(f"{version('prefect')} {version('ray')}".encode())
    own = sorted(Path(__file__).parent.glob("*.py"))
    for file in itertools.chain(own, *map(_source, packages)):
        digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _source(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"no package {package!r}, whose source is part of the agent hosts' identity")
    for folder in spec.submodule_search_locations or ():
        yield from sorted(Path(folder).rglob("*.py"))
    if not spec.submodule_search_locations and spec.origin:
        yield Path(spec.origin)
