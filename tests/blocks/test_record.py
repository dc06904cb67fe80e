"""The record on a real JetStream: the first final event stands, and nothing is lost when the server dies."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from tests.fakes.nats_flush import flushed

pytestmark = pytest.mark.servers

LARGE = "x" * 2_500_000
"""Above the server's max_payload of 1 MiB, in more than one part."""


def answer_subject(new_id: str, member: str = "m1") -> str:
    """Where a member's final answer stands."""
    return f"answers.{new_id}.task.propose-0.{member}"


async def raw(url: str, subject: str) -> Any:
    """The newest message on a subject as the server keeps it."""
    client = await nats.connect(url)
    try:
        return await client.jetstream().get_msg("CONCLAVE_ANSWERS", subject=subject, direct=True)
    finally:
        await client.close()


async def opened(url: str, **fields: Any) -> Any:
    """The record of a server of the test's own; needs `own_connections`."""
    from blocks.jetstream import JetStream

    return await JetStream(servers=[url], **fields).record()


# --- the fence ------------------------------------------------------------------------------------


async def test_the_fence_holds_at_any_age(nats_server: Any, own_connections: None, new_id: str) -> None:
    """It does not lean on the window in which JetStream remembers ids."""
    async with nats_server() as server:
        client = await nats.connect(server.url)
        window = StreamConfig(
            name="CONCLAVE_ANSWERS", subjects=["answers.>", "attempts.>"], allow_direct=True, duplicate_window=0.1
        )
        await client.jetstream().add_stream(window)
        await client.close()
        record = await opened(server.url)
        await record.publish_final(answer_subject(new_id), "e", "answer", {"by": 1})
        await asyncio.sleep(0.5)
        second = await record.publish_final(answer_subject(new_id), "e", "answer", {"by": 2})

    assert second.body == {"by": 1}


# --- bodies ---------------------------------------------------------------------------------------


async def test_events_carry_the_attributes_of_cloudevents(record: Any, stack: Any, new_id: str) -> None:
    """In the headers, so that the body is plain JSON."""
    await record.publish_final(answer_subject(new_id), f"{new_id}:task:propose-0:m1", "answer", {"text": "grün"})
    message = await raw(os.environ["NATS_URL"], answer_subject(new_id))

    expected = {
        "ce-specversion": "1.0",
        "ce-id": f"{new_id}:task:propose-0:m1",
        "ce-type": "conclave.answer",
        "ce-source": f"/conclave/deliberations/{new_id}",
        "ce-schemaversion": "1",
        "content-type": "application/json",
    }
    assert expected.items() <= message.headers.items()
    assert {"ce-time", "ce-traceparent"} <= set(message.headers)
    assert message.data == '{"text":"grün"}'.encode()


async def test_a_large_body_is_kept_beside_the_stream_and_read_whole(record: Any, stack: Any, new_id: str) -> None:
    """The event carries the reference, and every way of reading follows it."""
    subject, body = answer_subject(new_id), {"by": 1, "content": LARGE}
    assert await record.publish_final(subject, "e", "answer", body) is None
    message = await raw(os.environ["NATS_URL"], subject)
    following = record.follow(subject)
    followed = await anext(following)
    await following.aclose()

    assert message.headers["ce-dataref"].startswith("nats-object://conclave-bodies/")
    assert message.data == b"{}"
    assert (await record.last(subject)).body == body
    assert (await record.next(subject, 0)).body == body
    assert followed.body == body


async def test_a_listener_on_core_nats_hears_announcements_and_events(record: Any, stack: Any, new_id: str) -> None:
    """Subjects as they pass, and the seed's listeners get the whole body."""
    client, heard = await nats.connect(os.environ["NATS_URL"]), []
    old = await client.subscribe("agent.response.completed")
    await flushed(client)
    listening = await record.listen(f"decisions.{new_id}.*", heard.append)
    await record.publish_final(f"decisions.{new_id}.task", "e", "decision", {})
    await record.announce("agent.response.completed", {"task_id": new_id})
    message = await old.next_msg(timeout=20)
    while new_id.encode() not in message.data:
        message = await old.next_msg(timeout=20)
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.01)
    await listening.unsubscribe()
    await client.close()

    assert heard == [f"decisions.{new_id}.task"]
    assert message.data == f'{{"task_id":"{new_id}"}}'.encode()


