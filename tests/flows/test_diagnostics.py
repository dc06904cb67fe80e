"""The canary: every part gives a real answer, or the run fails and names who does not."""

from __future__ import annotations

import os
from typing import Any

import pytest


@pytest.fixture
def diagnose(connected: Any) -> Any:
    """Run the flow: `state = await diagnose()`."""
    from flows.diagnostics import diagnostics

    async def run(**parameters: Any) -> Any:
        return await diagnostics(**parameters, return_state=True)

    return run


async def test_every_part_answers(diagnose: Any, shown: Any, simulator: Any) -> None:
    """A message, a worker, the hosts, a task that came back, and tokens from each model; a table in Prefect's UI."""
    from blocks.documents import open_leases
    from blocks.record.queue import PRESENCE

    async with (await open_leases()).hold(f"{PRESENCE}test"):
        state = await diagnose(councils=["dev"])
    table = (await shown.found("artifacts", artifacts={"key": {"any_": ["diagnostics"]}}, sort="CREATED_DESC"))[0]
    assert (state.name, state.message) == ("Completed", "all 7 answer")
    for part in ("record", "worker", "agents", "task", "councils", "model default"):
        assert f'"{part}"' in table["data"]
    assert "a task came back: ready" in table["data"]
    assert "(the SIMULATOR)" in table["data"]


async def test_who_does_not_answer_is_named(diagnose: Any, stack: Any, shown: Any) -> None:
    """No worker takes requests, and a model is not there: Failed with both names, and the others are asked."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM

    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model="<b>no-such</b>", attempts=1).save(
        "unwell", overwrite=True
    )
    await Council(members=[{"agent_id": "m1", "role": "DEV", "server": "unwell"}]).save("sick", overwrite=True)
    try:
        state = await diagnose(councils=["sick"])
    finally:
        await Council.adelete("sick")
        await VLLM.adelete("unwell")
    table = (await shown.found("artifacts", artifacts={"key": {"any_": ["diagnostics"]}}, sort="CREATED_DESC"))[0]
    assert (state.name, state.message) == ("Failed", "2 of 7 do not answer: worker, model unwell")
    assert "no worker takes requests" in table["data"]
    assert "<b>" not in table["data"]
