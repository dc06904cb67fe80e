"""Batches through the gateway: rows first, then the batch; who may see and stop it; its rows as they are decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from blocks.record import subjects
from blocks.record.events import Record
from deployments.gateway.handlers import batches
from tasks.batch.asked import AgendaBody, agenda_id
from tasks.batch.store import note, rows_of
from tasks.council.models import Deliberation, DeliberationRequest
from tests.deployments.gateway.parts import Gateway, Run, Told, council
from tests.tasks.batch.output.finished import decided
from tests.tasks.batch.world import row

pytestmark = pytest.mark.servers
PATH = "/v1/batches"


def rows(*numbers: int) -> dict[str, Any]:
    """An agenda as it is sent."""
    return AgendaBody(rows=tuple(map(row, numbers))).model_dump(mode="json", exclude_defaults=True)


async def send(gateway: Gateway, one: str, number: int | str, body: Any, token: str | None = "") -> Told:
    """Send an agenda."""
    return await gateway.ask("PUT", f"{PATH}/{one}/agendas/{number}", token, json=body)


async def start(gateway: Gateway, one: str = "b", token: str | None = "", **asked: Any) -> Told:
    """Start a batch."""
    return await gateway.ask("PUT", f"{PATH}/{one}", token, json={"agendas": 1, **asked})


async def started(gateway: Gateway, *sizes: int, token: str | None = "", **asked: Any) -> None:
    """The batch `b` with agendas of so many rows."""
    begin = 0
    for number, size in enumerate(sizes, 1):
        told = await send(gateway, "b", number, rows(*range(begin + 1, begin + size + 1)), token)
        assert told.status == 204, told.text
        begin += size
    told = await start(gateway, token=token, agendas=len(sizes), **asked)
    assert told.status == 202, told.text


async def decide(record: Record, *items: str, number: int = 1, batch: str = "b") -> None:
    """Write decisions of an agenda onto the record, as a run does; its plan first."""
    one, agenda = agenda_id(batch, number), await rows_of(record, batch, number)
    request = DeliberationRequest.read({"items": [asked.item for asked in agenda], "metadata": {"batch": batch}})
    plan = Deliberation.plan(one, request, council())
    owner = (await record.batches.read(batch) or {})["owner"]
    body = {"plan": plan.model_dump(mode="json"), "request": request.model_dump(mode="json"), "owner": owner}
    await record.publish_final(subjects.plan(one), f"{one}:plan", "deliberation.plan", body)
    for item in items:
        told = decided(f"Of {item}", id=one, item=item).model_dump(mode="json")
        await record.publish_final(subjects.decision(one, item), f"{one}:{item}", "decision", told)


async def end(record: Record, status: str = "COMPLETED", batch: str = "b") -> None:
    """The batch has ended."""
    await note(record, batch, {"status": status})


@asynccontextmanager
async def listening(gateway: Gateway, query: str = "", token: str = "") -> AsyncIterator[Any]:
    """The rows of `b` as they come, a line after another."""
    headers = {"Authorization": f"Bearer {token or gateway.text}"}
    async with gateway.session.get(f"{gateway.url}{PATH}/b/results{query}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")

        async def line() -> Any:
            async with asyncio.timeout(20):
                text = await answer.content.readline()
            return json.loads(text) if text.strip() else text

        yield line


async def results(gateway: Gateway, query: str = "") -> list[Any]:
    """All rows of a batch that has ended, then what ends them."""
    told = await gateway.get(f"{PATH}/b/results{query}")
    assert told.status == 200, told.text
    return [json.loads(line) for line in told.text.splitlines() if line]


# --- asked for ------------------------------------------------------------------------------------


async def test_rows_are_stored_and_the_batch_goes_into_the_queue(either: Gateway) -> None:
    assert (await send(either, "b", 1, rows(1, 2))).status == 204
    assert (await send(either, "b", 2, rows(3))).status == 204
    told = await start(either, agendas=2, strategy="propose", budget={"max_calls": 9}, window=7)
    assert (told.status, told.headers["Location"]) == (202, f"{PATH}/b")
    assert "Idempotency-Replayed" not in told.headers
    assert {name: told.body[name] for name in ("id", "status", "rows", "agendas")} == {
        "id": "b",
        "status": "PENDING",
        "rows": 3,
        "agendas": 2,
    }
    assert told.body["asked"]["budget"]["max_calls"] == 9
    assert {"owner", "council"} & set(told.body) == set()
    assert await either.queued() == ["requests.b.batch"]
    assert await rows_of(either.record, "b", 1) == (row(1), row(2))
    assert (await either.get(f"{PATH}/b")).body == told.body


async def test_the_same_again_attaches_and_another_one_is_refused(either: Gateway) -> None:
    await started(either, 2)
    assert (await send(either, "b", 1, rows(1, 2))).status == 204
    again = await start(either)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert await either.queued() == ["requests.b.batch"]
    other = await send(either, "b", 1, rows(1, 3))
    assert (other.status, other.problem["field"]) == (422, "agenda")
    other = await start(either, strategy="rank")
    assert (other.status, other.problem["field"]) == (422, "id")


async def test_agendas_may_come_in_any_order_and_at_once(gateway: Gateway) -> None:
    told = await asyncio.gather(*(send(gateway, "b", number, rows(number)) for number in (3, 1, 2, 1, 3)))
    assert {one.status for one in told} == {204}
    assert (await start(gateway, agendas=3)).body["rows"] == 3


async def test_an_agenda_that_is_missing_is_told(gateway: Gateway) -> None:
    for number in (1, 3):
        await send(gateway, "b", number, rows(number))
    told = await start(gateway, agendas=3)
    assert (told.status, told.problem["field"]) == (422, "agendas")
    assert told.problem["detail"] == "agendas: agenda 2 of 3 was not sent"
    assert await gateway.queued() == []
    await send(gateway, "b", 2, rows(2))
    assert (await start(gateway, agendas=3)).status == 202


async def test_once_it_was_started_no_further_rows_are_taken(gateway: Gateway) -> None:
    """Rows that are asked again have these numbers."""
    await started(gateway, 1)
    told = await send(gateway, "b", 2, rows(2))
    assert (told.status, told.problem["field"]) == (422, "agenda")
    other = await send(gateway, "b", 2, rows(2), await gateway.new_token("submit", owner="another"))
    assert other.status == 422


async def test_one_that_has_ended_is_not_run_again(gateway: Gateway) -> None:
    await started(gateway, 1)
    await end(gateway.record)
    await gateway.record.jetstream.purge_stream(subjects.REQUESTS)
    told = await start(gateway)
    assert (told.status, told.body["status"], told.headers["Idempotency-Replayed"]) == (202, "COMPLETED", "true")
    assert await gateway.queued() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agendas": 0}, "agendas"),
        ({"agendas": "one"}, "agendas"),
        ({"strategy": "luck"}, "strategy"),
        ({"budget": {"max_calls": 0}}, "budget.max_calls"),
        ({"budget": {"max_euros": 1}}, "budget.max_euros"),
        ({"window": 0}, "window"),
        ({"row_tries": 9}, "row_tries"),
        ({"task": "x"}, "task"),
        ({"council": "none"}, "council"),
    ],
    ids=str,
)
async def test_a_wrong_request_names_its_field(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    from tasks.deliberations import councils

    await councils.write_mirror(gateway.record, {"dev": council("dev")})
    gateway.service.councils._kept = None
    await send(gateway, "b", 1, rows(1))
    told = await start(gateway, **fields)
    assert (told.status, told.problem["field"]) == (422, field), told.text
    assert await gateway.queued() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "rows"),
        ({"rows": []}, "rows"),
        ({"rows": [{}]}, "rows.0.id"),
        ({"rows": rows(1)["rows"] * 2}, "rows"),
        ({"rows": [{**rows(1)["rows"][0], "key": "x"}]}, "rows.0.key"),
        ({"rows": [{**rows(1)["rows"][0], "item": {"id": "i1", "task": ""}}]}, "rows.0.item.task"),
        ({"rows": [{**rows(1)["rows"][0], "item": {"task": "x"}}]}, "rows.0.item.id"),
    ],
)
async def test_wrong_rows_name_their_field(gateway: Gateway, body: Any, field: str) -> None:
    told = await send(gateway, "b", 1, body)
    assert (told.status, told.problem["field"]) == (422, field)


@pytest.mark.parametrize(("path", "field"), [("b/agendas/0", "number"), ("b/agendas/x", "number")])
async def test_a_wrong_path_names_its_part(gateway: Gateway, path: str, field: str) -> None:
    told = await gateway.ask("PUT", f"{PATH}/{path}", json=rows(1))
    assert (told.status, told.problem["field"]) == (422, field)


@pytest.mark.parametrize("one", ["run", "x" * 49, "a.b", "a*"])
async def test_an_id_that_none_can_be_is_refused(gateway: Gateway, one: str) -> None:
    for told in (await send(gateway, one, 1, rows(1)), await start(gateway, one)):
        assert (told.status, told.problem["field"]) == (422, "id")
    for path in ("", "/results"):
        assert (await gateway.get(f"{PATH}/{one}{path}")).problem["type"] == "unknown-batch"


async def test_what_is_no_json_object_is_refused(gateway: Gateway) -> None:
    for path in (f"{PATH}/b", f"{PATH}/b/agendas/1"):
        assert (await gateway.ask("PUT", path, data=b"{}")).status == 415
        assert (await gateway.ask("PUT", path, json=[])).status == 400
        headers = {"Content-Type": "application/json"}
        assert (await gateway.ask("PUT", path, data=b"{", headers=headers)).status == 400
        assert (await gateway.ask("PUT", f"{path}?a=1", json={})).problem["field"] == "a"


async def test_a_full_queue_is_told(gateway: Gateway, serve: Any) -> None:
    async with serve(queue=1) as full:
        await full.post("k")
        await send(full, "b", 1, rows(1))
        told = await start(full)
        assert (told.status, told.problem["type"]) == (429, "queue-full")
        assert "Retry-After" in told.headers


# --- rights ---------------------------------------------------------------------------------------


async def test_without_a_token_nothing_is_told(gateway: Gateway) -> None:
    for method, path in (("PUT", "b"), ("PUT", "b/agendas/1"), ("GET", "b"), ("GET", "b/results"), ("DELETE", "b")):
        assert (await gateway.ask(method, f"{PATH}/{path}", None)).status == 401


async def test_another_owners_batch_is_not_there(gateway: Gateway) -> None:
    """Nor can it be started, or its rows be sent, by somebody else; and nothing is told of it."""
    a, b = await gateway.new_token(owner="a"), await gateway.new_token(owner="b")
    await started(gateway, 1, token=a)
    before = await gateway.record.batches.read("b")
    for method, path in (("GET", "b"), ("GET", "b/results"), ("DELETE", "b")):
        told = await gateway.ask(method, f"{PATH}/{path}", b)
        assert (told.status, told.problem["type"]) == (404, "unknown-batch")
        assert told.problem == (await gateway.ask(method, f"{PATH}/{path}".replace("/b", "/b", 1), b)).problem
    assert (await start(gateway, token=b)).status == 422
    assert (await send(gateway, "b", 1, rows(1), b)).status == 422
    assert await gateway.record.batches.read("b") == before
    assert (await gateway.get(f"{PATH}/b", a)).status == 200


async def test_rows_of_another_owner_are_none_of_this_ones(gateway: Gateway) -> None:
    a, b = await gateway.new_token(owner="a"), await gateway.new_token(owner="b")
    assert (await send(gateway, "b", 1, rows(1), a)).status == 204
    for told in (await start(gateway, token=b), await send(gateway, "b", 2, rows(2), b)):
        assert (told.status, told.problem["detail"]) == (422, "id: 'b' is another owner's batch")
    assert await gateway.queued() == []


async def test_an_id_that_a_deliberation_has_is_none_for_a_batch(gateway: Gateway) -> None:
    """Nor one of which an agenda's would be made."""
    for one in ("b", "c-0001"):
        assert (await gateway.post(id=one)).status == 202
    for told in (await send(gateway, "b", 1, rows(1)), await send(gateway, "c", 1, rows(1))):
        assert (told.status, told.problem["field"]) == (422, "id")


