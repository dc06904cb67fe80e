"""What is accepted: stored before it is answered, once for a key, whoever dies between two writes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from blocks.record import subjects
from tests.deployments.gateway.parts import PATH, TASK, Gateway, Run, gateway_at
from tests.fakes.memory_nats import MemoryNats

pytestmark = pytest.mark.servers


async def test_key_and_message_are_stored_before_the_answer(either: Gateway) -> None:
    told = await either.post("k", metadata={"team": "a"})
    assert told.status == 202, told.text
    one = told.body["id"]
    assert told.headers["Location"] == f"{PATH}/{one}"
    assert "Idempotency-Replayed" not in told.headers
    assert told.body["status"] == "PENDING"
    assert told.body["links"]["self"] == f"{PATH}/{one}"
    key = await either.record.statuses.read(one)
    assert key is not None
    assert (key["status"], key["owner"], key["door"]) == ("PENDING", "tester", "gateway")
    assert key["request"] == {"task": TASK, "metadata": {"team": "a"}}
    assert await either.queued() == [f"requests.{one}"]


@pytest.mark.parametrize("again", ["a b", '"a b"', ' "a b" '])
async def test_the_same_key_bare_or_quoted_is_the_same_deliberation(gateway: Gateway, again: str) -> None:
    first, second = await gateway.post("a b"), await gateway.post(again)
    assert (first.status, second.status) == (202, 202)
    assert second.body["id"] == first.body["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(await gateway.queued()) == 1


async def test_a_replay_is_told_on_a_real_server(either: Gateway) -> None:
    first, second = await either.post("a"), await either.post("a")
    assert second.body["id"] == first.body["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert (await either.post("a", task="Choose another")).problem["type"] == "idempotency-key-reused"
    assert len(await either.queued()) == 1


async def test_an_id_in_the_body_is_the_deliberations(gateway: Gateway) -> None:
    first, second = await gateway.post(id="mine"), await gateway.post(id="mine")
    assert first.body["id"] == second.body["id"] == "mine"
    assert second.headers["Idempotency-Replayed"] == "true"
    assert await gateway.queued() == ["requests.mine"]


async def test_a_key_is_its_owners_and_outlives_the_token(gateway: Gateway) -> None:
    a, b = await gateway.new_token(owner="a"), await gateway.new_token(owner="b")
    of_a, of_b = await gateway.post("k", a), await gateway.post("k", b)
    assert of_a.body["id"] != of_b.body["id"]
    renewed = await gateway.post("k", await gateway.new_token(owner="a"))
    assert renewed.body["id"] == of_a.body["id"]
    assert renewed.headers["Idempotency-Replayed"] == "true"
    assert len(await gateway.queued()) == 2


@pytest.mark.parametrize(
    ("key", "fields", "kind", "field"),
    [("k", {}, "idempotency-key-reused", "Idempotency-Key"), (None, {"id": "mine"}, "id-reused", "id")],
)
async def test_another_body_is_refused(
    gateway: Gateway, key: str | None, fields: dict[str, Any], kind: str, field: str
) -> None:
    first = await gateway.post(key, **fields)
    told = await gateway.post(key, task="Choose another", **fields)
    assert told.status == 422
    assert (told.problem["type"], told.problem["field"]) == (kind, field)
    assert told.problem["id"] == first.body["id"]
    assert (await gateway.post(key, **fields)).status == 202


async def test_of_an_id_of_somebody_elses_nothing_is_told(gateway: Gateway) -> None:
    """Not even whether it was asked with the same body; and nothing of it is changed."""
    a, b = await gateway.new_token(owner="a"), await gateway.new_token(owner="b")
    await gateway.post(id="theirs", token=a)
    key = await gateway.record.statuses.read("theirs")
    same, other = await gateway.post(id="theirs", token=b), await gateway.post(id="theirs", token=b, task="Another")
    assert same.status == other.status == 422
    assert same.problem == other.problem
    assert await gateway.record.statuses.read("theirs") == key
    assert len(await gateway.queued()) == 1
    for path in ("", "/wait", "/events", "/items/task"):
        assert (await gateway.get(f"{PATH}/theirs{path}", b)).problem["type"] == "unknown-deliberation"
    assert (await gateway.ask("DELETE", f"{PATH}/theirs", b)).status == 404


async def test_of_fifty_at_once_with_one_key_one_is_new(either: Gateway) -> None:
    told = await asyncio.gather(*(either.post("k") for _ in range(50)))
    assert {one.status for one in told} == {202}
    assert len({one.body["id"] for one in told}) == 1
    assert sum("Idempotency-Replayed" not in one.headers for one in told) == 1
    assert len(await either.queued()) == 1


async def test_of_a_thousand_at_once_each_is_taken_or_told_to_come_again(gateway: Gateway) -> None:
    """What was accepted waits in the queue, once; what was not has left nothing."""
    told = await asyncio.gather(*(gateway.post(task=f"{TASK} {number}") for number in range(1_000)))
    taken = [one.body["id"] for one in told if one.status == 202]
    assert {one.status for one in told} <= {202, 429}
    assert all("Retry-After" in one.headers for one in told if one.status == 429)
    assert len(set(taken)) == len(taken) > 0
    assert sorted(await gateway.queued()) == sorted(f"requests.{one}" for one in taken)


async def test_another_priority_under_the_key_is_no_second_message(gateway: Gateway) -> None:
    first = await gateway.post("k")
    again = await gateway.post("k", priority="batch", delay_s=5)
    assert again.body["id"] == first.body["id"]
    assert len(await gateway.queued()) == 1


async def test_one_that_was_cancelled_before_it_began_stays_its_owners(either: Gateway) -> None:
    """Also once its key was let go: nothing else but its end says whose it was, and what was asked."""
    token = await either.new_token()
    one = (await either.post(key="k", token=token)).body["id"]
    assert (await either.ask("DELETE", f"{PATH}/{one}", token=token)).body["status"] == "CANCELLED"
    await either.record.statuses.delete(one)
    await either.record.jetstream.purge_stream(subjects.REQUESTS)
    read, again = await either.get(f"{PATH}/{one}", token=token), await either.post(key="k", token=token)
    other = await either.post(key="k", token=token, task="Another one")
    assert (read.status, read.body["status"]) == (200, "CANCELLED")
    assert (again.status, again.body["status"]) == (202, "CANCELLED")
    assert (other.status, other.problem["type"]) == (422, "idempotency-key-reused")


async def test_a_key_that_was_let_go_after_the_end_still_replays(either: Gateway) -> None:
    one = (await either.post("k")).body["id"]
    await Run(either.record, one).whole()
    await either.record.statuses.delete(one)
    await either.record.jetstream.purge_stream(subjects.REQUESTS)
    told = await either.post("k")
    assert (told.status, told.body["id"], told.body["status"]) == (202, one, "COMPLETED")
    assert told.headers["Idempotency-Replayed"] == "true"
    assert (await either.post("k", task="Another")).problem["type"] == "idempotency-key-reused"
    assert await either.queued() == []


async def test_an_idempotency_key_holds_for_as_long_as_the_streams_keep(memory: MemoryNats, serve: Any) -> None:
    """30 days, by the clock of the server, which is moved; its status is let go long before."""
    days = 0
    memory.clock = lambda: time.monotonic() + days * 86_400
    async with serve() as gateway:
        one = (await gateway.post("k")).body["id"]
        await Run(gateway.record, one).whole()
        await gateway.record.statuses.delete(one)
        await gateway.record.jetstream.purge_stream(subjects.REQUESTS)  # as the worker acknowledges it
        days = 29
        replayed = await gateway.post("k")
        other = await gateway.post("k", task="Another")
        assert await gateway.queued() == []
        days = 31
        anew = await gateway.post("k", task="Another")
        queued = await gateway.queued()
    assert (replayed.body["id"], replayed.body["status"]) == (one, "COMPLETED")
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert other.problem["type"] == "idempotency-key-reused"
    assert (anew.status, anew.body["id"], anew.body["status"]) == (202, one, "PENDING")
    assert "Idempotency-Replayed" not in anew.headers
    assert len(queued) == 1


async def test_a_replay_is_not_bounded_by_what_came_after_it(gateway: Gateway) -> None:
    """It asks for nothing new, so neither a limit nor a council that has gone refuses it."""
    from tasks.access import usage
    from tasks.deliberations import councils
    from tests.deployments.gateway.parts import council

    token = await gateway.new_token(owner="a", tokens_a_day=10, at_once=1)
    one = (await gateway.post("k", token)).body["id"]
    await Run(gateway.record, one, owner="a").whole(tokens=20)
    await usage.add_end(gateway.record, "a", {"usage": {"prompt_tokens": 20}}, 1)
    await councils.write_mirror(gateway.record, {"qa": council("qa")})
    gateway.service.councils._kept = None
    assert (await gateway.post("other", token, council="qa")).problem["type"] == "daily-tokens"
    assert (await gateway.post("k", token)).body["id"] == one


# --- between two writes ---------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


def dying(monkeypatch: pytest.MonkeyPatch, gateway: Gateway, at: int, after: bool) -> list[str]:
    """Let the gateway die at its Nth write from now on, before it or once it is stored; the writes, as they come."""
    jetstream, writes = gateway.record.jetstream, list[str]()
    publish = jetstream.publish

    async def once(subject: str, *arguments: Any, **options: Any) -> Any:
        if subject.startswith("$JS.") or "conclave-access" in subject:
            return await publish(subject, *arguments, **options)
        writes.append(subject)
        if len(writes) == at and not after:
            raise Killed
        stored = await publish(subject, *arguments, **options)
        if len(writes) == at:
            raise Killed
        return stored

    monkeypatch.setattr(jetstream, "publish", once)
    return writes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("large", "at"), [*((False, at) for at in range(1, 4)), *((True, at) for at in range(1, 10))])
async def test_who_comes_again_after_a_death_between_two_writes_has_one_message(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, large: bool, at: int, after: bool
) -> None:
    """A large request is written in parts, beside its key and beside its message."""
    from deployments.gateway.handlers import deliberations
    from tasks.deliberations import submission, submit

    fields: dict[str, Any] = {"items": [{"task": "x" * 90_000}] * 13} if large else {"task": TASK}
    asked = deliberations.read_submission(fields)
    one = submission.id_for(gateway.record.installation, "tester", "k")
    now = deliberations.datetime.now(deliberations.UTC)
    request = deliberations.request_of(*asked, one, "gateway", now, "tester")
    with monkeypatch.context() as patched:
        dying(patched, gateway, at, after)
        with suppress(Killed):
            await submit.enqueue(gateway.record, request)
    told = await gateway.ask("POST", PATH, json=fields, headers={"Idempotency-Key": "k"})
    assert (told.status, told.body["id"]) == (202, one)
    assert await gateway.queued() == [f"requests.{one}"]
    assert (await gateway.get(f"{PATH}/{one}")).body["status"] == "PENDING"


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_client_that_leaves_at_any_moment_and_comes_again_attaches(gateway: Gateway, turns: int) -> None:
    asking = asyncio.create_task(gateway.post("k"))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    told = await gateway.post("k")
    assert told.status == 202
    assert await gateway.queued() == [f"requests.{told.body['id']}"]


async def test_a_second_sender_between_key_and_message_adds_no_message(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetstream = gateway.record.jetstream
    publish, held, go = jetstream.publish, asyncio.Event(), asyncio.Event()

    async def slow(subject: str, *arguments: Any, **options: Any) -> Any:
        if subject.startswith("requests.") and not held.is_set():
            held.set()
            await go.wait()
        return await publish(subject, *arguments, **options)

    monkeypatch.setattr(jetstream, "publish", slow)
    first = asyncio.create_task(gateway.post("k"))
    await held.wait()
    second = await gateway.post("k")
    go.set()
    assert (await first).body["id"] == second.body["id"]
    assert len(await gateway.queued()) == 1


async def test_nats_away_after_the_key_was_made_says_unknown_and_the_id_attaches(
    serve: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(patience_s=0.05) as gateway:
        statuses = gateway.record.statuses
        create = statuses.create

        async def then_away(*arguments: Any) -> bool:
            made: bool = await create(*arguments)
            memory.away = True
            return made

        monkeypatch.setattr(statuses, "create", then_away)
        told = await gateway.post("k")
        memory.away = False
        assert told.status == 503
        assert (told.problem["type"], told.problem["accepted"]) == ("record-unavailable", "unknown")
        assert int(told.headers["Retry-After"]) <= 120
        again = await gateway.post("k")
        assert (again.status, again.body["id"]) == (202, told.problem["id"])
        assert len(await gateway.queued()) == 1


async def test_a_full_stream_says_later_and_leaves_no_key(nats_server: Any) -> None:
    async with gateway_at(nats_server.url) as gateway:
        config = (await gateway.record.jetstream.stream_info(subjects.REQUESTS)).config
        config.max_msgs, config.discard = 1, DiscardPolicy.NEW
        await gateway.record.jetstream.update_stream(config)
        assert (await gateway.post("a")).status == 202
        told = await gateway.post("b")
        assert told.status == 429
        assert (told.problem["type"], told.problem["accepted"]) == ("queue-full", "unknown")
        assert 0 < int(told.headers["Retry-After"]) <= 120
        assert await gateway.record.statuses.read(told.problem["id"]) is None
        assert (await gateway.get(f"{PATH}/{told.problem['id']}")).status == 404
        assert (await gateway.post("a")).headers["Idempotency-Replayed"] == "true"
        await gateway.record.jetstream.purge_stream(subjects.REQUESTS)
        again = await gateway.post("b")
        assert (again.status, again.body["id"]) == (202, told.problem["id"])
        assert "Idempotency-Replayed" not in again.headers


async def test_a_restart_of_nats_loses_and_doubles_nothing_that_was_accepted(nats_server: Any) -> None:
    async with gateway_at(nats_server.url, patience_s=20.0) as gateway:

        async def ask(number: int) -> None:
            told = await gateway.post(f"k{number}")
            while told.status == 503:
                told = await gateway.post(f"k{number}")
            assert told.status == 202, told.text
            accepted.append(told.body["id"])

        accepted: list[str] = []
        asking = [asyncio.create_task(ask(number)) for number in range(50)]
        while not accepted:
            await asyncio.sleep(0)
        await nats_server.kill()
        await nats_server.start()
        await asyncio.gather(*asking)
        assert len(set(accepted)) == 50
        assert sorted(await gateway.queued()) == sorted(f"requests.{one}" for one in accepted)


async def test_a_full_queue_of_ours_says_later(serve: Any) -> None:
    async with serve(queue=2) as gateway:
        assert [(await gateway.post()).status for _ in range(3)] == [202, 202, 429]
        told = await gateway.post()
        assert (told.problem["type"], int(told.headers["Retry-After"]) <= 120) == ("queue-full", True)
        assert len(await gateway.queued()) == 2


FORMATS: tuple[dict[str, Any], ...] = (
    {"type": "number"},
    {"type": "text-exact"},
    {"type": "choice", "options": ["yes", "no"]},
)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: str(form["type"]))
async def test_a_closed_answer_is_asked_for_as_it_was_sent(gateway: Gateway, form: dict[str, Any]) -> None:
    """Key and message have its whole form, of a task and of an item: whoever reads them asks the same."""
    from tasks.council.models import DeliberationRequest
    from tasks.deliberations.submit import asked_of, queued_request

    for fields in (
        {"task": TASK, "answer_format": form},
        {"task": None, "items": [{"task": TASK, "answer_format": form}]},
    ):
        told = await gateway.post(**fields)
        assert told.status == 202, told.text
        wanted = DeliberationRequest.read(fields)
        waiting = await queued_request(gateway.record, told.body["id"])
        assert waiting is not None
        assert DeliberationRequest.read(waiting.asked) == wanted
        status = await gateway.record.statuses.read(told.body["id"])
        assert DeliberationRequest.read(await asked_of(gateway.record, status or {}) or {}) == wanted


async def test_what_is_cancelled_before_its_time_leaves_the_queue(either: Gateway) -> None:
    told = await either.post(delay_s=3600)
    kept = await either.post(delay_s=3600)
    assert (await either.ask("DELETE", f"{PATH}/{told.body['id']}")).status == 200
    assert await either.queued() == [f"requests.{kept.body['id']}"]


async def test_refusals_say_how_much_may_be_asked_for(gateway: Gateway) -> None:
    for told in (await gateway.post(council="a b"), await gateway.post(nothing=1)):
        assert told.status == 422
        assert "r=" in told.headers["RateLimit"]
