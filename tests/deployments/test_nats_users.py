"""NATS' users, on a server with the configuration that `conclave up` writes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from deployments.settings import load_settings
from deployments.stack.parts import _nats_server, nats_config
from deployments.stack.ports import free_port
from tests.fakes.nats_flush import flushed

pytestmark = pytest.mark.servers

INBOX = "_INBOX_events"
OURS = (
    "requests.x",
    "requests.x.batch",
    "dead.requests.x",
    "answers.x.task.propose-0.a",
    "attempts.x.task.propose-0.a",
)
OURS += ("decisions.x.task", "deliberations.x.finished", "conclave.x", "$KV.conclave-deliberations.x", "$O.bodies.C.x")
SERVERS = (
    "$JS.API.INFO",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.PURGE.CONCLAVE_DECISIONS",
    "$SYS.REQ.SERVER.PING",
)
SERVERS += ("$JS.API.CONSUMER.CREATE.CONCLAVE_DECISIONS", "$JS.ACK.CONCLAVE_REQUESTS.x.1.1.1.1.1", "_INBOX.x", "_R_.x")
TOLD = ("agent.response.completed", "deliberation.started")


class Guest:
    """A client of the user for outside, and what it was refused."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.refused: list[str] = []

    async def refusals(self) -> list[str]:
        """What the server has refused since the last time."""
        await flushed(self.client)
        await asyncio.sleep(0.1)
        refused, self.refused = self.refused, []
        return refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its URLs: ours, and the guest's."""
    home = tmp_path_factory.mktemp("nats")
    port = free_port(24_300)
    ours, guests = f"nats://conclave:ours@127.0.0.1:{port}", f"nats://events:theirs@127.0.0.1:{port}"
    (home / "nats.conf").write_text(nats_config(ours, "interval", "theirs"))
    process = subprocess.Popen([str(_nats_server(load_settings({}))), "-c", "nats.conf"], cwd=home)
    yield ours, guests
    process.terminate()
    process.wait(30)


@pytest_asyncio.fixture
async def ours(server: tuple[str, str]) -> AsyncGenerator[Client, None]:
    """A client of our own parts."""
    client = await nats.connect(server[0], max_reconnect_attempts=50, reconnect_time_wait=0.1)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def guest(server: tuple[str, str], ours: Client) -> AsyncGenerator[Guest, None]:
    """A client of somebody outside."""
    found = Guest(Client())

    async def refused(error: Exception) -> None:
        found.refused.append(str(error))

    await found.client.connect(server[1], inbox_prefix=INBOX.encode(), error_cb=refused)
    yield found
    await found.client.close()


async def stream(client: Client, name: str, *subjects: str) -> Any:
    """How many messages it keeps; made where it is missing."""
    jetstream = client.jetstream()
    await jetstream.add_stream(name=name, subjects=list(subjects))

    async def count() -> int:
        return int((await jetstream.stream_info(name)).state.messages)

    return count


@pytest.mark.parametrize("subject", [*OURS, *SERVERS, *TOLD])
async def test_a_guest_publishes_nothing_of_ours_nor_the_servers(ours: Client, guest: Guest, subject: str) -> None:
    """Each is refused by name, and nobody hears it."""
    heard = await ours.subscribe(subject)
    await flushed(ours)
    await guest.client.publish(subject, b"{}")
    assert [text.lower() for text in await guest.refusals()] == [
        f'nats: permissions violation for publish to "{subject.lower()}"'
    ]
    assert heard.pending_msgs == 0
    await heard.unsubscribe()


@pytest.mark.parametrize("subject", ["requests.>", "decisions.*.*", "_INBOX.>", "$JS.>", "$KV.>", "answers.a.b.c.d"])
async def test_a_guest_hears_nothing_of_ours(guest: Guest, subject: str) -> None:
    """By name or by a wildcard of it."""
    await guest.client.subscribe(subject)
    assert "permissions violation for subscription" in " ".join(await guest.refusals())


async def test_a_guest_hears_what_is_told_and_itself(ours: Client, guest: Guest) -> None:
    """All that there is, and among it nothing that is ours."""
    heard: list[str] = []

    async def note(message: Any) -> None:
        heard.append(message.subject)

    await guest.client.subscribe(">", cb=note)
    await flushed(guest.client)
    for subject in (*OURS, "_INBOX.abc", *TOLD):
        await ours.publish(subject, b"{}")
    await flushed(ours)
    await guest.client.publish("orders.new", b"{}")
    await guest.refusals()
    assert sorted(heard) == sorted((*TOLD, "orders.new"))


async def test_an_event_of_a_guest_reaches_our_listeners_and_a_stream_that_keeps_it(ours: Client, guest: Guest) -> None:
    """Under the subject that it has, and the guest gets the stream's acknowledgement."""
    kept = await stream(ours, "PLANS", "plans.>")
    heard = await ours.subscribe("plans.>")
    await flushed(ours)
    told = json.loads((await guest.client.request("plans.new", b"1", timeout=10)).data)
    assert (told["stream"], await kept()) == ("PLANS", 1)
    message = await heard.next_msg(10)
    assert (message.subject, message.data) == ("plans.new", b"1")
    await guest.client.publish("plain.event", b"2")
    assert await guest.refusals() == []


@pytest.mark.parametrize("reply", ["decisions.x.task", "requests.x", "$JS.API.STREAM.PURGE.RECORD", "_INBOX.x"])
async def test_a_streams_acknowledgement_writes_nothing_of_ours(ours: Client, guest: Guest, reply: str) -> None:
    """It is published by the server, whatever the guest may publish, to the subject that the guest names."""
    record = await stream(ours, "RECORD", "decisions.>", "requests.>")
    kept = await stream(ours, "PLANS", "plans.>")
    await ours.jetstream().publish("decisions.first.task", b"{}")
    before, stored, heard = await record(), await kept(), await ours.subscribe(reply)
    await flushed(ours)
    await guest.client.publish("plans.evil", b"{}", reply=reply)
    await guest.client.publish("nobody.listens", b"{}", reply=reply)
    await guest.refusals()
    assert (await record(), await kept()) == (before, stored + 1)
    assert heard.pending_msgs == 0
    await heard.unsubscribe()


@pytest.mark.parametrize("user", ["", "conclave@", "conclave:theirs@", "events:ours@", "events:@", "admin:admin@"])
async def test_without_the_right_password_nobody_gets_in(server: tuple[str, str], ours: Client, user: str) -> None:
    """Not as either user, and not without."""
    at = server[0].rpartition("@")[2]

    async def ignore(_error: Exception) -> None:
        """Told by the exception."""

    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        await nats.connect(f"nats://{user}{at}", allow_reconnect=False, max_reconnect_attempts=0, error_cb=ignore)


def test_what_was_kept_before_there_were_accounts_is_kept_on(tmp_path: Path) -> None:
    """It moves to our account once."""
    from deployments.stack.paths import StackPaths

    paths = StackPaths.of(tmp_path)
    before = tmp_path / "nats/jetstream/$G/streams/CONCLAVE_DECISIONS"
    before.mkdir(parents=True)
    paths.adopt_record()
    paths.adopt_record()
    assert (tmp_path / "nats/jetstream/CONCLAVE/streams/CONCLAVE_DECISIONS").is_dir()
    assert not before.exists()