async def test_what_somebody_else_has_put_under_an_agendas_id_is_not_told(gateway: Gateway) -> None:
    """Its batch cannot be run, and ends; nobody waits for its rows meanwhile."""
    await started(gateway, 1)
    run = Run(gateway.record, "b-0001", owner="another")
    await run.begin()
    await run.decide(item="i1")
    async with listening(gateway) as line:
        coming = asyncio.ensure_future(line())
        await asyncio.sleep(0.2)
        assert not coming.done()
        await end(gateway.record, "FAILED")
        assert await coming == {"status": "FAILED"}


async def test_what_a_scope_may(gateway: Gateway) -> None:
    """Who asks sees and stops its own, who may read sees, and only admin stops what is another's."""
    a = await gateway.new_token(owner="a")
    reader = await gateway.new_token("read", owner="b")
    await started(gateway, 1, token=a)
    assert (await gateway.get(f"{PATH}/b", reader)).status == 200
    assert (await gateway.ask("DELETE", f"{PATH}/b", reader)).status == 403
    assert (await start(gateway, "c", reader)).status == 403
    assert (await send(gateway, "c", 1, rows(1), reader)).status == 403
    assert (await gateway.ask("DELETE", f"{PATH}/b")).status == 202


async def test_a_token_without_the_council_may_not_ask_it(gateway: Gateway) -> None:
    token = await gateway.new_token(owner="a", councils=("qa",))
    await send(gateway, "b", 1, rows(1), token)
    told = await start(gateway, token=token)
    assert (told.status, told.problem["field"]) == (403, "council")
    assert await gateway.queued() == []


