"""Server-sent events: each once, however often a client is dropped; whoever leaves is forgotten."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from deployments.gateway import authentication
from deployments.gateway.handlers import events
from tasks.access import tokens
from tests.deployments.gateway.parts import KINDS, MEMBERS, PATH, Gateway, Run, heard_whole

pytestmark = pytest.mark.servers

STREAMING = r"handlers/events\.py|aiohttp_sse|deliberations/feed\.py"
"""Where the code stands that a stream of events runs."""


async def accepted(gateway: Gateway, token: str = "", owner: str = "tester", **fields: Any) -> Run:
    """A deliberation that was asked for, and is about to be run."""
    one = (await gateway.post(token=token, **fields)).body["id"]
    return Run(gateway.record, one, owner=owner, **fields)


async def listened(gateway: Gateway, count: int) -> None:
    """Wait until so many listen."""
    async with asyncio.timeout(20):
        while gateway.service.counts.listeners != count:
            await asyncio.sleep(0.005)


async def test_a_listener_hears_everything_in_its_order_and_then_the_end(either: Gateway) -> None:
    run = await accepted(either)
    async with either.events(f"{PATH}/{run.id}/events") as stream:
        assert stream.status == 200
        assert stream.answer.content_type == "text/event-stream"
        writing = asyncio.create_task(run.whole())
        found = await stream.all()
        await writing
    assert heard_whole(found)
    assert found[0].data["request_digest"] == run.plan.request_digest
    assert "prompts" not in found[0].data
    assert [event.data["agent_id"] for event in found if event.kind == "answer"] == list(MEMBERS)
    assert found[-1].data["status"] == "COMPLETED"


@pytest.mark.parametrize("how", ["header", "query"])
async def test_from_every_position_the_rest_is_heard_once(either: Gateway, how: str) -> None:
    run = await accepted(either)
    await run.whole()
    path = f"{PATH}/{run.id}/events"
    async with either.events(path) as stream:
        found = await stream.all()
    assert [event.kind for event in found] == KINDS
    for number, event in enumerate(found[:-1], 1):
        query, header = (f"?starting_after={event.id}", None) if how == "query" else ("", event.id)
        async with either.events(path + query, after=header) as stream:
            assert [one.id for one in await stream.all()] == [one.id for one in found[number:]]
    told = await either.get(path, headers={"Last-Event-ID": found[-1].id})
    assert (told.status, told.text) == (204, "")
    told = await either.get(f"{path}?starting_after=latest")
    assert told.status == 204


async def test_a_client_that_is_dropped_after_each_event_misses_none(gateway: Gateway) -> None:
    run = await accepted(gateway)
    found: list[Any] = []
    writing = asyncio.create_task(run.whole())
    while not found or found[-1].kind != "finished":
        after = found[-1].id if found else None
        async with gateway.events(f"{PATH}/{run.id}/events", after=after) as stream:
            found.append(await stream.next())
    await writing
    assert heard_whole(found)


async def test_the_header_comes_before_the_query(gateway: Gateway) -> None:
    run = await accepted(gateway)
    await run.whole()
    path = f"{PATH}/{run.id}/events"
    async with gateway.events(path) as stream:
        found = await stream.all()
    async with gateway.events(f"{path}?starting_after={found[0].id}", after=found[-2].id) as stream:
        assert [one.kind for one in await stream.all()] == ["finished"]


@pytest.mark.parametrize("text", ["x", "MS4y", "é", "%00", "9" * 400])
async def test_what_is_no_cursor_is_refused_by_its_name(gateway: Gateway, text: str) -> None:
    run = await accepted(gateway)
    for path in (f"{PATH}/{run.id}/events", "/v1/events"):
        told = await gateway.get(f"{path}?starting_after={text}")
        assert (told.status, told.problem["field"]) == (422, "starting_after")
        told = await gateway.get(path, headers={"Last-Event-ID": "nonsense"})
        assert (told.status, told.problem["field"]) == (422, "Last-Event-ID")


async def test_a_hundred_listeners_hear_every_event_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what all of them ask for is read once, or little more."""
    run = await accepted(gateway)
    reads, read = 0, gateway.record.next

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*arguments, **options)

    async def listen() -> list[Any]:
        async with gateway.events(f"{PATH}/{run.id}/events") as stream:
            return await stream.all()

    monkeypatch.setattr(gateway.record, "next", counted)
    listening = [asyncio.create_task(listen()) for _ in range(100)]
    await listened(gateway, 100)
    await run.whole()
    found = await asyncio.gather(*listening)
    assert all(map(heard_whole, found))
    assert reads < 1_000
    await listened(gateway, 0)


