"""NATS goes away while members wait for the model, and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.conftest import TASK, Stack, result_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_deliberation_outlasts_nats(broken: Stack, new_id: str, how: str) -> None:
    """Killed and started by its supervisor, or stopped for longer than the calls take: all decide, none asks twice."""
    await broken.fault("slow", match=f"{new_id}:.*[23]$", delay_s=4)
    running = await broken.start("deliberate", "--local", TASK, "--id", new_id, "--json")
    await broken.asked(new_id)
    if how == "killed":
        broken.kill("nats")
    else:
        async with broken.away("nats"):
            await asyncio.sleep(8)
    ended = await running.end()
    again = await broken.run("result", new_id, "--json")
    result: dict[str, Any] = result_of(ended)
    assert (ended.code, result["status"], result["received_count"]) == (0, "COMPLETED", 3)
    assert result_of(again) == result
    assert set((await broken.calls(new_id)).values()) == {1}
    assert "Traceback" not in ended.err