# --- read -----------------------------------------------------------------------------------------


async def test_a_batch_says_how_far_it_is(gateway: Gateway) -> None:
    await started(gateway, 3)
    told = {"counts": {"decided": 2, "COMPLETED": 2}, "calls": 6, "windows": {"default": 64}, "status": "IN_PROGRESS"}
    await note(gateway.record, "b", {**told, "council": {"prompts": "secret"}})
    body = (await gateway.get(f"{PATH}/b")).body
    assert {name: body[name] for name in told} == told
    assert "council" not in body


async def test_rows_come_as_they_are_decided_and_the_last_line_says_so(either: Gateway) -> None:
    """Also to who listens before there are any."""
    await started(either, 2, 1)
    async with listening(either) as line:
        await decide(either.record, "i2")
        first = await line()
        assert (first["id"], first["row"], first["line"], first["item"], first["tries"]) == ("r2", 2, 3, "i2", 1)
        assert (first["deliberation_id"], first["result"]["decision"]) == ("b-0001", "Of i2")
        assert first["key"] == f"{2:032x}"
        assert len(first["council_digest"]) == 64
        await decide(either.record, "i1")
        assert (await line())["id"] == "r1"
        await decide(either.record, "i3", number=2)
        assert (await line())["id"] == "r3"
        await end(either.record)
        assert await line() == {"status": "COMPLETED"}
        assert await line() == b""