async def test_who_leaves_is_forgotten(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next heartbeat at the latest; no work is left behind."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    run = await accepted(gateway)
    before = asyncio.all_tasks()
    async with gateway.events(f"{PATH}/{run.id}/events") as one, gateway.events("/v1/events") as other:
        await listened(gateway, 2)
        assert gateway.service.feed._arrivals._waiting
        assert (await gateway.get("/metrics")).text.count("conclave_listeners 2") == 1
        one.answer.close()
        other.answer.close()
    await listened(gateway, 0)
    assert gateway.service.feed._arrivals._waiting == {}
    async with asyncio.timeout(10):
        while left := {task for task in asyncio.all_tasks() - before if re.search(STREAMING, repr(task))}:
            await asyncio.wait(left, timeout=0.05)


async def test_a_stream_ends_once_its_token_counts_no_more(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next heartbeat; another listener hears on."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(authentication, "KEPT_S", 0.0)
    text = await gateway.new_token()
    async with gateway.events("/v1/events", text) as revoked, gateway.events("/v1/events"):
        await listened(gateway, 2)
        await tokens.revoke(gateway.record, (tokens.parts_of(text) or ("",))[0])
        await listened(gateway, 1)
        assert await revoked.all() == []


async def test_where_the_record_is_away_the_stream_ends_and_goes_on_later(serve: Any, memory: Any) -> None:
    """Nothing but events stands in it, and the listener comes back with its last cursor."""
    async with serve(patience_s=0.05) as gateway:
        run = await accepted(gateway)
        await run.begin()
        async with gateway.events(f"{PATH}/{run.id}/events") as stream:
            first = await stream.next()
            assert (await stream.next()).kind == "started"
            async with memory.absent():
                gateway.service.feed._arrivals._wake(run.id)
                assert await stream.answer.content.read() == b""
        async with gateway.events(f"{PATH}/{run.id}/events", after=first.id) as stream:
            assert (await stream.next()).kind == "started"
            await run.answer("m1")
            assert (await stream.next()).kind == "answer"


async def test_all_deliberations_are_heard_by_council_status_and_metadata(gateway: Gateway) -> None:
    runs = [
        await accepted(gateway, metadata={"team": "a", "n": 1, "ok": True, "none": None, "all": ["é", 2]}),
        await accepted(gateway, metadata={"team": "b"}),
        await accepted(gateway, council="qa", metadata={"team": "a"}),
    ]
    for run in runs:
        await run.whole()
    first, second, third = (run.id for run in runs)
    for query, wanted in {
        "": (first, second, third),
        "metadata.team=a": (first, third),
        "metadata.team=a&council=dev": (first,),
        "metadata.n=1": (first,),
        "metadata.ok=true": (first,),
        "metadata.none=null": (first,),
        'metadata.all=["é",2]': (first,),
        "council=qa": (third,),
    }.items():
        async with gateway.events(f"/v1/events?{query}") as stream:
            found = [await stream.next() for _ in range(len(wanted) * len(KINDS))]
        assert [event.kind for event in found] == KINDS * len(wanted), query
        ends = [event.data["task_id"] for event in found if event.kind == "finished"]
        assert ends == list(wanted)
    async with gateway.events("/v1/events?status=COMPLETED&council=qa") as stream:
        assert [(await stream.next()).kind for _ in range(2)] == ["decision", "finished"]


async def test_a_live_stream_of_many_knows_what_no_key_tells(gateway: Gateway) -> None:
    """One that no queue took has its plan before its key, and a long request is in no key."""
    query = "council=qa&metadata.team=a"
    long = await accepted(gateway, council="qa", task="x " * 40_000, metadata={"team": "a"})
    await gateway.service.projection.catch_up(5)
    direct = Run(gateway.record, "direct", council="qa", metadata={"team": "a"})
    async with gateway.events(f"/v1/events?{query}") as stream:
        await listened(gateway, 1)
        for run in (direct, long):
            await run.whole()
            assert [(await stream.next()).kind for _ in KINDS] == KINDS


async def test_of_others_only_what_the_token_may_see_is_heard(gateway: Gateway) -> None:
    a, b, reader = (
        await gateway.new_token(owner="a"),
        await gateway.new_token(owner="b"),
        await gateway.new_token("read"),
    )
    of_a, of_b = await accepted(gateway, a, "a"), await accepted(gateway, b, "b")
    await of_a.whole()
    await of_b.whole()
    for token, ids in ((a, [of_a.id]), (b, [of_b.id]), (reader, [of_a.id, of_b.id])):
        async with gateway.events("/v1/events?status=COMPLETED", token) as stream:
            ends = [await stream.next() for _ in range(2 * len(ids))]
            assert [event.data["task_id"] for event in ends if event.kind == "finished"] == ids


async def test_latest_begins_with_what_is_new(either: Gateway) -> None:
    old, new = await accepted(either), await accepted(either)
    await old.whole()
    async with either.events("/v1/events?starting_after=latest") as stream:
        await new.whole()
        found = [await stream.next() for _ in KINDS]
    assert heard_whole(found)
    assert found[-1].data["task_id"] == new.id


async def test_an_event_that_cannot_be_read_is_passed_over(gateway: Gateway) -> None:
    run = await accepted(gateway)
    await run.begin()
    await gateway.record.jetstream.publish(f"answers.{run.id}.task.propose.m1", b"[garbage")
    await run.answer("m2")
    await run.finish()
    async with gateway.events(f"{PATH}/{run.id}/events") as stream:
        found = await stream.all()
    assert [event.kind for event in found] == ["plan", "started", "answer", "finished"]
    assert json.dumps(found[2].data).count("m2")
