"""The task runner of our flows is the block's, as it stands when a flow run begins."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio


@pytest_asyncio.fixture
async def edit(connected: Any) -> AsyncGenerator[Callable[..., Awaitable[None]], None]:
    """Edit the block as in Prefect's UI, until the test ends: `await edit(runner="stock")`."""
    from blocks.documents import fresh, save
    from blocks.ray_agents import RayAgents

    before = await fresh(RayAgents)

    async def edit_(**fields: Any) -> None:
        await save(before.model_copy(update=fields), "default")

    yield edit_
    await save(before, "default")


async def test_an_edit_of_the_block_counts_for_the_next_run(
    edit: Any, deliberate: Any, make_council: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every flow with agents, as it was imported: no door has to choose the task runner."""
    from blocks.ray_agents import RayAgents
    from flows.diagnostics import diagnostics

    chosen, task_runner = [], RayAgents.task_runner

    def noted(block: RayAgents) -> Any:
        chosen.append(block.concurrency)
        return task_runner(block)

    monkeypatch.setattr(RayAgents, "task_runner", noted)
    council = await make_council(1)
    await edit(concurrency=900)
    await deliberate(task="Choose one", council=council)
    assert chosen == [900]
    await edit(concurrency=901)
    await diagnostics(councils=[council], return_state=True)
    assert set(chosen[1:]) == {901}


async def test_a_stock_runner_that_the_block_names_runs_the_agents(
    edit: Any, deliberate: Any, make_council: Any
) -> None:
    """It decides the same."""
    await edit(runner="stock")
    _, result = await deliberate(task="Choose one", council=await make_council(2))
    assert (result["status"], result["received_count"]) == ("COMPLETED", 2)


def test_nothing_is_submitted_to_the_one_that_stands_in(connected: Any) -> None:
    """Outside of a flow run there is no task runner yet."""
    from blocks.task_runner import BlockTaskRunner

    with pytest.raises(RuntimeError, match="the task runner of the block"):
        BlockTaskRunner().submit(None, {})


async def test_where_many_flows_share_a_loop_the_block_is_awaited(edit: Any) -> None:
    """A Prefect that stands still would hold all of them up else, until the watchdog ends their worker."""
    from blocks.task_runner import BlockTaskRunner, with_agents
    from flows.deliberate import deliberate
    from flows.housekeeping import housekeeping

    await edit(runner="stock")
    chosen = (await with_agents(deliberate)).task_runner
    assert not isinstance(chosen, BlockTaskRunner)
    assert isinstance(deliberate.task_runner, BlockTaskRunner), "the flow itself stays as it is"
    assert await with_agents(housekeeping) is housekeeping
