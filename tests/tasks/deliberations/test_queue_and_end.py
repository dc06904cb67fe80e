"""From a request to the end of one that nobody runs: accepted once, cancelled, found, ended from what stands.

On a NATS in memory; `tests/flows/` and `tests/faults/` try the same with everything real.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

TASK = "Choose a queue"


def request(one: str, task: str = TASK, **more: Any) -> Any:
    """A request of a gateway's."""
    from tasks.deliberations.submit import Request

    return Request(id=one, parameters={"task": task}, door="gateway", **more)


async def finished(record: Any, one: str) -> list[str]:
    """The ends that stand, which is one at most."""
    return [event.body["status"] async for event in record.stored(f"deliberations.{one}.finished", direct=False)]


async def test_a_request_waits_once(record: Any, new_id: str) -> None:
    """The same again is told so; another one under the id is refused by the id."""
    from tasks.council.exceptions import InvalidRequest
    from tasks.deliberations.submit import enqueue, queued_request

    assert await enqueue(record, request(new_id)) == (True, True)
    assert await enqueue(record, request(new_id)) == (False, False)
    with pytest.raises(InvalidRequest, match="was already asked with another request"):
        await enqueue(record, request(new_id, "Choose another"))
    waiting = await queued_request(record, new_id)
    assert waiting is not None
    assert waiting.asked == {"task": TASK}
    assert await record.messages("CONCLAVE_REQUESTS") == 1


async def test_of_two_requests_at_once_one_has_the_id(record: Any, new_id: str) -> None:
    """Whoever comes second is refused, whatever the order of their writes."""
    from tasks.deliberations.read import OtherRequest
    from tasks.deliberations.submit import Submitted, asked_of, enqueue

    asked = (enqueue(record, request(new_id, task)) for task in ("one", "two"))
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in told} == {Submitted, OtherRequest}
    first = ("one", "two")[[type(one) for one in told].index(Submitted)]
    assert await asked_of(record, await record.statuses.read(new_id)) == {"task": first}


async def test_a_large_request_is_kept_beside_its_key(record: Any, new_id: str) -> None:
    """And read back whole."""
    from tasks.deliberations.submit import asked_of, enqueue

    large = "x" * 90_000
    await enqueue(record, request(new_id, large))
    status = await record.statuses.read(new_id)
    assert "request" not in status
    assert await asked_of(record, status) == {"task": large}


async def test_garbage_in_the_queue_is_no_request_and_keeps_its_place(record: Any, new_id: str) -> None:
    """Whoever takes it from there sees to it."""
    from tasks.deliberations.submit import queued, queued_request

    await record.jetstream.publish(f"requests.{new_id}", b"[garbage")
    assert await queued_request(record, new_id) is None
    assert await queued(record, new_id)


async def test_one_that_waits_is_cancelled_at_once(record: Any, new_id: str) -> None:
    """With its end on the record, under its own lease."""
    from blocks.documents import open_leases
    from tasks.deliberations.cancel import stop
    from tasks.deliberations.submit import enqueue

    await enqueue(record, request(new_id))
    leases = await open_leases()
    async with asyncio.timeout(30):
        assert await stop(record, leases, new_id) == "CANCELLED"
    assert await finished(record, new_id) == ["CANCELLED"]
    assert (await record.statuses.read(new_id))["status"] == "CANCELLED"
    assert await stop(record, leases, new_id) == "CANCELLED"


async def test_a_cancel_may_come_before_its_request(record: Any, new_id: str) -> None:
    """The flag is kept, and the request that comes has the id all the same."""
    from tasks.deliberations.submit import ask_to_cancel, enqueue

    await ask_to_cancel(record, new_id)
    assert await enqueue(record, request(new_id)) == (True, True)
    status = await record.statuses.read(new_id)
    assert status["cancel_requested"] is True
    assert status["request_digest"] == request(new_id).digest


async def test_nobody_runs_what_has_neither_lease_nor_request(record: Any, new_id: str) -> None:
    """One that is run, or that waits in either lane, is no orphan."""
    from blocks.documents import open_leases
    from tasks.deliberations.submit import enqueue
    from tasks.operate.orphans import is_orphan

    await record.statuses.create(new_id, {"id": new_id, "status": "IN_PROGRESS"})
    assert await is_orphan(record, new_id)
    async with (await open_leases()).hold(new_id):
        assert not await is_orphan(record, new_id)
    assert await is_orphan(record, new_id)
    await enqueue(record, request(f"{new_id}-b", lane="batch"))
    assert not await is_orphan(record, f"{new_id}-b")


async def test_one_without_a_plan_is_ended_with_what_was_asked(record: Any, new_id: str) -> None:
    """As after its deadline: nobody answered, so it timed out; each member has its final answer, and none a text."""
    from blocks.documents import open_leases
    from tasks.collect.end import end

    async with (await open_leases()).hold(new_id) as lease:
        await end(record, new_id, lease, {"task": TASK})
        await end(record, new_id, lease, {"task": TASK})
    assert await finished(record, new_id) == ["TIMEOUT"]
    answers = [event.body async for event in record.stored(f"answers.{new_id}.>", direct=False)]
    assert [(body["status"], body["proposal"]) for body in answers] == [("timeout", None)] * 3


async def test_one_that_can_never_be_run_is_ended_with_the_reason(record: Any, new_id: str) -> None:
    """And the reason names the field."""
    from blocks.documents import open_leases
    from tasks.collect.end import end

    async with (await open_leases()).hold(new_id) as lease:
        await end(record, new_id, lease, {"task": TASK, "bogus": 1})
    assert await finished(record, new_id) == ["FAILED"]
    event = await record.last(f"deliberations.{new_id}.finished")
    assert "bogus: is no field of a request" in event.body["error"]


async def test_whoever_lost_the_lease_ends_nothing(record: Any, new_id: str) -> None:
    """A holder that woke up late is superseded before it writes."""
    from blocks.documents import open_leases
    from blocks.exceptions import Superseded
    from tasks.collect.end import end

    leases = await open_leases()
    late = await leases.take(new_id)
    await record.leases.bucket.put(new_id, b"another")
    late.renewed_at -= 3600
    with pytest.raises(Superseded):
        await end(record, new_id, late, {"task": TASK})
    assert await finished(record, new_id) == []
    await record.leases.bucket.delete(new_id)
