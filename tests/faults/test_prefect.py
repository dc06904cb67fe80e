"""Prefect's server is away: at the start of one deliberation, and in the middle of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.conftest import TASK, Stack, flow_run, result_of, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

TASKS = 8
"""Task runs of a deliberation of three: each member twice, collect, record."""


async def test_who_waits_goes_on_and_who_begins_is_told(broken: Stack, new_id: str) -> None:
    """Away for 30 s: the deliberation that was under way decides, and Prefect shows all of it in the end.

    One that is begun meanwhile ends with code 6, says what is away, and leaves nothing behind.
    """
    await broken.fault("slow", match=f"{new_id}:.*[23]$", delay_s=10)
    running = await broken.start("deliberate", "--local", TASK, "--id", new_id, "--json")
    await broken.asked(new_id)
    progress = {"key": {"any_": [f"progress-{new_id}"]}}
    await until(lambda: broken.prefect("artifacts", artifacts=progress))
    async with broken.away("prefect"):
        refused, _ = await asyncio.gather(
            broken.run("deliberate", "--local", TASK, "--id", f"{new_id}-b"), asyncio.sleep(30)
        )
    ended = await running.end()
    assert (refused.code, refused.out) == (6, "")
    assert f"Prefect's server at {broken.status.prefect} (PREFECT_API_URL) does not answer" in refused.err
    assert refused.err.count("\n") == 1
    result = result_of(ended)
    assert (ended.code, result["status"], result["received_count"]) == (0, "COMPLETED", 3)
    assert set((await broken.calls(new_id)).values()) == {1}
    assert "Traceback" not in ended.err
    assert await broken.calls(f"{new_id}-b") == {}
    unknown = await broken.run("result", f"{new_id}-b")
    assert (unknown.code, unknown.out) == (2, "")

    async def shown() -> list[dict[str, Any]]:
        tasks = await broken.prefect("task_runs", flow_runs=flow_run(result))
        whole = len(tasks) >= TASKS and all(task["state_name"] == "Completed" for task in tasks)
        return tasks if whole else []

    assert len(await until(shown)) == TASKS
    run = (await broken.prefect("flow_runs", flow_runs=flow_run(result)))[0]
    artifacts = await broken.prefect("artifacts", flow_runs=flow_run(result))
    data = {artifact["key"].partition("-")[0]: artifact["data"] for artifact in artifacts}
    assert run["state_name"] == "Completed"
    assert data.keys() == {"progress", "report", "ranking"}
    assert data["progress"] == 100
    assert "## Decision (3 of 3)" in data["report"]
