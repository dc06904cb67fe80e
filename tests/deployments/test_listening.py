"""Listening: events on others' subjects are put into the queue, once each, and what is no request is let go."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

FILE = """
listeners:
  - name: {name}
    subject: {subject}.plan.approved
    when: "approved_by != null"
    id: "{chosen}"
    request:
      task: "join(': ', ['Plan', title])"
"""
PLAN = {"plan": "1", "title": "Login", "approved_by": "ann"}


@pytest.fixture
def named() -> str:
    """A name, and first token of subjects, of the test's own."""
    return f"l{uuid.uuid4().hex[:8]}"


@pytest_asyncio.fixture
async def stream(recorded: Any, named: str) -> AsyncGenerator[Any, None]:
    """A stream of somebody else's; gives JetStream."""
    jetstream = recorded.client.jetstream()
    await jetstream.add_stream(name=named, subjects=[f"{named}.>"])
    yield jetstream
    await jetstream.delete_stream(named)


@pytest.fixture
def listening(connected: Any, tmp_path: Path, named: str) -> Callable[..., Any]:
    """`async with listening(chosen=...)`: listen while the block runs."""

    @asynccontextmanager
    async def start(chosen: str = f"join('-', ['{named}', plan])") -> AsyncGenerator[None, None]:
        from blocks.background import background
        from deployments.listeners import listen, read_listeners

        path = tmp_path / "listeners.yaml"
        path.write_text(FILE.format(name=named, subject=named, chosen=chosen))
        async with background(listen(connected, read_listeners(path), logging.getLogger("listening"))):
            yield

    return start


@pytest_asyncio.fixture
async def waiting(recorded: Any, named: str) -> AsyncGenerator[Any, None]:
    """`await waiting(n)`: bodies of the n requests of this test; there is none after it."""
    jetstream = recorded.client.jetstream()

    async def requests() -> dict[str, int]:
        info = await jetstream.stream_info("CONCLAVE_REQUESTS", subjects_filter="requests.*")
        return {
            one: count for one, count in (info.state.subjects or {}).items() if one.startswith(f"requests.{named}-")
        }

    async def wait(count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(90):  # what was on its way to one who has just left comes again after 30 s
            while True:
                if len(found := await requests()) >= count:
                    assert set(found.values()) == {1}
                    messages = [await jetstream.get_last_msg("CONCLAVE_REQUESTS", one) for one in sorted(found)]
                    return [json.loads(message.data) for message in messages]
                await asyncio.sleep(0.05)

    yield wait
    for subject in await requests():
        await jetstream.purge_stream("CONCLAVE_REQUESTS", subject=subject)


async def test_an_event_becomes_a_request_once(
    listening: Any, stream: Any, waiting: Any, record: Any, named: str, caplog: Any
) -> None:
    """Published twice it is one request; others are passed over or refused, and nothing stays unacknowledged."""
    async with listening():
        await asyncio.sleep(0)
        await _consumer(stream, named)
        for body in (
            PLAN,
            PLAN,
            {**PLAN, "plan": "2", "approved_by": None},
            {**PLAN, "plan": "a b"},
            {**PLAN, "plan": "3"},
        ):
            await stream.publish(f"{named}.plan.approved", json.dumps(body).encode())
        await stream.publish(f"{named}.plan.approved", b"\xff no json")
        found = await waiting(2)
        await _all_acknowledged(stream, named)
    assert [(one["id"], one["parameters"], one["door"]) for one in found] == [
        (f"{named}-1", {"task": "Plan: Login"}, "planning"),
        (f"{named}-3", {"task": "Plan: Login"}, "planning"),
    ]
    assert (await record.statuses.read(f"{named}-1"))["status"] == "PENDING"
    refused = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert len(refused) == 2
    assert "id: the event gives" in refused[0]
    assert "body: is no JSON" in refused[1]


async def test_a_key_without_a_status_keeps_no_event_back(
    listening: Any, stream: Any, waiting: Any, recorded: Any, record: Any, named: str, caplog: Any
) -> None:
    """As a command that was stopped left it behind, under the id of the first event: both are accepted, in silence."""
    bucket = await recorded.client.jetstream().key_value("conclave-deliberations")
    await bucket.put(f"{named}-1", b'{"cancel_requested":true}')
    async with listening():
        await _consumer(stream, named)
        for plan in ("1", "2"):
            await stream.publish(f"{named}.plan.approved", json.dumps({**PLAN, "plan": plan}).encode())
        found = await waiting(2)
        await _all_acknowledged(stream, named)
    assert [one["id"] for one in found] == [f"{named}-1", f"{named}-2"]
    assert (await record.statuses.read(f"{named}-2"))["status"] == "PENDING"
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING] == []
    await bucket.purge(f"{named}-1")


