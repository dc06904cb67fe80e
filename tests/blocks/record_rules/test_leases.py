"""The rules of leases (one holder at a time, renewed beside a busy loop, lost to another) and of epochs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


async def test_a_lease_is_held_by_one_at_a_time(leases: Any, new_id: str) -> None:
    """Five want it: none is inside together with another, and all but the first waited, each with a higher epoch."""
    inside, waits, epochs = 0, [], []

    async def work() -> None:
        nonlocal inside
        async with leases.hold(new_id) as lease:
            waits.append(lease.waited)
            epochs.append(lease.epoch)
            inside += 1
            await asyncio.sleep(0.05)
            assert inside == 1
            inside -= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(work() for _ in range(5)))
    assert sorted(waits) == [False, True, True, True, True]
    assert epochs == sorted(set(epochs))


async def test_a_lease_outlasts_a_loop_that_hangs_and_no_holder_that_is_gone(
    broker: Any, leases: Any, record: Any, new_id: str
) -> None:
    """The loop stands still for longer than a lease lasts: it stays held. One that is not renewed is forgotten."""
    async with leases.hold(new_id):
        time.sleep(broker.lease_s * 1.3)  # the loop is to stand still
        assert await record.leases.held(new_id)
        assert await leases.take(new_id) is None
    assert await record.leases.create(new_id, b"killed") is not None
    async with asyncio.timeout(10 * broker.lease_s), leases.hold(new_id) as lease:
        assert lease.waited
    assert not await record.leases.held(new_id)


async def test_whoever_loses_its_lease_is_stopped(leases: Any, record: Any, new_id: str) -> None:
    """Another one has the key: the block ends with Superseded, and the other one's lease stays."""
    from blocks.exceptions import Superseded

    with pytest.raises(Superseded):
        async with asyncio.timeout(30), leases.hold(new_id) as lease:
            await record.leases.bucket.put(new_id, b"another")
            await asyncio.sleep(25)
    assert lease.lost
    with pytest.raises(Superseded):
        await leases.check(lease)
    assert (await record.leases.bucket.get(new_id)).value == b"another"


async def test_a_lease_that_the_server_forgot_is_made_again(leases: Any, record: Any, new_id: str) -> None:
    """Nobody took it meanwhile, so its holder goes on."""
    async with asyncio.timeout(30), leases.hold(new_id) as lease:
        await record.leases.bucket.delete(new_id)
        while not await record.leases.held(new_id):
            await asyncio.sleep(0.1)
        await leases.check(lease)


async def test_a_loop_that_hangs_for_good_loses_its_leases(broker: Any, record: Any, new_id: str) -> None:
    """A loop that has not turned for the time it is given is not renewed any more."""
    from blocks.jetstream import JetStream
    from blocks.record.leases import Leases

    leases = Leases(JetStream(servers=[broker.url]).record, stalled_s=0.1)
    await leases.open()
    try:
        assert await leases.take(new_id) is not None
        async with asyncio.timeout(30):  # on a machine that is busy with other tests a turn may take longer
            while leases.stalled:
                await asyncio.sleep(0.01)
        time.sleep(broker.lease_s * 1.5)  # the loop is to stand still
        assert leases.stalled
        assert not await record.leases.held(new_id)
    finally:
        await leases.close()


async def test_the_writes_of_an_earlier_epoch_are_refused(record: Any, new_id: str) -> None:
    """The first holder's decision after the second has begun: refused, with the flow run that is at work now."""
    from blocks.exceptions import Superseded

    first = await record.fence(new_id, 1, "run-1")
    subject = f"decisions.{new_id}.a"
    assert await record.publish_final(subject, "e", "decision", {"by": 1}, first) is None
    assert await record.publish_final(subject, "e", "decision", {"by": 1}, first) is None  # a repeat
    second = await record.fence(new_id, 2, "run-2")
    with pytest.raises(Superseded) as refused:
        await record.publish_final(f"decisions.{new_id}.b", "f", "decision", {"by": 1}, first)
    assert refused.value.run == "run-2"
    with pytest.raises(Superseded):
        await record.fence(new_id, 1, "run-1")
    standing = await record.publish_final(subject, "e", "decision", {"by": 2}, second)
    assert standing.body == {"by": 1}
    assert await record.publish_final(f"decisions.{new_id}.b", "f", "decision", {"by": 2}, second) is None
    a = await record.next(f"decisions.{new_id}.*", 0)
    b = await record.next(f"decisions.{new_id}.*", a.sequence)
    assert [(a.subject, a.body), (b.subject, b.body)] == [(subject, {"by": 1}), (f"decisions.{new_id}.b", {"by": 2})]
    assert await record.next(f"decisions.{new_id}.*", b.sequence) is None


async def test_epochs_go_on_where_the_bucket_of_the_leases_was_made_anew(leases: Any, record: Any, new_id: str) -> None:
    """Its revisions begin again at 1, below the epoch that stands: the holder begins a higher one all the same."""
    from blocks.exceptions import Superseded
    from tasks.deliberations.finish import begin_epoch

    restored = await record.fence(new_id, 10**9, "before")
    async with asyncio.timeout(30), leases.hold(new_id) as lease:
        assert lease.epoch < 10**9
        fence = await begin_epoch(record, new_id, lease, "run")
        assert fence.epoch == 10**9 + 1
        assert await begin_epoch(record, new_id, lease, "run") == fence  # again under one lease
        other = await begin_epoch(record, new_id, lease, "another run")
        assert other.epoch == fence.epoch + 1
        with pytest.raises(Superseded):
            await record.publish_final(f"decisions.{new_id}.a", "e", "decision", {}, restored)
        assert await record.publish_final(f"decisions.{new_id}.a", "e", "decision", {}, other) is None


async def test_who_has_lost_the_lease_begins_nothing(leases: Any, record: Any, new_id: str) -> None:
    """A holder that woke up late asks the server first, and is superseded; the present one is not."""
    from blocks.exceptions import Superseded
    from tasks.deliberations.finish import begin_epoch

    late = await leases.take(new_id)
    await record.leases.bucket.put(new_id, b"another")
    late.renewed_at -= 3600
    with pytest.raises(Superseded):
        await begin_epoch(record, new_id, late, "late")
    assert await record.last(f"deliberations.{new_id}.epoch") is None
    await record.leases.bucket.delete(new_id)
