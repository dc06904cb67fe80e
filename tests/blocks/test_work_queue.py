"""The work queue: two lanes, redelivery, handing back, refusing, and a loop that stands still beyond the ack wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest_asyncio


@pytest_asyncio.fixture
async def own(nats_server: Any, own_connections: None) -> AsyncGenerator[Any, None]:
    """The record of a NATS server of the test's own."""
    from blocks.jetstream import JetStream

    async with nats_server() as server:
        block = JetStream(servers=[server.url], patience_s=10)
        yield block, await block.record()


async def _put(record: Any, one: str, lane: Any = "interactive") -> None:
    from blocks.record import subjects

    await record.publish(subjects.request(one, lane), f"{one}:request", "request", {"id": one})


async def test_each_lane_brings_its_own_once(own: Any) -> None:
    """Two takers share a lane; what is done is gone."""
    from blocks.record.queue import WorkQueue

    _, record = own
    for one in ("a", "b"):
        await _put(record, one)
    await _put(record, "c", "batch")
    first, second, batch = (
        WorkQueue(record, "interactive"),
        WorkQueue(record, "interactive"),
        WorkQueue(record, "batch"),
    )
    taken = [await first.take(2), await second.take(2), await batch.take(2)]
    assert [(one.id, one.lane, (await one.body())["id"], one.deliveries) for one in taken] == [
        ("a", "interactive", "a", 1),
        ("b", "interactive", "b", 1),
        ("c", "batch", "c", 1),
    ]
    assert await first.take(0.5) is None
    for one in taken:
        await one.done()
    info = await record.jetstream.stream_info("CONCLAVE_REQUESTS")
    assert info.state.messages == 0


async def test_what_is_handed_back_comes_again_and_what_is_buried_does_not(own: Any) -> None:
    """With its count of deliveries."""
    from blocks.record.queue import WorkQueue

    _, record = own
    queue = WorkQueue(record, "interactive")
    await _put(record, "a")
    await (await queue.take(2)).hand_back()
    again = await queue.take(2)
    assert (again.id, again.deliveries) == ("a", 2)
    await again.bury("it cannot be run")
    assert await queue.take(0.5) is None


async def test_a_request_of_one_that_was_killed_comes_again(own: Any) -> None:
    """Nobody says that it is being worked on: after the ack wait somebody else gets it."""
    from blocks.record.queue import WorkQueue

    _, record = own
    await _put(record, "a")
    assert (await WorkQueue(record, "interactive", ack_wait_s=1).take(2)).deliveries == 1
    other = WorkQueue(record, "interactive", ack_wait_s=1)
    async with asyncio.timeout(20):
        while (again := await other.take(1)) is None:
            pass
    assert again.deliveries == 2


async def test_a_loop_that_stands_still_keeps_its_request(own: Any) -> None:
    """For longer than the ack wait: the thread beside it says that the request is worked on."""
    from blocks.record.leases import RENEW_S, Leases
    from blocks.record.queue import WorkQueue

    block, record = own
    ack_wait_s = 2 * RENEW_S
    leases = Leases(block.record)
    await leases.open()
    try:
        await _put(record, "a")
        taken = await WorkQueue(record, "interactive", ack_wait_s).take(2)
        async with leases.working_on(taken.reply):
            time.sleep(2 * ack_wait_s)
            assert await WorkQueue(record, "interactive", ack_wait_s).take(1) is None
        await taken.done()
        assert (await record.jetstream.stream_info("CONCLAVE_REQUESTS")).state.messages == 0
    finally:
        await leases.close()


async def test_workers_are_counted_while_they_are_there(own: Any) -> None:
    """By their leases; ids of deliberations are none."""
    from blocks.record.leases import Leases
    from blocks.record.queue import PRESENCE, workers

    block, record = own
    assert await workers(record) == 0
    leases = Leases(block.record)
    await leases.open()
    try:
        async with leases.hold(f"{PRESENCE}a"), leases.hold(f"{PRESENCE}b"), leases.hold("worker"):
            assert await workers(record) == 2
        assert await workers(record) == 0
    finally:
        await leases.close()
