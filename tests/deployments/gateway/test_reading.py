"""Reading: a deliberation that waits, runs or has ended, its items, and waiting for its end."""

from __future__ import annotations

import asyncio

import pytest

from tests.deployments.gateway.parts import MEMBERS, PATH, TASK, Gateway, Run

pytestmark = pytest.mark.servers


async def test_one_that_waits_runs_and_ends_is_told_as_it_is(either: Gateway) -> None:
    one = (await either.post()).body["id"]
    links = {"self": f"{PATH}/{one}", "events": f"{PATH}/{one}/events", "wait": f"{PATH}/{one}/wait"}
    told = await either.get(f"{PATH}/{one}")
    assert (told.status, told.body["status"], told.body["links"]) == (200, "PENDING", links)
    run = Run(either.record, one)
    await run.begin()
    await run.answer("m1")
    told = await either.get(f"{PATH}/{one}")
    assert (told.body["status"], told.body["failed_count"]) == ("IN_PROGRESS", 1)
    assert (told.body["total_agents"], told.body["not_asked"]) == (3, 0)
    assert told.body["task"] == TASK
    item = await either.get(f"{PATH}/{one}/items/task")
    assert (item.status, item.body["status"]) == (200, "IN_PROGRESS")
    await run.decide(decision="RabbitMQ")
    await run.finish()
    told = await either.get(f"{PATH}/{one}")
    assert (told.body["status"], told.body["decision"], told.body["winner_id"]) == ("COMPLETED", "RabbitMQ", "m1")
    assert (await either.get(f"{PATH}/{one}/items/task")).body["decision"] == "RabbitMQ"
    assert (await either.get(f"{PATH}/{one}/items/other")).problem["type"] == "unknown-item"


async def test_an_agenda_is_told_item_by_item(gateway: Gateway) -> None:
    items = [{"id": "a", "task": "x"}, {"id": "b", "task": "y"}]
    one = (await gateway.post(task=None, items=items)).body["id"]
    assert (await gateway.get(f"{PATH}/{one}/items/a")).status == 404
    run = Run(gateway.record, one, task=None, items=items)
    await run.begin()
    for member in MEMBERS:
        await run.answer(member, "a")
    await run.decide("a")
    told = (await gateway.get(f"{PATH}/{one}")).body
    assert told["status"] == "IN_PROGRESS"
    assert [line["item"] for line in told["items"]] == ["a"]
    assert (await gateway.get(f"{PATH}/{one}/items/b")).body["status"] == "IN_PROGRESS"
    await run.decide("b")
    await run.finish(tokens=7)
    told = (await gateway.get(f"{PATH}/{one}/wait")).body
    assert [line["item"] for line in told["items"]] == ["a", "b"]
    assert told["usage"]["prompt_tokens"] == 7


async def test_what_nobody_has_asked_is_unknown(gateway: Gateway) -> None:
    for path in ("", "/wait", "/events", "/items/task"):
        assert (await gateway.get(f"{PATH}/nobody{path}")).problem["type"] == "unknown-deliberation"
    assert (await gateway.ask("DELETE", f"{PATH}/nobody")).status == 404


async def test_who_waits_is_answered_by_the_end(either: Gateway) -> None:
    one = (await either.post()).body["id"]
    waiting = [asyncio.create_task(either.get(f"{PATH}/{one}/wait?timeout_s=60")) for _ in range(5)]
    async with asyncio.timeout(10):
        while len(either.service.feed._arrivals._waiting.get(one, ())) < 5:
            await asyncio.sleep(0.005)
    await Run(either.record, one).whole()
    told = await asyncio.gather(*waiting)
    assert {(each.status, each.body["status"]) for each in told} == {(200, "COMPLETED")}
    assert either.service.feed._arrivals._waiting == {}