# --- following ------------------------------------------------------------------------------------


# --- status ---------------------------------------------------------------------------------------


# --- the server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        StreamConfig(name="CONCLAVE_ANSWERS", subjects=["other.>"], allow_direct=True),
        StreamConfig(name="CONCLAVE_ANSWERS", subjects=["answers.>", "attempts.>"], allow_direct=False),
    ],
)
async def test_a_stream_that_keeps_something_else_is_named(
    nats_server: Any, own_connections: None, config: StreamConfig
) -> None:
    """The error says what it has and what it would need; the stream stays as it was."""
    from blocks.exceptions import RecordMisconfigured

    async with nats_server() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(config)
        with pytest.raises(RecordMisconfigured, match=r"stream CONCLAVE_ANSWERS has .*needs \['answers.>'"):
            await opened(server.url)
        found = (await client.jetstream().stream_info("CONCLAVE_ANSWERS")).config
        await client.close()

    assert (found.subjects, bool(found.allow_direct)) == (config.subjects, bool(config.allow_direct))


async def test_a_stream_whose_subjects_are_taken_is_named(nats_server: Any, own_connections: None) -> None:
    """Another stream listens where ours should."""
    from blocks.exceptions import RecordMisconfigured

    async with nats_server() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="THEIRS", subjects=["decisions.>"])
        await client.close()
        with pytest.raises(RecordMisconfigured, match="stream CONCLAVE_DECISIONS cannot be created: subjects overlap"):
            await opened(server.url)


async def test_the_streams_are_made_once_by_many(nats_server: Any, own_connections: None) -> None:
    """Processes that start together find one another's."""
    from blocks.connections import shared
    from blocks.jetstream import JetStream

    async with nats_server() as server:
        block = JetStream(servers=[server.url], retention_days=2)
        records = await asyncio.gather(*(shared(number, block._connect) for number in range(5)))
        assert await asyncio.gather(*(record.statuses.read("none") for record in records)) == [None] * 5
        client = await nats.connect(server.url)
        info = [(await client.jetstream().stream_info(f"CONCLAVE_{name}")).config for name in ("ANSWERS", "REQUESTS")]
        await client.close()

    assert [(config.max_age, config.storage, config.retention) for config in info] == [
        (2 * 86_400, "file", "limits"),
        (365 * 86_400, "file", "workqueue"),  # how long a request may wait, whatever is kept of answers
    ]


async def test_no_server_is_told_at_once_with_its_address(own_connections: None) -> None:
    """Long before the patience ends, and without the credentials of its URL."""
    from blocks.exceptions import RecordUnavailable
    from blocks.jetstream import JetStream

    nobody = JetStream(servers=["nats://joe:hush-hush@127.0.0.1:9", "nats://127.0.0.1:10"], connect_timeout_s=600)
    async with asyncio.timeout(60):
        with pytest.raises(RecordUnavailable) as caught:
            await nobody.record()

    text = str(caught.value)
    assert "no NATS server answers at nats://127.0.0.1:9, nats://127.0.0.1:10: " in text
    assert "Connect call failed" in text
    assert "hush" not in repr(caught.value)


async def test_a_server_that_was_away_is_found_later(nats_server: Any, own_connections: None) -> None:
    """A failed connection is not kept."""
    from blocks.exceptions import RecordUnavailable
    from blocks.jetstream import JetStream

    async with nats_server() as server:
        await server.kill()
        block = JetStream(servers=[server.url])
        with pytest.raises(RecordUnavailable):
            await block.record()
        await server.start()
        assert await (await block.record()).statuses.read("none") is None


async def test_credentials_of_an_address_are_kept_as_secrets(nats_server: Any, own_connections: None) -> None:
    """They open the server, and neither the block's address nor an error shows them."""
    from blocks.exceptions import RecordRefused, RecordUnavailable
    from blocks.jetstream import JetStream

    async with nats_server("--user", "joe", "--pass", "hush/hush") as server:
        right = JetStream(servers=[f"nats://joe:hush%2Fhush@127.0.0.1:{server.port}"])
        wrong = JetStream(servers=[server.url], user="joe", password="hush-hush")
        with pytest.raises(RecordUnavailable, match="is it enabled"):
            await right.record()
        async with asyncio.timeout(30):
            with pytest.raises(
                RecordRefused, match=r"NATS at .* refuses our credentials: .*Authorization Violation"
            ) as caught:
                await wrong.record()

    assert right.servers == [server.url]
    assert "hush" not in f"{right!r} {right.model_dump(mode='json')} {caught.value!r}"
    assert right.password.get_secret_value() == "hush/hush"


