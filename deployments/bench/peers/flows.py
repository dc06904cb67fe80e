"""Our flow, on the warm runner and on prefect-ray's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from prefect.client.orchestration import get_client

from blocks.background import background
from blocks.documents import fresh, open_record
from blocks.ray_agents import RayAgents
from blocks.record import subjects
from blocks.record.events import Record
from deployments.bench.peers.peer import Bench
from deployments.bench.samples import Sample, now
from deployments.bench.workload import REQUIREMENTS, TASK
from flows.deliberate import deliberate
from tasks.council.models import DeliberationRequest
from tasks.council.stages import Strategy
from tasks.deliberations.plan import Convening, carried, convene_with_blocks

PACKAGES = ("prefect", "prefect-ray", "ray", "nats-py", "aiohttp", "pydantic")


class Flow:
    """The flow `deliberate` in this process; its clock stops when the decision arrives from JetStream."""

    packages = PACKAGES

    def __init__(
        self,
        bench: Bench,
        record: Record,
        title: str,
        runner: Callable[[], Any],
        options: Mapping[str, str],
        strategy: Strategy = "propose",
    ) -> None:
        self.title, self.options = title, options
        self._bench, self._record, self._runner, self._strategy = bench, record, runner, strategy

    async def sample(self, size: int) -> Sample:
        """One deliberation."""
        deliberation_id = f"bench-{uuid.uuid4()}"
        decided: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def heard(subject: str) -> None:
            if not decided.done():
                decided.set_result(now())

        await self._bench.server.forget()
        listening = await self._record.listen(subjects.decision(deliberation_id, "*"), heard)
        flow = deliberate.with_options(task_runner=self._runner())
        asked = {"task": TASK, "requirements": list(REQUIREMENTS), "strategy": self._strategy, "members": size}
        called = now()
        request = DeliberationRequest.read(asked)
        async with background(convene_with_blocks(self._record, deliberation_id, request)) as (session,):
            carried.set(Convening(deliberation_id, session))
            state = await flow(**asked, deliberation_id=deliberation_id, return_state=True)
        await listening.unsubscribe()
        if not state.is_completed() or not decided.done():
            raise RuntimeError(f"the deliberation ended {state.name}: {state.message}")
        started = await _start_time(state.state_details.flow_run_id)
        return await self._bench.server.sample(deliberation_id, called, started, decided.result())


def conclave(bench: Bench) -> AbstractAsyncContextManager[Flow]:
    """The flow on the warm runner of the default block; members are asked once."""
    return _warm(bench, "Conclave", "propose")


def rank(bench: Bench) -> AbstractAsyncContextManager[Flow]:
    """The same with ballots: members are asked twice, one answer after the other."""
    return _warm(bench, "Conclave, rank", "rank")


def synthesize(bench: Bench) -> AbstractAsyncContextManager[Flow]:
    """The same with ballots and a chairman: three answers, one after the other."""
    return _warm(bench, "Conclave, synthesize", "synthesize")


@asynccontextmanager
async def _warm(bench: Bench, title: str, strategy: Strategy) -> AsyncGenerator[Flow, None]:
    agents = await fresh(RayAgents)
    runner = agents.task_runner()
    runner.warm()  # type: ignore[attr-defined]  # the default block's runner is the warm one
    options = {
        "task_runner": f"WarmRayTaskRunner, {agents.hosts} agent hosts, concurrency {agents.concurrency}",
        "flow": f"deliberate, strategy {strategy}, in a process that is warm, convened as a worker does; `dev`, sized",
        "prefect_server": "on SQLite, on this machine",
        "record": "nats-server with JetStream on files, sync_interval by default",
    }
    yield Flow(bench, await open_record(), title, lambda: runner, options, strategy)


@asynccontextmanager
async def stock(bench: Bench) -> AsyncGenerator[Flow, None]:
    """The flow on prefect-ray's runner."""
    agents = RayAgents(runner="stock")
    options = {
        "task_runner": "RayTaskRunner, num_cpus=0 for each task, on a Ray that is connected already",
        "flow": "the same async flow, in the same process",
    }
    yield Flow(bench, await open_record(), "stock runner", agents.task_runner, options)


async def _start_time(flow_run_id: Any) -> float:
    async with get_client() as client:
        run = await client.read_flow_run(flow_run_id)
    if run.start_time is None:
        raise RuntimeError("Prefect has no start time of the run")
    return float(run.start_time.timestamp())