async def test_who_waits_for_no_time_is_told_what_is_known(gateway: Gateway) -> None:
    one = (await gateway.post()).body["id"]
    told = await gateway.get(f"{PATH}/{one}/wait?timeout_s=0")
    assert (told.status, told.body["status"]) == (202, "PENDING")
    await Run(gateway.record, one).whole()
    told = await gateway.get(f"{PATH}/{one}/wait?timeout_s=0.0")
    assert (told.status, told.body["status"]) == (200, "COMPLETED")


@pytest.mark.parametrize(
    ("text", "status"), [("61", 422), ("-1", 422), ("x", 400), ("nan", 400), ("inf", 400), ("1e99", 422), ("", 400)]
)
async def test_a_time_that_cannot_be_is_told(gateway: Gateway, text: str, status: int) -> None:
    one = (await gateway.post()).body["id"]
    told = await gateway.get(f"{PATH}/{one}/wait?timeout_s={text}")
    assert (told.status, told.problem["field"]) == (status, "timeout_s")


@pytest.mark.parametrize("prefer", ["wait=60", "respond-async, wait=60", 'wait="60"', "WAIT=60", "wait=999"])
async def test_who_prefers_to_wait_gets_the_result(gateway: Gateway, prefer: str) -> None:
    asking = asyncio.create_task(gateway.post("k", headers={"Prefer": prefer}))
    async with asyncio.timeout(10):
        while not (queued := await gateway.queued()) or not gateway.service.feed._arrivals._waiting:
            await asyncio.sleep(0.005)
    one = queued[0].rpartition(".")[2]
    await Run(gateway.record, one).whole()
    told = await asking
    assert (told.status, told.body["status"], told.body["id"]) == (200, "COMPLETED", one)
    assert told.headers["Preference-Applied"] == "wait=60"
    assert told.headers["Location"] == f"{PATH}/{one}"
    again = await gateway.post("k", headers={"Prefer": prefer})
    assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")


@pytest.mark.parametrize("prefer", ["respond-async", "wait", "wait=x", "wait=-1", "nonsense", "await=5", "no-wait=5"])
async def test_another_preference_is_passed_over(gateway: Gateway, prefer: str) -> None:
    told = await gateway.post(headers={"Prefer": prefer})
    assert told.status == 202
    assert "Preference-Applied" not in told.headers


async def test_who_prefers_to_wait_for_no_time_is_told_what_is_known(gateway: Gateway) -> None:
    told = await gateway.post(headers={"Prefer": "wait=0"})
    assert (told.status, told.body["status"], told.headers["Preference-Applied"]) == (202, "PENDING", "wait=0")


async def test_one_that_waits_is_stopped_at_once_and_one_that_runs_is_asked_to(either: Gateway) -> None:
    waits, runs = (await either.post()).body["id"], (await either.post()).body["id"]
    await Run(either.record, runs).begin()
    told = await either.ask("DELETE", f"{PATH}/{waits}")
    assert (told.status, told.body) == (200, {"id": waits, "status": "CANCELLED"})
    told = await either.ask("DELETE", f"{PATH}/{runs}")
    assert (told.status, told.body) == (202, {"id": runs, "status": "IN_PROGRESS"})
    assert (await either.record.statuses.read(runs) or {})["cancel_requested"] is True
    assert (await either.get(f"{PATH}/{waits}/wait")).body["status"] == "CANCELLED"
    assert (await either.ask("DELETE", f"{PATH}/{waits}")).status == 200


async def test_whether_it_is_ready_names_each_part(serve: object, gateway: Gateway) -> None:
    told = (await gateway.get("/readyz", None)).body
    assert told["ready"] is True
    assert told["dependencies"]["nats"]["ok"] is True
    assert told["dependencies"]["workers"]["ok"] is False
    assert told["councils_age_s"] is None


async def test_without_nats_it_is_not_ready_and_says_so(gateway: Gateway, memory: object) -> None:
    memory.away = True  # type: ignore[attr-defined]
    told = await gateway.get("/readyz", None)
    memory.away = False  # type: ignore[attr-defined]
    assert (told.status, told.body["ready"], told.body["dependencies"]["nats"]["ok"]) == (503, False, False)
    assert (await gateway.get("/healthz", None)).status == 200
