"""`deliberate` on Prefect's process worker: decided there, and cancelled there."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.deployments.stock_workers import ask, check_cancel, deployed, ended, stock_worker

pytestmark = pytest.mark.stack


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
    tasks = await shown.task_runs(run)
    assert {task["name"].partition("-")[0] for task in tasks} >= {"propose", "collect", "record"}
    assert set((await simulator.calls(run)).values()) == {1}


async def test_a_cancelled_run_is_cancelled_on_the_record(
    deployment: Any, make_council: Any, recorded: Any, simulator: Any
) -> None:
    """By the worker, that stops the process."""
    await check_cancel(deployment, await make_council(3), recorded, simulator)