async def test_after_a_place_come_those_behind_it(either: Gateway) -> None:
    await started(either, 2, 2)
    await decide(either.record, "i1", "i2")
    await decide(either.record, "i3", "i4", number=2)
    await end(either.record)
    whole = await results(either)
    assert [line.get("id") for line in whole] == ["r1", "r2", "r3", "r4", None]
    for number, line in enumerate(whole[:-1], 1):
        assert await results(either, f"?after={line['after']}") == whole[number:]


@pytest.mark.parametrize("after", ["x", "1", "1-", "-", "1-1-1", "1-99999999999999999999"])
async def test_what_is_no_place_is_refused(gateway: Gateway, after: str) -> None:
    await started(gateway, 1)
    told = await gateway.get(f"{PATH}/b/results?after={after}")
    assert (told.status, told.problem["field"]) == (422, "after")
    assert (await gateway.get(f"{PATH}/b/results?from=1")).problem["field"] == "from"


async def test_while_nothing_comes_an_empty_line_does(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is dead is told from one that is silent."""
    monkeypatch.setattr(batches, "HEARTBEAT_S", 0.05)
    await started(gateway, 1)
    async with listening(gateway) as line:
        assert [await line(), await line()] == [b"\n", b"\n"]
        await decide(gateway.record, "i1")
        while (told := await line()) == b"\n":
            pass
        assert told["id"] == "r1"


async def test_a_batch_that_failed_says_so_at_its_end(gateway: Gateway) -> None:
    """Its rows that were never decided do not come."""
    await started(gateway, 2, 2)
    await decide(gateway.record, "i1", "i2")
    await end(gateway.record, "FAILED")
    assert [line.get("id") or line["status"] for line in await results(gateway)] == ["r1", "r2", "FAILED"]


async def test_where_the_record_breaks_off_the_answer_is_not_whole(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the last line nor a proper end, so that a client comes again."""
    import aiohttp

    from blocks.exceptions import RecordUnavailable

    async def breaks(*_: Any) -> Any:
        raise RecordUnavailable("it does not answer")
        yield

    await started(gateway, 1)
    monkeypatch.setattr(batches, "decided_rows", breaks)
    with pytest.raises(aiohttp.ClientError):
        await gateway.get(f"{PATH}/b/results")
    assert gateway.service.counts.listeners == 0


async def test_who_leaves_is_followed_no_longer(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HEARTBEAT_S", 0.02)
    await started(gateway, 1)
    async with listening(gateway) as line:
        await line()
        assert gateway.service.counts.listeners == 1
    async with asyncio.timeout(20):
        while gateway.service.counts.listeners:
            await asyncio.sleep(0.01)


# --- stopped --------------------------------------------------------------------------------------


async def test_whoever_asked_may_stop_it(either: Gateway) -> None:
    await started(either, 1)
    told = await either.ask("DELETE", f"{PATH}/b")
    assert (told.status, told.body["cancel_requested"]) == (202, True)
    assert (await either.ask("DELETE", f"{PATH}/b")).status == 202
    await end(either.record, "CANCELLED")
    told = await either.ask("DELETE", f"{PATH}/b")
    assert (told.status, told.body["status"]) == (200, "CANCELLED")


async def test_one_that_has_ended_is_not_asked_to_stop(gateway: Gateway) -> None:
    await started(gateway, 1)
    await end(gateway.record)
    told = await gateway.ask("DELETE", f"{PATH}/b")
    assert (told.status, told.body["status"]) == (200, "COMPLETED")
    assert "cancel_requested" not in told.body


async def test_what_is_not_there_is_not_stopped(gateway: Gateway) -> None:
    assert (await gateway.ask("DELETE", f"{PATH}/b")).problem["type"] == "unknown-batch"
    assert await gateway.record.batches.read("b") is None
