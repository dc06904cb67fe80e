"""The simulator's pace, changed while it runs: slots and latency."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytestmark = pytest.mark.servers


async def waiting(client: Any, running: int, queued: int) -> None:
    """Until so many requests are answered at once, and so many wait."""
    async with asyncio.timeout(20):
        while (
            await client.metric("num_requests_running"),
            await client.metric("num_requests_waiting"),
        ) != (running, queued):
            await asyncio.sleep(0.01)


async def test_more_slots_take_what_waits_and_fewer_let_the_others_end(running: Any) -> None:
    """Nothing that runs is pushed out, nothing that waits is forgotten, and no slot is given twice."""
    async with running(latency_s=60, slots=1) as client:
        asked = [asyncio.create_task(client.chat(f"r-{number}")) for number in range(6)]
        await waiting(client, 1, 5)
        await client.send("PUT", "/sim/pace", {"slots": 4})
        await waiting(client, 4, 2)
        await client.send("PUT", "/sim/pace", {"slots": 2})
        asked[0].cancel()
        await waiting(client, 3, 2)
        asked[1].cancel()
        await waiting(client, 2, 2)
        asked[2].cancel()
        await waiting(client, 2, 1)
        for one in asked:
            one.cancel()
        await waiting(client, 0, 0)


async def test_the_latency_is_that_of_when_an_answer_begins(running: Any) -> None:
    """One that was begun keeps its own; the next has the new one."""
    async with running(latency_s=60) as client:
        slow = asyncio.create_task(client.chat("slow"))
        await client.until("slow", "started_at")
        await client.send("PUT", "/sim/pace", {"latency_s": 0})
        status, _ = await client.chat("quick")
        assert (status, slow.done()) == (200, False)
        slow.cancel()


async def test_the_pace_is_told_and_set_back(running: Any) -> None:
    async with running(latency_s=0.5, slots=8) as client:
        assert await client.send("PUT", "/sim/pace", {"slots": 3}) == (200, {"slots": 3, "latency_s": 0.5})
        assert await client.send("GET", "/sim/pace") == (200, {"slots": 3, "latency_s": 0.5})
        assert await client.send("DELETE", "/sim/pace") == (200, {"slots": 8, "latency_s": 0.5})


@pytest.mark.parametrize(
    ("body", "told"),
    [({"slots": 0}, "slots: "), ({"slot": 1}, "slot: unknown; must be one of slots, latency_s"), ([], "JSON object")],
)
async def test_a_pace_that_cannot_be_is_refused_by_its_field(running: Any, body: Any, told: str) -> None:
    async with running(slots=8) as client:
        status, answer = await client.send("PUT", "/sim/pace", body)
        assert (status, told in answer["error"]["message"]) == (400, True)
        assert (await client.send("GET", "/sim/pace"))[1]["slots"] == 8
