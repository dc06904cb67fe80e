"""Slots for starts: bounded, people before a batch, none lost where somebody stops waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.fixture
def slots(importable_prefect: None) -> Any:
    """One slot. Prefect reads its settings at import, so the worker is imported only once it may be."""
    from deployments.worker.start_slots import StartSlots

    return StartSlots(1)


async def test_so_many_start_at_once_and_people_pass_the_batch(slots: Any) -> None:
    """With one slot, the interactive ones that wait come before the batch that waited longer."""
    order = []

    async def start(name: str, lane: str) -> None:
        async with slots.starting(lane) as started:
            order.append(name)
            await asyncio.sleep(0)
            started()
            started()  # a second time frees nothing

    async with asyncio.timeout(10):
        waits = [("first", "batch"), ("batch", "batch"), ("ann", "interactive"), ("bob", "interactive")]
        await asyncio.gather(*(start(*each) for each in waits))
    assert order == ["first", "ann", "bob", "batch"]


async def test_a_slot_is_not_lost_with_one_who_stops_waiting(slots: Any) -> None:
    """Cancelled while it waits, and cancelled in the moment in which its turn comes: the next one starts."""

    async def start() -> str:
        async with slots.starting("interactive"):
            return "started"

    async with asyncio.timeout(10):
        async with slots.starting("interactive") as started:
            waiting, turned, last = (asyncio.create_task(start()) for _ in range(3))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            started()  # the turn of `turned` has come
            turned.cancel()
            assert await last == "started"
        assert await start() == "started"
