"""The decided rows of a batch as they are told: from a place on, each once, to the end of the batch and no further."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.tasks.batch.world import DEADLINE_S, Batches


def followed(batches: Batches, *meanwhile: Any, after: str | None = None) -> list[tuple[str, str, str]]:
    """Follow the rows of `b` while something else goes on: id, status and place of each."""
    from tasks.batch.decided import BEGINNING, Place, decided_rows

    async def work() -> list[tuple[str, str, str]]:
        at_work = [asyncio.create_task(one) for one in meanwhile]
        place = BEGINNING if after is None else Place.read(after)
        rows = decided_rows(batches.record, "b", place)
        found = [(one.row.id, one.event.body["status"], str(one.after)) async for one in rows]
        await asyncio.gather(*at_work)
        return found

    return batches.run(work())


def ids(rows: list[tuple[str, str, str]]) -> list[str]:
    """Which rows, in the order of their numbers."""
    return sorted((one for one, _, _ in rows), key=lambda one: int(one[1:]))


def test_rows_come_as_they_are_decided(batches: Batches) -> None:
    """Also to who has listened before the first agenda began."""
    batches.put("b", 3, 4)
    found = followed(batches, batches.decided("b", window=3))
    assert ids(found) == [f"r{number}" for number in range(1, 8)]
    assert {status for _, status, _ in found} == {"COMPLETED"}
    assert len({place for _, _, place in found}) == 7


def test_a_row_says_who_decided_it(batches: Batches) -> None:
    from tasks.batch.decided import decided_rows

    batches.put("b", 1)
    batches.run(batches.decided("b"))

    async def first() -> Any:
        (found,) = [one async for one in decided_rows(batches.record, "b")]
        return found

    one = batches.run(first())
    assert (one.deliberation_id, one.council_digest) == ("b-0001", batches.council.digest)
    assert (one.row.key, one.row.line, one.row.item.id) == (f"{1:032x}", 2, "i1")
    assert one.event.body["decision"] == "What to do about task-1."


@pytest.mark.parametrize("count", range(8))
def test_who_comes_again_gets_what_is_behind_its_place(batches: Batches, count: int) -> None:
    """Wherever that is, also at the end of an agenda, and of the batch."""
    batches.put("b", 3, 4)
    batches.run(batches.decided("b"))
    found = followed(batches)
    after = found[count - 1][2] if count else None
    assert followed(batches, after=after) == found[count:]


def test_a_row_that_was_asked_again_comes_again(batches: Batches) -> None:
    batches.server.kinds["task-2"] = ("away", 1)
    batches.put("b", 3)
    found = followed(batches, batches.decided("b"))
    assert [status for one, status, _ in found if one == "r2"] == ["FAILED", "COMPLETED"]
    assert found[-1][2].startswith("2-")
    assert followed(batches, after=found[-1][2]) == []


def test_a_batch_that_ended_without_its_last_agendas_ends_here(batches: Batches) -> None:
    """As after a cancel: nobody waits for rows that will never be decided."""
    from tasks.batch.store import ask_batch_to_stop

    batches.put("b", *[2] * 6)

    async def stop() -> None:
        await asyncio.sleep(1.5)
        await ask_batch_to_stop(batches.record, "b")

    found = followed(batches, batches.decided("b", window=2), stop())
    assert 2 <= len(found) < 12
    counts = batches.body("b")["counts"]
    assert len(found) == counts["decided"] + counts.get("CANCELLED", 0)


def test_an_agenda_behind_one_that_was_left_is_told(batches: Batches) -> None:
    """Rows that are asked again begin as their time comes, and not by their number."""
    from tasks.batch.store import note, put_agenda, rows_of

    batches.put("b", 2)
    rows = batches.run(rows_of(batches.record, "b", 1))
    batches.run(put_agenda(batches.record, "b", 2, rows[:1], again_of=1))
    batches.run(put_agenda(batches.record, "b", 3, rows[1:], again_of=1))
    batches.run(batches.decided("b"))
    for stream in batches.nats.streams.values():
        for pattern in ("deliberations.b-0002.>", "decisions.b-0002.>"):  # as if that one had never begun
            stream.purge(pattern)
    batches.run(note(batches.record, "b", {"agendas": 3}))
    assert [(one, place[:2]) for one, _, place in followed(batches)][2:] == [("r2", "3-")]


def test_one_whose_worker_was_given_up_ends_here(batches: Batches) -> None:
    """In the middle of an agenda, within a few seconds."""
    from blocks.background import cancel_and_wait
    from tasks.batch.tries import fail_batch

    batches.server.kinds["task-2"] = ("silent", 9)
    batches.put("b", 2, 2)

    async def given_up() -> None:
        running = asyncio.create_task(batches.decided("b"))
        await asyncio.sleep(3)
        await cancel_and_wait([running])
        await fail_batch(batches.record, None, "b", "given up after 3 deliveries")

    before = batches.loop.time()
    found = followed(batches, given_up())
    assert ids(found) == ["r1", "r3", "r4"]
    assert batches.loop.time() - before < DEADLINE_S
    assert batches.body("b")["error"] == "given up after 3 deliveries"


def test_of_a_batch_that_is_not_there_nothing_comes(batches: Batches) -> None:
    assert followed(batches) == []
    batches.put("b", 1)
    assert followed(batches, batches.decided("b"), after="2-1") == []


def test_who_takes_no_more_rows_leaves_nothing_behind(batches: Batches) -> None:
    from contextlib import aclosing

    from tasks.batch.decided import decided_rows

    batches.put("b", 70)
    batches.run(batches.decided("b"))

    async def one_row() -> int:
        async with aclosing(decided_rows(batches.record, "b")) as rows:
            await anext(rows)
            await asyncio.sleep(1)
            return len(asyncio.all_tasks())

    before = batches.run(_tasks())
    assert batches.run(one_row()) > before
    assert batches.run(_tasks()) == before


async def _tasks() -> int:
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", " 1-2", "1-2\n", "1-" + "9" * 19])
def test_what_is_no_place_is_refused(text: str) -> None:
    from tasks.batch.decided import Place
    from tasks.council.exceptions import InvalidRequest

    with pytest.raises(InvalidRequest, match=r"^after: is no place"):
        Place.read(text)
    assert Place.read(str(Place(12, 345))) == Place(12, 345)


def test_where_the_record_is_away_it_is_told(batches: Batches) -> None:
    from blocks.exceptions import RecordError

    batches.server.kinds["task-1"] = ("silent", 9)
    batches.put("b", 2)

    async def away() -> None:
        await asyncio.sleep(3)
        batches.nats.away = True

    with pytest.raises(RecordError):
        followed(batches, away())
    batches.nats.away = False
