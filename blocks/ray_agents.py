"""Where agent tasks run: a Prefect block for a Ray cluster that gives the flow its task runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Literal

from prefect.blocks.core import Block
from prefect.client.schemas.objects import State
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture
from pydantic import Field

from blocks import names
from blocks.connections import connections
from blocks.exceptions import AgentsUnavailable
from blocks.prefect_api import prefect_clients
from blocks.warm import exceptions as warm_exceptions
from blocks.warm import runner as warm_runner
from blocks.warm.runner import WarmFuture, WarmRayTaskRunner

NAMESPACE = "conclave"
"""The Ray namespace of what is ours."""
PACKAGES = ("blocks", "tasks", "flows")
"""The source that agent hosts run; a change of it makes new hosts."""
PRELOAD = ("flows.deliberate",)
"""What the first members of a new host would import otherwise, which takes them 0.14 s."""


@contextmanager
def agents_named() -> Generator[None, None, None]:
    """Raise our AgentsUnavailable in place of the task runner's own."""
    try:
        yield
    except warm_exceptions.AgentsUnavailable as error:
        raise AgentsUnavailable(str(error)) from error


@asynccontextmanager
async def lifespan() -> AsyncGenerator[None, None]:
    """What an agent host keeps open: Prefect's API clients, and the connections of blocks."""
    async with prefect_clients(), connections():
        yield


class AgentTaskRunner(WarmRayTaskRunner):
    """The warm runner, whose errors are ours."""

    def __enter__(self) -> AgentTaskRunner:
        with agents_named():
            super().__enter__()
        return self

    def submit(self, *args: Any, **kwargs: Any) -> WarmFuture:
        """Hand a task run to a host; returns at once. Raises AgentsUnavailable when too many wait."""
        with agents_named():
            return super().submit(*args, **kwargs)

    def warm(self, timeout_s: float = 60.0) -> list[int]:
        """Start the hosts, or find them, and wait for each; the process ids. Raises AgentsUnavailable."""
        with agents_named():
            return super().warm(timeout_s)


async def settled(future: PrefectRayFuture[Any], timeout_s: float | None = None) -> State[Any] | None:
    """The final state of a task run on either runner; None after `timeout_s`. Raises AgentsUnavailable."""
    with agents_named():
        return await warm_runner.settled(future, timeout_s)


class RayAgents(Block):
    """The Ray cluster that runs the members of councils.

    Example:
        ```python
        from blocks.ray_agents import RayAgents
        from flows.deliberate import deliberate

        agents = RayAgents.load("BLOCK_NAME")
        flow = deliberate.with_options(task_runner=agents.task_runner())
        ```
    """

    _block_type_name = "Ray Agents"
    _block_type_slug = "ray-agents"
    _description = "The Ray cluster, and the warm agent hosts on it, that run the members of councils."
    _documentation_url = "https://docs.ray.io/en/latest/ray-core/actors.html"  # type: ignore[assignment]  # Prefect declares HttpUrl and validates a str

    address: str | None = Field(
        None, description="Ray cluster, such as 10.0.0.5:6379; RAY_ADDRESS where left out, else a local Ray."
    )
    runner: Literal["warm", "stock"] = Field(
        "warm", description="warm: long-lived agent hosts; stock: prefect-ray's own RayTaskRunner."
    )
    hosts: int = Field(2, ge=1, le=256, description="Agent hosts, spread over the nodes of the cluster.")
    concurrency: int = Field(1000, ge=1, le=10_000, description="Agent tasks at once in one host.")

    def task_runner(self) -> RayTaskRunner[Any]:
        """The task runner for a flow."""
        if self.runner == "stock":
            environment = {"runtime_env": {"env_vars": {names.VARIABLE: names.prefix()}}} if names.prefix() else {}
            return RayTaskRunner(address=self.address, init_kwargs={"namespace": NAMESPACE, **environment})
        return AgentTaskRunner(
            address=self.address,
            hosts=self.hosts,
            concurrency=self.concurrency,
            packages=PACKAGES,
            namespace=NAMESPACE,
            pass_env=(names.VARIABLE,),
            preload=PRELOAD,
            lifespan=f"{__name__}:{lifespan.__name__}",
        )


def waiting_only() -> AbstractContextManager[Any]:
    """Around submits to the stock runner: agents wait for a model, so they claim no CPU. Warm hosts claim none."""
    return remote_options(num_cpus=0)
