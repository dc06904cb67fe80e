"""The record's rules: the first final event stands, order, following, statuses, and what outlasts an absent server.

Each runs on the fake and on a real NATS, so that the fake is what the tests of everything above may stand on.
"""

from __future__ import annotations

import asyncio
from typing import Any

import nats
import pytest
from nats.js.errors import APIError

from tests.fakes.memory_nats import WRONG_LAST_SEQUENCE

LARGE = "x" * 2_500_000
"""Above the server's max_payload of 1 MiB, in more than one part."""


def answer_subject(new_id: str, member: str = "m1") -> str:
    """Where a member's final answer stands."""
    return f"answers.{new_id}.task.propose-0.{member}"


async def test_the_first_final_event_stands(record: Any, new_id: str) -> None:
    """A second writer is refused and gets the first one's event; the same writer again is told that it stands."""
    subject = answer_subject(new_id)
    first = await record.publish_final(subject, "e", "answer", {"by": 1, "score": 0.1})
    second = await record.publish_final(subject, "e", "answer", {"by": 2})
    again = await record.publish_final(subject, "e", "answer", {"by": 1, "score": 0.1})

    assert first is None
    assert (second.subject, second.body) == (subject, {"by": 1, "score": 0.1})
    assert again is None
    assert await record.next(subject, second.sequence) is None


async def test_of_writers_at_once_exactly_one_stands(record: Any, new_id: str) -> None:
    """All others get the event of the one who came first."""
    subject = answer_subject(new_id)
    writes = (record.publish_final(subject, "e", "answer", {"by": number}) for number in range(20))
    told = await asyncio.gather(*writes)

    standing = await record.last(subject)
    assert [number for number, event in enumerate(told) if event is None] == [standing.body["by"]]
    assert {event.body["by"] for event in told if event is not None} == {standing.body["by"]}


async def test_a_failed_attempt_does_not_shadow_a_later_success(record: Any, new_id: str) -> None:
    """Attempts have a subject of their own, with as many events as there were."""
    attempts = answer_subject(new_id).replace("answers.", "attempts.", 1)
    for number in (1, 2):
        await record.publish(attempts, "e", "attempt", {"attempt": number})
    assert await record.publish_final(answer_subject(new_id), "e", "answer", {"status": "ok"}) is None

    assert (await record.last(answer_subject(new_id))).body == {"status": "ok"}
    first = await record.next(attempts, 0)
    assert [first.body, (await record.next(attempts, first.sequence)).body] == [{"attempt": 1}, {"attempt": 2}]


async def test_a_large_body_is_fenced_like_any_other(record: Any, new_id: str) -> None:
    """The second writer gets the first one's, whole; the same one again is told that it stands."""
    subject, body = answer_subject(new_id), {"by": 1, "content": LARGE}
    told = [await record.publish_final(subject, "e", "answer", {**body, "by": by}) for by in (1, 2, 1)]

    assert [event and event.body for event in told] == [None, body, None]


async def test_a_large_body_can_be_written_again_while_it_is_read(record: Any, new_id: str) -> None:
    """A resumed run repeats its writes under the eyes of those who follow."""
    subject, body = answer_subject(new_id), {"by": 1, "content": LARGE}
    await record.publish_final(subject, "e", "answer", body)
    async with asyncio.timeout(60):
        reads = [record.last(subject) for _ in range(4)]
        writes = [record.publish_final(subject, "e", "answer", body) for _ in range(4)]
        done = await asyncio.gather(*reads, *writes)

    assert [event.body["content"] == LARGE for event in done[:4]] == [True] * 4
    assert done[4:] == [None] * 4


@pytest.mark.parametrize(
    "subject",
    [
        "answers.a b.task.propose-0.m1",
        "answers.d.*.propose-0.m1",
        "answers.d.>",
        "answers.d..m1",
        "answers",
        "answers.é",
    ],
)
async def test_a_wrong_token_is_refused_before_it_is_sent(record: Any, subject: str) -> None:
    """A wildcard would be stored and a blank would break the protocol."""
    with pytest.raises(ValueError, match="is no subject of an event: each token is 1 to 64 of"):
        await record.publish_final(subject, "e", "answer", {})
    with pytest.raises(ValueError, match="is no subject of an event"):
        await record.publish(subject, "e", "answer", {})