async def test_what_comes_while_nobody_listens_is_not_lost(
    listening: Any, stream: Any, waiting: Any, named: str
) -> None:
    """The consumer is durable: the next worker gets what was published meanwhile."""
    async with listening():
        await _consumer(stream, named)
    await stream.publish(f"{named}.plan.approved", json.dumps(PLAN).encode())
    async with listening():
        assert len(await waiting(1)) == 1


async def test_the_same_id_with_another_task_is_refused(
    listening: Any, stream: Any, waiting: Any, named: str, caplog: Any
) -> None:
    """The first one stands."""
    async with listening():
        await _consumer(stream, named)
        await stream.publish(f"{named}.plan.approved", json.dumps(PLAN).encode())
        await stream.publish(f"{named}.plan.approved", json.dumps({**PLAN, "title": "Logout"}).encode())
        await waiting(1)
        await _all_acknowledged(stream, named)
    assert f"'{named}-1' was already asked with another request" in caplog.text


async def test_a_burst_is_taken_whole_each_once_and_in_its_order(
    listening: Any, stream: Any, waiting: Any, named: str
) -> None:
    """Each event comes twice, and poison between them holds nothing up."""
    plans = [f"{number:03}" for number in range(200)]
    async with listening():
        await _consumer(stream, named)
        for plan in plans:
            for data in (json.dumps({**PLAN, "plan": plan}).encode(), b"no json"):
                await stream.publish(f"{named}.plan.approved", data)
                await stream.publish(f"{named}.plan.approved", data)
        found = await waiting(len(plans))
        await _all_acknowledged(stream, named)
    assert [one["id"] for one in found] == [f"{named}-{plan}" for plan in plans]
    queued = [await stream.get_last_msg("CONCLAVE_REQUESTS", f"requests.{one['id']}") for one in found]
    assert [message.seq for message in queued] == sorted(message.seq for message in queued)


async def test_of_two_workers_each_event_comes_to_one(
    listening: Any, stream: Any, waiting: Any, named: str, caplog: Any
) -> None:
    plans = [f"{number:03}" for number in range(50)]
    async with listening(), listening():
        await _consumer(stream, named)
        for plan in plans:
            await stream.publish(f"{named}.plan.approved", json.dumps({**PLAN, "plan": plan}).encode())
        found = await waiting(len(plans))
        await _all_acknowledged(stream, named)
    assert [one["id"] for one in found] == [f"{named}-{plan}" for plan in plans]
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING] == []


async def test_a_subject_that_no_stream_keeps_is_listened_to_all_the_same(
    listening: Any, recorded: Any, waiting: Any, named: str, caplog: Any
) -> None:
    """At most once, and the log says so."""
    async with listening():
        async with asyncio.timeout(30):
            while "an event that comes while no worker is there is lost" not in caplog.text:
                await asyncio.sleep(0.02)
        publishing = asyncio.create_task(_again_and_again(recorded.client, f"{named}.plan.approved"))
        assert len(await waiting(1)) == 1
        publishing.cancel()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("listeners: []", "listeners: "),
        ("[", "is not YAML"),
        ("listeners: [{name: a.b, subject: x, request: {task: t}}]", "listeners.0.name: "),
        ("listeners: [{name: a, subject: 'x y', request: {task: t}}]", "listeners.0.subject: "),
        ("listeners: [{name: a, subject: x, request: {task: 't['}}]", "listener 'a': request.task: 't['"),
        ("listeners: [{name: a, subject: x, requst: {}}]", "listeners.0.request: Field required"),
        (
            "listeners: [{name: a, subject: x, request: {task: t}}, {name: a, subject: y, request: {task: t}}]",
            "listeners: 'a' stands there twice",
        ),
    ],
)
def test_a_file_that_cannot_be_used_names_the_key(stack: Any, tmp_path: Path, text: str, refusal: str) -> None:
    """File, listener and key, when the worker starts."""
    from deployments.event_files import EventFileError
    from deployments.listeners import read_listeners

    path = tmp_path / "listeners.yaml"
    path.write_text(text)
    with pytest.raises(EventFileError) as refused:
        read_listeners(path)
    assert str(refused.value).startswith(str(path))
    assert refusal in str(refused.value)


