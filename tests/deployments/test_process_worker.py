"""`deliberate` on Prefect's process worker: decided there, and cancelled there."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest_asyncio

from tests.deployments.stock_workers import answered, ask, deployed, ended, stock_worker


@pytest_asyncio.fixture(scope="module")
async def deployment(connected: Any) -> AsyncGenerator[Any, None]:
    """One worker for these tests."""
    pool = f"process-{uuid.uuid4().hex[:8]}"
    found = await deployed(pool, "process")
    async with stock_worker(pool, "process", {}):
        yield found


async def test_a_run_decides(deployment: Any, make_council: Any, recorded: Any, shown: Any, simulator: Any) -> None:
    """Under its id, with its task runs beneath it."""
    run = await ask(deployment, await make_council(3))
    found = await ended(run)
    finished = await recorded.events(f"deliberations.{run}.finished")
    assert (found.state.name, found.run_count) == ("Completed", 1)
    assert [body["status"] for bodies in finished.values() for body in bodies] == ["COMPLETED"]
    tasks = await shown.found("task_runs", flow_runs={"id": {"any_": [run]}})
    assert {task["name"].partition("-")[0] for task in tasks} >= {"propose", "collect", "record"}
    assert set((await simulator.calls(run)).values()) == {1}


async def test_a_cancelled_run_is_cancelled_on_the_record(
    deployment: Any, make_council: Any, recorded: Any, simulator: Any
) -> None:
    """By the worker, that stops the process: the call in flight is closed, and what was answered stands."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    await simulator.fault("hang", match=":propose-0:m3")
    run = await ask(deployment, await make_council(3))
    await answered(recorded, run, 2)
    async with get_client() as client:
        await client.set_flow_run_state(run, Cancelling())
    found = await ended(run)
    finished = await recorded.events(f"deliberations.{run}.finished")
    assert found.state.name == "Cancelled"
    assert [(body["status"], body["engine"]) for bodies in finished.values() for body in bodies] == [
        ("CANCELLED", "simulator")
    ]
    assert [call["aborted"] for call in await simulator.requests(run) if call["request_id"].endswith("m3")] == [True]