async def test_a_subject_of_no_stream_is_refused_by_name(record: Any) -> None:
    """Otherwise it would wait for a stream until its patience ends."""
    with pytest.raises(ValueError, match=r"'elsewhere.d' belongs to no stream; subjects begin with requests, answers"):
        await record.publish("elsewhere.d", "e", "x", {})
    with pytest.raises(ValueError, match="belongs to no stream"):
        await record.last("elsewhere.d")


async def test_following_gives_stored_events_and_then_live_ones(record: Any, new_id: str) -> None:
    """In order, and from where the follower left off."""
    subjects = [answer_subject(new_id, f"m{number}") for number in range(6)]
    for subject in subjects[:3]:
        await record.publish_final(subject, "e", "answer", {})

    async def follow(after: int) -> list[Any]:
        found = []
        async for event in record.follow(f"answers.{new_id}.*.propose-0.*", after):
            found.append(event)
            if event.subject == subjects[-1]:
                return found
        raise AssertionError("following ended")

    following = asyncio.create_task(follow(0))
    await asyncio.sleep(0.2)
    for subject in subjects[3:]:
        await record.publish_final(subject, "e", "answer", {})
    async with asyncio.timeout(30):
        found = await following
        rest = await follow(found[1].sequence)

    assert [event.subject for event in found] == subjects
    assert [event.subject for event in rest] == subjects[2:]
    assert [event.sequence for event in found] == sorted(event.sequence for event in found)


async def numbers(record: Any, pattern: str, last: int) -> list[int]:
    """The field `n` of every event, up to the last one."""
    found = []
    async for event in record.follow(pattern):
        found.append(event.body["n"])
        if found[-1] == last:
            return found
    raise AssertionError("following ended")


async def test_merging_loses_no_other_writers_field(record: Any, open_record: Any, new_id: str) -> None:
    """Two connections with twenty writers at once; the first one with a status makes the key, whoever it is."""
    other = await open_record()
    assert await record.statuses.merge(new_id, {"f0": 0}) is False
    assert await record.statuses.read(new_id) is None
    await asyncio.gather(*(one.statuses.merge(new_id, {"status": "PENDING"}) for one in (record, other)))
    writers = ((record, other)[number % 2].statuses.merge(new_id, {f"f{number}": number}) for number in range(20))
    assert all(await asyncio.gather(*writers))

    assert await record.statuses.read(new_id) == {"status": "PENDING", **{f"f{number}": number for number in range(20)}}


async def test_a_status_is_created_once(record: Any, new_id: str) -> None:
    """The second one is told so, also where it says the same."""
    created = [await record.statuses.create(new_id, {"status": "PENDING"}) for _ in range(2)]

    assert created == [True, False]
    assert await record.statuses.read(new_id) == {"status": "PENDING"}
    assert await record.statuses.read(f"{new_id}.task") is None


