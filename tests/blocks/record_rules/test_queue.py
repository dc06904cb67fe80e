"""The rules of the work queue: two lanes, redelivery, handing back, dead letters, and a loop that stands still."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


async def _put(record: Any, one: str, lane: Any = "interactive") -> None:
    from blocks.record import subjects

    await record.publish(subjects.request(one, lane), f"{one}:request", "request", {"id": one})


async def test_each_lane_brings_its_own_once(record: Any) -> None:
    """Two takers share a lane; what is done is gone."""
    from blocks.record.queue import WorkQueue

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


async def test_what_is_handed_back_comes_again_and_what_is_buried_does_not(record: Any) -> None:
    """With its count of deliveries."""
    from blocks.record.queue import WorkQueue

    queue = WorkQueue(record, "interactive")
    await _put(record, "a")
    await (await queue.take(2)).hand_back()
    again = await queue.take(2)
    assert (again.id, again.deliveries) == ("a", 2)
    await again.bury("it cannot be run")
    assert await queue.take(0.5) is None


async def test_a_request_of_one_that_was_killed_comes_again(record: Any) -> None:
    """Nobody says that it is being worked on: after the ack wait somebody else gets it."""
    from blocks.record.queue import WorkQueue

    await _put(record, "a")
    assert (await WorkQueue(record, "interactive", ack_wait_s=1).take(2)).deliveries == 1
    other = WorkQueue(record, "interactive", ack_wait_s=1)
    async with asyncio.timeout(20):
        while (again := await other.take(1)) is None:
            pass
    assert again.deliveries == 2


async def test_a_loop_that_stands_still_keeps_its_request(broker: Any, record: Any, leases: Any) -> None:
    """For longer than the ack wait: the thread beside it says that the request is worked on."""
    from blocks.record.queue import WorkQueue

    ack_wait_s = broker.lease_s
    await _put(record, "a")
    taken = await WorkQueue(record, "interactive", ack_wait_s).take(2)
    async with leases.working_on(taken.reply):
        time.sleep(2 * ack_wait_s)  # the loop is to stand still
        assert await WorkQueue(record, "interactive", ack_wait_s).take(ack_wait_s / 2) is None
    await taken.done()
    assert (await record.jetstream.stream_info("CONCLAVE_REQUESTS")).state.messages == 0


async def test_workers_are_counted_while_they_are_there(record: Any, leases: Any) -> None:
    """By their leases; ids of deliberations are none."""
    from blocks.record.queue import PRESENCE, workers

    assert await workers(record) == 0
    async with leases.hold(f"{PRESENCE}a"), leases.hold(f"{PRESENCE}b"), leases.hold("worker"):
        assert await workers(record) == 2
    assert await workers(record) == 0


async def test_what_waits_and_what_is_in_work_is_counted(record: Any) -> None:
    """In both lanes; what was delivered twice too."""
    from blocks.record.queue import WorkQueue, backlog

    async def counted(*wanted: int) -> None:
        """nats-server counts what waits a moment after it came."""
        async with asyncio.timeout(10):
            while await backlog(record) != wanted:
                await asyncio.sleep(0.02)

    await counted(0, 0, 0)
    interactive, batch = WorkQueue(record, "interactive"), WorkQueue(record, "batch")
    assert (await interactive.take(0.1), await batch.take(0.1)) == (None, None)
    for one, lane in (("a", "interactive"), ("b", "interactive"), ("c", "batch")):
        await _put(record, one, lane)
    taken = await interactive.take(2)
    await counted(2, 1, 0)
    await taken.hand_back()
    both = {one.id: one for one in (await interactive.take(2), await interactive.take(2))}
    await counted(1, 2, 1)
    assert {one: delivery.deliveries for one, delivery in both.items()} == {"a": 2, "b": 1}
    await both["a"].done()
    await counted(1, 1, 0)


async def test_a_dead_letter_keeps_the_message_and_the_reason(record: Any) -> None:
    """Once, however often it is buried, with its bytes and what is known of it."""
    from blocks.record.dead_letters import count, dead_letter, dead_letters
    from blocks.record.queue import WorkQueue

    await _put(record, "a")
    taken = await WorkQueue(record, "interactive").take(2)
    await taken.bury("it cannot be run: Ü\n")
    await taken.bury("again")
    (letter,) = [letter async for letter in dead_letters(record)]
    assert (letter.id, letter.subject, letter.deliveries, letter.reason) == (
        "a",
        "requests.a",
        1,
        "it cannot be run: \\xdc",
    )
    assert (letter.data, await count(record)) == (b'{"id":"a"}', 1)
    assert await dead_letter(record, letter.sequence) == letter
    assert await dead_letter(record, letter.sequence + 1) is None


async def test_a_server_that_stands_still_is_no_empty_queue(
    broker: Any, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes from either; whoever takes is told which it is, and takes on once it is back."""
    from blocks.exceptions import RecordError
    from blocks.record import pulling
    from blocks.record.queue import WorkQueue

    monkeypatch.setattr(pulling, "ANSWER_S", 0.3)
    queue = WorkQueue(record, "interactive")
    assert await queue.take(0.2) is None
    async with broker.still():
        with pytest.raises(RecordError, match="nothing can be taken from CONCLAVE_REQUESTS"):
            await queue.take(0.2)
    await _put(record, "a")
    async with asyncio.timeout(20):
        taken = await queue.take(5)
    assert (taken.id, taken.deliveries) == ("a", 1)