GOOD = {**PLAN, "xs": [], "number": 1, "more": "y"}
ODD = (
    {**GOOD, "xs": [{"a": 1, "b": "x"}]},
    {**GOOD, "number": 1e308},
    {**GOOD, "more": 7},
    {**GOOD, "title": "\ud800"},
    {**GOOD, "title": "\0"},
    {**GOOD, "plan": 10**400},
    {**GOOD, "plan": "x" * 100_000},
    [],
    None,
)
"""Events on which an ordinary expression fails, or a request, each in its own way."""


def _deep(depth: int) -> bytes:
    return json.dumps({**GOOD, "ctx": None})[:-5].encode() + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


async def test_no_event_takes_a_listener_down(
    connected: Any, stream: Any, waiting: Any, named: str, tmp_path: Path, caplog: Any
) -> None:
    """Each is refused with a short word, the next one becomes a request, and no listener begins again."""
    from blocks.background import background
    from deployments.listeners import listen, read_listeners

    path = tmp_path / "listeners.yaml"
    path.write_text(
        f"""
listeners:
  - name: {named}
    subject: {named}.plan.approved
    id: "join('-', ['{named}', plan])"
    request:
      task: title
      context: "{{ctx: ctx, big: xs[?a > b], sum: floor(number), has: contains(more, 'x')}}"
"""
    )
    async with background(listen(connected, read_listeners(path), logging.getLogger("listening"))):
        await _consumer(stream, named)
        for body in ODD:
            await stream.publish(f"{named}.plan.approved", json.dumps(body).encode())
        for depth in (33, 256, 800, 100_000):
            await stream.publish(f"{named}.plan.approved", _deep(depth))
        await stream.publish(f"{named}.plan.approved", json.dumps(GOOD).encode())
        (found,) = await waiting(1)
        await _all_acknowledged(stream, named)
    assert found["parameters"]["context"] == {"ctx": None, "big": [], "sum": 1, "has": False}
    refused = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert len(refused) == len(ODD) + 4
    assert max(map(len, refused)) < 1_000
    assert not [line for line in caplog.records if line.levelname == "WARNING"]


async def test_a_listener_that_fails_begins_again_alone(
    connected: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The other one's events are not interrupted, and the failure is told once, in brief."""
    from blocks.background import background
    from deployments import listeners as listening
    from tasks.deliberations.event_mapping import Mapping

    monkeypatch.setattr(listening, "AGAIN_S", 0.01)
    begun = {"well": 0, "ill": 0}

    async def events(record: Any, listener: Any, log: Any) -> Any:
        begun[listener.name] += 1
        if listener.name == "ill":
            raise KeyError("x" * 5_000)

        async def none() -> AsyncGenerator[Any, None]:
            await asyncio.Event().wait()
            yield

        return none()

    monkeypatch.setattr(listening, "_events", events)
    both = [listening.Listener(name, name, None, Mapping.read({"task": "t"})) for name in begun]
    async with background(listening.listen(connected, both, logging.getLogger("listening"))):
        async with asyncio.timeout(10):
            while begun["ill"] < 3:
                await asyncio.sleep(0.01)
    assert begun["well"] == 1
    (told,) = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert told.startswith("listener ill: KeyError: ")
    assert len(told) < 300


def test_the_example_can_be_used(stack: Any) -> None:
    """As it stands in the documentation."""
    from deployments.listeners import read_listeners

    (listener,) = read_listeners(Path("docs/examples/listeners.yaml"))
    event = {"plan_id": 7, "story_id": "S-1", "title": "Login", "approved_by": "ann"}
    asked = listener.mapping.asked({**event, "plan_id": "7"})
    assert asked.id == "plan-7"
    assert asked.fields["task"] == "Break story S-1 down into tasks: Login"


async def _again_and_again(client: Any, subject: str) -> None:
    """The subscription may come after the log's word of it; one id is one request, however often it is told."""
    while True:
        await client.publish(subject, json.dumps(PLAN).encode())
        await asyncio.sleep(0.1)


async def _consumer(stream: Any, named: str) -> None:
    async with asyncio.timeout(30):
        while not await stream.consumers_info(named):
            await asyncio.sleep(0.02)


async def _all_acknowledged(stream: Any, named: str) -> None:
    async with asyncio.timeout(30):
        while True:
            info = await stream.consumer_info(named, f"conclave-{named}")
            if not info.num_pending and not info.num_ack_pending:
                return
            await asyncio.sleep(0.05)