async def test_a_status_that_was_created_just_before_the_server_died_is_ones_own(
    record: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the acknowledgement was lost, so the repeat says created."""
    create, lost = record.statuses._keys.create, []

    async def create_and_lose(key: str, value: bytes) -> int:
        revision = await create(key, value)
        lost.append(revision)
        raise nats.errors.TimeoutError

    async def create_again(key: str, value: bytes) -> int:
        return await (create if lost else create_and_lose)(key, value)

    monkeypatch.setattr(record.statuses._keys, "create", create_again)

    assert await record.statuses.create(new_id, {"holder": "me"}) is True
    assert len(lost) == 1


async def test_changes_of_a_status_are_followed(record: Any, new_id: str) -> None:
    """From the present value on."""
    await record.statuses.merge(new_id, {"status": "PENDING"})
    following = record.follow(f"$KV.conclave-deliberations.{new_id}")
    found = [(await anext(following)).body]
    await record.statuses.merge(new_id, {"cancel_requested": True})
    async with asyncio.timeout(30):
        found.append((await anext(following)).body)
    await following.aclose()

    assert found == [{"status": "PENDING"}, {"status": "PENDING", "cancel_requested": True}]


async def test_a_follower_of_a_status_outlasts_silence(
    record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str
) -> None:
    """It asks the bucket again and again whether it missed anything, and hears the change that comes at last."""
    import blocks.record.events

    monkeypatch.setattr(blocks.record.events, "POLL_S", 0.1)
    asked: list[int] = []
    ask = record.next

    async def next_of(pattern: str, after: int, **how: Any) -> Any:
        asked.append(after)
        return await ask(pattern, after, **how)

    monkeypatch.setattr(record, "next", next_of)
    await record.statuses.merge(new_id, {"status": "IN_PROGRESS"})
    following = record.follow(f"$KV.conclave-deliberations.{new_id}")
    await anext(following)
    change = asyncio.ensure_future(anext(following))
    async with asyncio.timeout(30):
        while len(asked) < 3:
            await asyncio.sleep(0.05)
        await record.statuses.merge(new_id, {"cancel_requested": True})
        assert (await change).body["cancel_requested"] is True
    await following.aclose()


async def test_a_wrong_key_is_an_error_of_the_record(record: Any) -> None:
    """Callers need to know one family of errors."""
    from blocks.exceptions import RecordError

    with pytest.raises(RecordError, match="JetStream refused"):
        await record.statuses.read("a b")


async def test_following_survives_the_death_of_the_server(broker: Any, open_record: Any, new_id: str) -> None:
    """While two writers keep writing, the server is killed twice: nothing is lost and nothing comes twice."""
    count, written = 60, 0
    attempts = answer_subject(new_id).replace("answers.", "attempts.", 1)
    record = await open_record(connect_timeout_s=1)

    async def write() -> None:
        nonlocal written
        for number in range(count):
            subject = answer_subject(new_id, f"m{number}")
            assert await record.publish_final(subject, "e", "answer", {"n": number}) is None
            await record.publish(attempts, "e", "attempt", {"n": number})
            written = number + 1
            await asyncio.sleep(0.01)

    async with asyncio.timeout(90):
        patterns = (f"answers.{new_id}.>", attempts)
        following = [asyncio.create_task(numbers(record, pattern, count - 1)) for pattern in patterns]
        writing = asyncio.create_task(write())
        for point in (count // 4, count // 2):
            while written < point:
                await asyncio.sleep(0.01)
            async with broker.absent():
                await asyncio.sleep(0.2)
        await writing
        followed = await asyncio.gather(*following)

    assert followed == [list(range(count))] * 2


async def test_a_follower_that_sleeps_through_a_death_misses_nothing(broker: Any, record: Any, new_id: str) -> None:
    """The server forgets its consumers; what comes later is still found."""
    subject = f"deliberations.{new_id}.progress"
    await record.publish(subject, "e", "progress", {"n": 1})
    following = record.follow(subject)
    found = [(await anext(following)).body["n"]]
    waiting = asyncio.create_task(anext(following))
    async with broker.absent():
        pass
    await asyncio.sleep(0.5)
    await record.publish(subject, "e", "progress", {"n": 2})
    async with asyncio.timeout(30):
        found.append((await waiting).body["n"])
    await following.aclose()

    assert found == [1, 2]


async def test_a_final_event_outlasts_an_absent_server(broker: Any, record: Any, new_id: str) -> None:
    """The write waits for the server to be back."""
    async with broker.absent():
        writing = asyncio.create_task(record.publish_final(answer_subject(new_id), "e", "answer", {"by": 1}))
        await asyncio.sleep(0.3)
        assert not writing.done()
    async with asyncio.timeout(30):
        told = await writing
        standing = await record.last(answer_subject(new_id))

    assert told is None
    assert standing.body == {"by": 1}


async def test_patience_with_an_absent_server_ends(broker: Any, open_record: Any, new_id: str) -> None:
    """Every call ends with the same error, which says how long it waited."""
    from blocks.exceptions import RecordUnavailable

    record = await open_record(patience_s=0.3, connect_timeout_s=0.5)
    async with broker.absent():
        calls = [
            record.publish_final(answer_subject(new_id), "e", "answer", {}),
            record.publish_final(answer_subject(new_id), "e", "answer", {"content": LARGE}),
            record.last(answer_subject(new_id)),
            record.statuses.read(new_id),
            record.statuses.merge(new_id, {"a": 1}),
            anext(record.follow(answer_subject(new_id))),
        ]
        async with asyncio.timeout(60):
            ended = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(error) for error in ended} == {RecordUnavailable}
    assert all("did not answer for 0.3 s: nats: " in str(error) for error in ended), ended


async def test_what_stands_is_read_in_its_order(record: Any, new_id: str) -> None:
    """By a pattern, from the first one on; others' events are passed over."""
    for number in range(5):
        await record.publish_final(answer_subject(new_id, f"m{number}"), "e", "answer", {"n": number})
        await record.publish_final(answer_subject(f"{new_id}-b", f"m{number}"), "e", "answer", {"n": -1})
    found = [event async for event in record.stored(f"answers.{new_id}.>", direct=False)]

    assert [event.body["n"] for event in found] == [0, 1, 2, 3, 4]
    assert [event.sequence for event in found] == sorted(event.sequence for event in found)
    assert await record.exists(answer_subject(new_id, "m4"))
    assert not await record.exists(answer_subject(new_id, "m5"))
    assert (await record.last(f"answers.{new_id}.task.propose-0.m4")).sequence == found[-1].sequence


async def test_an_id_is_stored_once(record: Any, new_id: str) -> None:
    """A repeat is acknowledged as one, unless it expects another last sequence than there is: that counts first."""
    subject, headers = answer_subject(new_id), {"Nats-Msg-Id": new_id}
    expecting = {**headers, "Nats-Expected-Last-Subject-Sequence": "0"}
    first = await record.jetstream.publish(subject, b"{}", headers=expecting)
    again = await record.jetstream.publish(subject, b"{}", headers=headers)
    assert (again.seq, bool(first.duplicate), bool(again.duplicate)) == (first.seq, False, True)
    with pytest.raises(APIError) as refused:
        await record.jetstream.publish(subject, b"{}", headers=expecting)
    assert refused.value.err_code == WRONG_LAST_SEQUENCE
    assert await record.next(subject, first.seq) is None


async def test_a_status_goes_for_good_unless_it_was_written_again(record: Any, new_id: str) -> None:
    """Purged up to what was seen: a later value stays."""
    await record.statuses.create(new_id, {"status": "PENDING"})
    seen = await record.next(f"$KV.conclave-deliberations.{new_id}", 0)
    await record.statuses.merge(new_id, {"status": "FAILED"})
    await record.statuses.purge(seen)
    assert await record.statuses.read(new_id) == {"status": "FAILED"}
    await record.statuses.purge(await record.next(f"$KV.conclave-deliberations.{new_id}", 0))

    assert await record.statuses.read(new_id) is None
    assert await record.next(f"$KV.conclave-deliberations.{new_id}", 0) is None


async def test_notes_of_the_installation_are_kept(open_record: Any) -> None:
    """Its id is made once for all connections; a note's time is the server's."""
    from blocks.record.installation import note, note_pool, pools, read_note

    first, second = await open_record(), await open_record()
    assert first.installation == second.installation
    await note(first, "clock", "a")
    later = await note(second, "clock", "b")
    assert await read_note(first, "clock") == "b"
    assert await note(first, "clock", "c") >= later
    await note_pool(first, "conclave")
    assert await pools(second) == {"conclave"}


async def test_what_servers_take_otherwise_is_noted_for_all(open_record: Any) -> None:
    """By server and model; two that write at once lose nothing, and that a server takes all only ends another note."""
    from blocks.dialect import Dialect
    from blocks.record.dialects import note_dialect, noted_dialects

    first, second = await open_record(), await open_record()
    assert await noted_dialects(first) == {}
    no_seed, otherwise = Dialect(seed=None), Dialect(max_tokens="max_completion_tokens", response_format=None)
    await note_dialect(first, "http://a", "usual", Dialect())
    assert await noted_dialects(first) == {}
    await asyncio.gather(
        note_dialect(first, "http://a", "one", no_seed), note_dialect(second, "http://a", "two", otherwise)
    )
    await note_dialect(second, "http://b/v2", "one", otherwise)
    expected = {"http://a": {"one": no_seed, "two": otherwise}, "http://b/v2": {"one": otherwise}}
    assert await noted_dialects(first) == expected
    await note_dialect(first, "http://a", "one", Dialect())
    assert (await noted_dialects(second))["http://a"] == {"one": Dialect(), "two": otherwise}


async def test_a_note_that_is_old_or_of_another_shape_is_passed_over(open_record: Any) -> None:
    """A later version may write what it likes beside it, or somebody something else."""
    import json
    from datetime import UTC, datetime, timedelta

    from blocks.dialect import Dialect
    from blocks.record.dialects import KEY, note_dialect, noted_dialects
    from blocks.record.installation import note

    record = await open_record()
    now = datetime.now(UTC)
    entries = {
        "new": {"differences": {"seed": None, "voice": "loud"}, "at": now.isoformat(), "more": 1},
        "old": {"differences": {"seed": None}, "at": (now - timedelta(days=2)).isoformat()},
        **{f"odd {number}": odd for number, odd in enumerate((None, [], {}, {"at": 1}, {"at": "now"}))},
    }
    for text in ("", "no JSON", "[1]", json.dumps({"http://a": 1}), "[" * 100_000):
        await note(record, KEY, text)
        assert await noted_dialects(record) == {}
    await note(record, KEY, json.dumps({"http://a": entries, "http://c": []}))
    assert await noted_dialects(record) == {"http://a": {"new": Dialect(seed=None)}}
    await note_dialect(record, "http://b", "m", Dialect(seed=None))
    assert set(await noted_dialects(record)) == {"http://a", "http://b"}


async def test_a_note_that_cannot_be_read_or_written_is_done_without(open_record: Any, broker: Any) -> None:
    """It is a hint."""
    from blocks.dialect import Dialect
    from blocks.record.dialects import note_dialect, noted_dialects

    record = await open_record()
    async with broker.absent():
        assert await noted_dialects(record) == {}
        await note_dialect(record, "http://a", "m", Dialect(seed=None))


async def test_an_event_that_is_to_stand_alone_is_written_once(record: Any, new_id: str) -> None:
    """Until what stands on its subject has gone; another subject is none of its business."""
    for subject in (f"requests.{new_id}", f"requests.{new_id}-b"):
        for number in range(3):
            await record.publish(subject, "x", "request", {"n": number}, alone=True)
    assert [event.body["n"] async for event in record.stored("requests.*", direct=False)] == [0, 0]
    await record.jetstream.purge_stream("CONCLAVE_REQUESTS", subject=f"requests.{new_id}")
    await record.publish(f"requests.{new_id}", "x", "request", {"n": 3}, alone=True)
    assert [event.body["n"] async for event in record.stored("requests.*", direct=False)] == [0, 3]


async def test_the_newest_of_a_pattern_is_none_of_another(record: Any, new_id: str) -> None:
    """Though both stand in one stream; what is delivered has the time of its storing, as what is read."""
    assert await record.newest("deliberations.>") == 0
    await record.publish_final(f"deliberations.{new_id}.plan", "a", "plan", {"n": 1})
    await record.publish_final(f"decisions.{new_id}.task", "b", "decision", {"n": 2})
    last = await record.last_sequence("deliberations.>")
    assert await record.newest("deliberations.>") == last - 1
    assert await record.newest("decisions.*.*") == last
    await record.statuses.merge(new_id, {"status": "PENDING"})
    assert await record.newest("$KV.conclave-deliberations.*") > 0
    read = await record.last(f"deliberations.{new_id}.plan")
    following = record.follow(f"deliberations.{new_id}.>")
    delivered = await anext(following)
    await following.aclose()
    assert abs((read.time - delivered.time).total_seconds()) < 0.001


async def test_the_keys_of_a_bucket_are_listed_without_those_that_were_deleted(record: Any, new_id: str) -> None:
    """By how they begin; one that was written again is there once."""
    begin = f"{new_id}."
    assert await record.councils.names(begin) == []
    for name in ("c", "a", "b"):
        await record.councils.put(f"{begin}{name}", {"first": True})
    await record.councils.put(f"{begin}a", {"first": False})
    await record.councils.put(f"other{begin}a", {})
    await record.councils.delete(f"{begin}b")
    assert await record.councils.names(begin) == [f"{begin}a", f"{begin}c"]
    await record.councils.put(f"{begin}b", {})
    assert await record.councils.names(begin) == [f"{begin}a", f"{begin}b", f"{begin}c"]
    assert f"other{begin}a" in await record.councils.names()