async def test_a_token_in_an_address_is_kept_as_a_secret(stack: Any) -> None:
    """A name without a password is a token."""
    from blocks.jetstream import JetStream

    block = JetStream(servers=["nats://hush@one:4222", "nats://two:4222"])

    assert block.servers == ["nats://one:4222", "nats://two:4222"]
    assert block.token.get_secret_value() == "hush"
    assert (block.user, block.password) == (None, None)


async def test_a_block_is_pointed_at_other_servers(stack: Any) -> None:
    """What was set stays, and credentials of the new address take the place of the old."""
    from blocks.jetstream import JetStream

    block = JetStream(servers=["nats://joe:hush@one:4222"], replicas=3)
    moved, other = block.at(["nats://two:4222"]), block.at(["nats://ann:psst@two:4222"])

    assert (moved.servers, moved.user, moved.replicas) == (["nats://two:4222"], "joe", 3)
    assert (other.servers, other.user, other.password.get_secret_value()) == (["nats://two:4222"], "ann", "psst")


# --- keys -----------------------------------------------------------------------------------------


async def test_whoever_differs_in_a_credential_shares_no_connection(
    own_connections: None, nats_server: Callable[..., AbstractAsyncContextManager[Any]]
) -> None:
    """A wrong password is refused although a connection with the right one is open, and is one error of ours."""
    from blocks.exceptions import RecordRefused
    from blocks.jetstream import JetStream

    async with nats_server("-js", "-sd", tempfile.mkdtemp(), "--user", "joe", "--pass", "hush") as server:
        right = JetStream(servers=[server.url], user="joe", password="hush")
        record = await right.record()
        assert await JetStream(servers=[server.url], user="joe", password="hush").record() is record
        for wrong in ({"user": "joe", "password": "hash"}, {"token": "hush"}, {}):
            with pytest.raises(RecordRefused, match="refuses our credentials") as caught:
                await JetStream(servers=[server.url], **wrong).record()
            assert "hash" not in str(caught.value)


async def test_the_servers_time_is_told_to_many_at_once(record: Any) -> None:
    """Each of them notes something under one key, which keeps only the newest."""
    from blocks.record.installation import server_time

    times = await asyncio.gather(*(server_time(record) for _ in range(50)))
    assert all(time.tzinfo is not None for time in times)


async def test_a_body_that_is_gone_cannot_be_read_and_is_nobody_elses(record: Any, new_id: str) -> None:
    """The same body under two subjects is kept twice, so that one of them going takes nothing from the other."""
    from blocks.exceptions import RecordUnreadable

    names = [await record.bodies.keep(owner, b"{}" * 10) for owner in (f"requests.{new_id}", f"requests.{new_id}-b")]
    assert len(set(names)) == 2
    await record.bodies._objects.delete(names[0])
    with pytest.raises(RecordUnreadable):
        await record.bodies.read(names[0])
    assert await record.bodies.read(names[1]) == b"{}" * 10


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_body_that_lacks_a_part_cannot_be_read(
    record: Any, new_id: str, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Its metadata stands; without any chunk a client would wait for ever, and nobody would know that it is gone."""
    import blocks.record.bodies
    from blocks.exceptions import RecordUnreadable

    monkeypatch.setattr(blocks.record.bodies, "BODY_S", 0.3)
    name = await record.bodies.keep(new_id, b"x" * 300_000)
    info = await record.bodies._objects.get_info(name)
    assert (info.chunks, await record.bodies.read(name)) == (3, b"x" * 300_000)
    await record.jetstream.purge_stream(
        "OBJ_conclave-bodies", subject=f"$O.conclave-bodies.C.{info.nuid}", keep=kept or None
    )
    with pytest.raises(RecordUnreadable, match="not in the object store any more"):
        await record.bodies.read(name)
