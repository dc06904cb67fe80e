"""Where agent tasks run: a Prefect block for a Ray cluster that gives the flow its task runner."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

from prefect.blocks.core import Block
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from pydantic import Field

from blocks import names
from blocks.warm.pool import NAMESPACE
from blocks.warm.runner import WarmRayTaskRunner

PACKAGES = ("blocks", "tasks", "flows")
"""The source that agent hosts run; a change of it makes new hosts."""


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
        return WarmRayTaskRunner(
            address=self.address, hosts=self.hosts, concurrency=self.concurrency, packages=PACKAGES
        )


def waiting_only() -> AbstractContextManager[Any]:
    """Around submits to the stock runner: agents wait for a model, so they claim no CPU. Warm hosts claim none."""
    return remote_options(num_cpus=0)
