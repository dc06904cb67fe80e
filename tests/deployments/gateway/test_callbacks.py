"""Callbacks: the end of a deliberation is told to whoever asked for that, signed, until it arrives or is given up."""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
import socket
import threading
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from standardwebhooks import WebhookVerificationError

from blocks.exceptions import RecordUnavailable
from blocks.public_http import is_allowed, public_session, read_networks
from blocks.record import callback_queue as queue
from blocks.record import subjects
from deployments.gateway import callbacks
from tasks.access import signing
from tasks.callbacks import deliveries
from tasks.callbacks.deliveries import SCHEDULE_S, Delivery, Try, pause_s
from tasks.callbacks.targets import UrlTarget
from tasks.deliberations.councils import write_mirror
from tasks.deliberations.submission import id_for
from tests.deployments.gateway.conftest import MEMORY
from tests.deployments.gateway.parts import PATH, Gateway, Run, council, gateway_at
from tests.deployments.gateway.receiver import Receiver, answer, listening_app, receiving

pytestmark = pytest.mark.servers

LOOPBACK = "127.0.0.0/8"
ID = "task-1"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule in hundredths of a millisecond, so that its days pass."""
    monkeypatch.setattr(deliveries, "SCHEDULE_S", tuple(pause / 1e5 for pause in SCHEDULE_S))


@pytest_asyncio.fixture
async def receiver() -> AsyncGenerator[Receiver, None]:
    async with receiving() as found:
        yield found


@pytest.fixture
def settings() -> dict[str, Any]:
    """A gateway that may tell this machine."""
    return {"callback_networks": LOOPBACK}


async def secret_of(gateway: Gateway, owner: str = "tester") -> str:
    return (await signing.create(gateway.record, owner)).secret


async def ended(gateway: Gateway, url: str, one: str = ID, **asked: Any) -> None:
    """Ask for a deliberation that tells a URL of its end, and let it end."""
    told = await gateway.post(id=one, callback_url=url, **asked)
    assert told.status == 202, told.text
    await Run(gateway.record, one, **asked).whole()


async def listed(gateway: Gateway, one: str = ID) -> list[Any]:
    found: list[Any] = (await gateway.get(f"{PATH}/{one}/deliveries")).body["deliveries"]
    return found


async def until(gateway: Gateway, state: str, one: str = ID, tries: int = 1) -> Any:
    """The first delivery, once it has this state and so many tries."""
    async with asyncio.timeout(20):
        while True:
            found = await listed(gateway, one)
            if found and found[0]["state"] == state and len(found[0]["tries"]) >= tries:
                return found[0]
            await asyncio.sleep(0.02)


# --- what is told ---------------------------------------------------------------------------------


async def test_an_end_is_told_once_signed_and_thin(either: Gateway, receiver: Receiver) -> None:
    secret = await secret_of(either)
    await ended(either, receiver.url, metadata={"ticket": 7})
    (arrival,) = await receiver.heard()
    event = arrival.checked(secret)
    assert event["type"] == "deliberation.completed"
    assert datetime.fromisoformat(event["timestamp"]).tzinfo is not None
    data = event["data"]
    assert (data["id"], data["status"], data["council"], data["winner_id"]) == (ID, "COMPLETED", "dev", "m1")
    assert data["metadata"] == {"ticket": 7}
    assert data["links"]["self"] == f"{PATH}/{ID}"
    assert "decision" not in data
    assert len(arrival.body) < 20_000
    assert arrival.headers["webhook-id"] == f"{ID}-1"
    found = await until(either, "delivered")
    assert (found["kind"], found["target"], found["next_at"]) == ("url", receiver.url, None)
    assert [one["status"] for one in found["tries"]] == [204]
    await asyncio.sleep(0.2)
    assert len(receiver.arrivals) == 1


async def test_the_receiver_of_the_docs_takes_what_is_signed_and_nothing_else(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALLBACK_SECRET", await secret_of(gateway))
    file = Path("docs/examples/receiver.py")
    assert file.read_text().partition('"""\n\n')[2] in Path("docs/api.md").read_text()
    async with listening_app(runpy.run_path(str(file))["app"]) as port:
        url = f"http://127.0.0.1:{port}/ended"
        await ended(gateway, url)
        await until(gateway, "delivered")
        async with gateway.session.post(url, json={"type": "deliberation.completed"}) as forged:
            assert forged.status >= 400
    assert capsys.readouterr().out == f"deliberation.completed {ID}\n"


async def test_a_long_metadata_is_left_out_and_the_body_stays_thin(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    await ended(gateway, receiver.url, metadata={"long": "x" * 50_000})
    (arrival,) = await receiver.heard()
    assert "metadata" not in json.loads(arrival.body)["data"]
    assert len(arrival.body) < 20_000


async def test_links_are_whole_where_the_gateways_own_address_is_known(serve: Any, receiver: Receiver) -> None:
    async with serve(callback_networks=LOOPBACK, public_url="https://council.example.org/") as gateway:
        await secret_of(gateway)
        await ended(gateway, receiver.url)
        (arrival,) = await receiver.heard()
    assert json.loads(arrival.body)["data"]["links"]["self"] == f"https://council.example.org{PATH}/{ID}"


async def test_each_of_two_secrets_signs_until_one_is_revoked(gateway: Gateway, receiver: Receiver) -> None:
    old, new = await secret_of(gateway), await secret_of(gateway)
    with pytest.raises(signing.SigningError, match="owner: 'tester' has 2 secrets"):
        await secret_of(gateway)
    await ended(gateway, receiver.url)
    (arrival,) = await receiver.heard()
    assert arrival.checked(old) == arrival.checked(new)
    oldest, _ = await signing.secrets_of(gateway.record, "tester")
    assert await signing.revoke(gateway.record, oldest.id) == "tester"
    await ended(gateway, receiver.url, "task-2")
    _, later = await receiver.heard(2)
    later.checked(new)
    with pytest.raises(WebhookVerificationError):
        later.checked(old)


async def test_each_owner_has_a_secret_of_its_own(gateway: Gateway, receiver: Receiver) -> None:
    ours = await secret_of(gateway)
    token = await gateway.new_token(owner="team-a")
    refused = await gateway.post(token=token, callback_url=receiver.url)
    assert (refused.status, refused.problem["field"]) == (422, "callback_url")
    assert "conclave secrets create team-a" in refused.problem["detail"]
    theirs = await secret_of(gateway, "team-a")
    assert (await gateway.post(token=token, id=ID, callback_url=receiver.url)).status == 202
    await Run(gateway.record, ID, owner="team-a").whole()
    (arrival,) = await receiver.heard()
    arrival.checked(theirs)
    with pytest.raises(WebhookVerificationError):
        arrival.checked(ours)


async def test_a_council_has_a_callback_of_its_own_signed_by_the_homes_secret(
    gateway: Gateway, receiver: Receiver
) -> None:
    secret = await secret_of(gateway, "home")
    await secret_of(gateway)
    spec = council().model_copy(update={"callback_url": receiver.url.replace("/hook", "/council")})
    await write_mirror(gateway.record, {"dev": spec})
    await Run(gateway.record, "by-prefect", owner=None).whole()
    (arrival,) = await receiver.heard()
    arrival.checked(secret)
    await ended(gateway, receiver.url)
    await receiver.heard(3)
    await until(gateway, "delivered")
    assert [one["target"].rpartition("/")[2] for one in await listed(gateway)] == ["hook", "council"]


def test_a_councils_identity_is_not_changed_by_where_its_ends_are_told() -> None:
    assert council().digest == council().model_copy(update={"callback_url": "https://example.org/"}).digest


async def test_who_asks_after_the_end_is_told_too(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    assert (await gateway.post(id=ID)).status == 202
    await Run(gateway.record, ID).whole()
    again = await gateway.post(id=ID, callback_url=receiver.url)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    await receiver.heard()


async def test_who_asks_in_the_moment_of_the_end_is_told(gateway: Gateway, receiver: Receiver) -> None:
    """Who follows the ends has passed it already, and its key does not say yet that it has ended."""
    await secret_of(gateway)
    assert (await gateway.post(id=ID)).status == 202
    run = Run(gateway.record, ID)
    await run.begin()
    await run.finish()
    await asyncio.sleep(0.2)
    await gateway.record.statuses.merge(ID, {"status": "IN_PROGRESS"})
    assert (await gateway.post(id=ID, callback_url=receiver.url)).status == 202
    await receiver.heard()


async def test_a_repeat_with_another_url_is_refused_and_tells_nobody(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    first = await gateway.post("key-1", callback_url=receiver.url)
    other = await gateway.post("key-1", callback_url=receiver.url + "/other")
    assert (other.status, other.problem["field"]) == (422, "callback_url")
    same = await gateway.post("key-1", callback_url=receiver.url)
    assert same.body["id"] == first.body["id"]
    await Run(gateway.record, first.body["id"]).whole()
    await receiver.heard()
    assert len(await listed(gateway, first.body["id"])) == 1


async def test_who_may_not_have_an_id_gets_no_callback_to_it(gateway: Gateway, receiver: Receiver) -> None:
    """What is refused leaves nothing behind that a later owner of the id would be told by."""
    await secret_of(gateway, "team-a")
    assert (await gateway.post(id=ID)).status == 202
    stranger = await gateway.new_token(owner="team-a")
    assert (await gateway.post(id=ID, token=stranger, callback_url=receiver.url)).status == 422
    await Run(gateway.record, ID).whole()
    await asyncio.sleep(0.3)
    assert receiver.arrivals == []
    assert await listed(gateway) == []


async def test_who_may_only_read_adds_no_callback_to_another_owners(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    await secret_of(gateway, "team-a")
    assert (await gateway.post(id=ID)).status == 202
    reader = await gateway.new_token("submit", "read", owner="team-a")
    refused = await gateway.post(id=ID, token=reader, callback_url=receiver.url + "/theirs")
    assert (refused.status, refused.problem["field"]) == (403, "callback_url")
    await ended(gateway, receiver.url)
    await receiver.heard()
    assert [one["target"] for one in await listed(gateway)] == [receiver.url]


async def test_the_id_of_anothers_key_can_be_neither_guessed_nor_used(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    stranger = await gateway.new_token(owner="team-a")
    ours = (await gateway.post("order-17")).body["id"]
    namespace = uuid.UUID("6f0d3b0e-5d0c-5a53-9a0c-8f7a3c1e2b44")
    assert ours != str(uuid.uuid5(namespace, "tester:order-17"))
    theirs = id_for(gateway.record.installation, "tester", "order-18")
    assert (await gateway.post(id=theirs, token=stranger)).status == 202
    owner = await gateway.new_token(owner="tester")
    refused = await gateway.post("order-18", token=owner, callback_url=receiver.url)
    assert (refused.status, refused.problem["type"]) == (422, "idempotency-key-reused")


async def test_an_end_that_cannot_be_followed_holds_up_no_other(either: Gateway, receiver: Receiver) -> None:
    """One with an impossible figure, and one whose plan is no JSON."""
    await secret_of(either)
    await Run(either.record, "broken").begin()
    body = {"task_id": "broken", "status": "COMPLETED", "usage": {"prompt_tokens": "x"}}
    await either.record.publish_final("deliberations.broken.finished", "broken:finished", "finished", body)
    await either.record.store("deliberations.unread.plan", b"no JSON", {"Nats-Msg-Id": "unread"})
    body = {"task_id": "unread", "status": "COMPLETED"}
    await either.record.publish_final("deliberations.unread.finished", "unread:finished", "finished", body)
    await ended(either, receiver.url)
    await receiver.heard()


@pytest.mark.parametrize("asks", [True, False])
async def test_who_asked_for_an_earlier_one_of_the_same_id_is_not_told(
    gateway: Gateway, receiver: Receiver, asks: bool
) -> None:
    """The streams have let the earlier one go, and somebody else uses its id."""
    await secret_of(gateway)
    long_ago = datetime.now(UTC) - timedelta(days=20)
    target = UrlTarget(url=receiver.url + "/earlier", secrets_of="tester")
    old = {"targets": [target.model_dump(mode="json")], "since": long_ago.isoformat()}
    delivery = Delivery(deliberation=ID, number=1, target=target, state="delivered", created_at=long_ago)
    await gateway.record.callbacks.put(ID, old)
    await gateway.record.callbacks.put(f"{ID}.1", delivery.model_dump(mode="json"))
    if asks:
        assert (await gateway.post(id=ID, callback_url=receiver.url)).status == 202
    else:
        assert (await gateway.post(id=ID)).status == 202
    await Run(gateway.record, ID).whole()
    if not asks:
        await asyncio.sleep(0.3)
        assert receiver.arrivals == []
        assert (await gateway.post(id=ID, callback_url=receiver.url)).status == 202
    assert len(await receiver.heard()) == 1
    assert [one["target"] for one in await listed(gateway)] == [receiver.url]


# --- where it may go ------------------------------------------------------------------------------

PRIVATE = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "[ff02::1]"),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]", "[2001:db8::1]", "[2001:0:7f00:1::]"),
)


@pytest.mark.parametrize("host", PRIVATE)
async def test_an_address_that_is_not_everybodys_is_refused_at_once(serve: Any, host: str) -> None:
    async with serve() as gateway:
        await secret_of(gateway)
        refused = await gateway.post(callback_url=f"http://{host}:9/hook")
        assert (refused.status, refused.problem["field"]) == (422, "callback_url")
        assert await gateway.queued() == []


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_an_address_of_everybodys_is_allowed(host: str) -> None:
    assert is_allowed(ip_address(host), ())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://example.org/", "http or https"),
        ("example.org", "http or https"),
        ("http://", "http or https"),
        ("https://user:pass@example.org/", "no user"),
        ("https://example.org/#x", "fragment"),
        ("https://example.org/\n", "printable"),
        ("https://exämple.org/", "ASCII"),
        ("https://[::1", "no URL"),
        ("https://example.org:0/", "http or https"),
        ("https://example.org:99999/", "no URL"),
        ("x" * 3000, "2000"),
    ],
)
async def test_what_is_no_callback_url_is_told(gateway: Gateway, url: str, told: str) -> None:
    refused = await gateway.post(callback_url=url)
    assert (refused.status, refused.problem["field"]) == (422, "callback_url")
    assert told in refused.problem["detail"]


async def test_a_name_is_looked_at_where_the_socket_is_made(serve: Any, receiver: Receiver) -> None:
    async with serve() as gateway:
        await secret_of(gateway)
        await ended(gateway, receiver.url.replace("127.0.0.1", "localhost"))
        found = await until(gateway, "pending")
    assert "CONCLAVE_CALLBACK_NETWORKS" in found["tries"][0]["detail"]
    assert not {"127.0.0.1", "::1"} & set(found["tries"][0]["detail"].split())  # what a name means here is not told
    assert receiver.arrivals == []


async def test_a_name_that_means_another_address_at_the_second_look_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name bound anew between two looks; the first one is an address that is allowed here."""
    looks = ["127.0.0.2", "127.0.0.1"]
    port = int(receiver.url.split(":")[2].split("/")[0])

    def getaddrinfo(_host: Any, at: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (looks.pop(0), int(at)))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with public_session(read_networks("127.0.0.2/32"), 4) as session:
        url = f"http://rebound.example:{port}/"
        with pytest.raises(aiohttp.ClientConnectorError) as tried:  # nobody listens at 127.0.0.2
            await session.post(url)
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.post(url)
    assert isinstance(tried.value.os_error, ConnectionRefusedError)
    assert isinstance(refused.value.os_error, PermissionError)
    assert looks == []
    assert receiver.arrivals == []


async def test_no_proxy_of_the_environment_is_asked(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await receiver.heard()


@pytest.mark.parametrize("to", ["http://127.0.0.1:9/", "http://[::ffff:127.0.0.1]:9/", "/elsewhere"])
async def test_a_redirect_is_a_failure_and_not_followed(gateway: Gateway, receiver: Receiver, to: str) -> None:
    receiver.answers = [answer(302, Location=to)]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    found = await until(gateway, "pending")
    assert found["tries"][0]["status"] == 302
    assert "redirects are not followed" in found["tries"][0]["detail"]
    assert len(receiver.arrivals) == 1


# --- until it arrives -----------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
async def test_what_fails_is_tried_again_under_the_same_id(either: Gateway, receiver: Receiver) -> None:
    receiver.answers = [answer(500), answer(503), answer(200)]
    secret = await secret_of(either)
    await ended(either, receiver.url)
    arrivals = await receiver.heard(3)
    assert {arrival.headers["webhook-id"] for arrival in arrivals} == {f"{ID}-1"}
    for arrival in arrivals:
        arrival.checked(secret)
    found = await until(either, "delivered", tries=3)
    assert [one["status"] for one in found["tries"]] == [500, 503, 200]


@pytest.mark.usefixtures("quick")
async def test_what_fails_for_days_is_given_up_and_can_be_sent_again(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answers = [answer(500)]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    found = await until(gateway, "failed", tries=10)
    assert len(found["tries"]) == 1 + len(SCHEDULE_S)
    assert found["next_at"] is None
    receiver.answers = [answer(200)]
    sent = await gateway.ask("POST", f"{PATH}/{ID}/deliveries/1")
    assert (sent.status, sent.body["state"]) == (202, "pending")
    await until(gateway, "delivered", tries=11)
    assert receiver.arrivals[-1].headers["webhook-id"] == f"{ID}-1"


def test_a_day_of_failures_by_a_moved_clock() -> None:
    """The pauses of Standard Webhooks' table, each up to a fifth longer; then it is given up."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    target = UrlTarget(url="https://example.org/", secrets_of="home")
    one = Delivery(deliberation=ID, number=1, target=target, created_at=now, next_at=now)
    waited = []
    while one.next_at is not None:
        waited.append(one.next_at - now)
        now = one.next_at
        one = one.after(Try(at=now, verdict="failed", status=500), chance=1.0)
    assert waited == [timedelta(0), *(timedelta(seconds=pause * 1.2) for pause in SCHEDULE_S)]
    assert (one.state, len(one.tries)) == ("failed", 10)


@pytest.mark.parametrize(
    ("asked_s", "pause"),
    [(None, 5.0), (1.0, 5.0), (600.0, 600.0), (1e9, 86_400.0), (-3.0, 5.0), (float("inf"), 86_400)],
)
def test_a_pause_that_is_asked_for_is_kept_within_a_day(asked_s: float | None, pause: float) -> None:
    assert pause_s(0, asked_s, 0.0) == pause


async def test_retry_after_is_kept(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answers = [answer(429, Retry_After="1000")]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    found = await until(gateway, "pending")
    pause = datetime.fromisoformat(found["next_at"]) - datetime.fromisoformat(found["tries"][0]["at"])
    assert pause >= timedelta(seconds=1000)


async def test_410_ends_it(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answers = [answer(410)]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    found = await until(gateway, "failed")
    assert [one["verdict"] for one in found["tries"]] == ["gone"]
    assert found["next_at"] is None


async def test_a_target_that_hangs_is_given_up_and_holds_up_no_other(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "TRY_S", 1.0)
    monkeypatch.setattr(callbacks, "PER_HOST", 2)
    monkeypatch.setattr(callbacks, "AT_ONCE", 4)
    monkeypatch.setattr(callbacks, "BUSY_S", (0.05, 0.1))
    await secret_of(gateway)
    async with receiving() as hanging:
        hanging.hang_s = 30.0
        for number in range(6):
            await ended(gateway, hanging.url, f"hangs-{number}")
        await ended(gateway, receiver.url.replace("127.0.0.1", "localhost"))
        await receiver.heard()
        found = await until(gateway, "pending", "hangs-0")
    assert "no answer within 1 s" in found["tries"][0]["detail"]


async def test_names_that_nobody_answers_for_hold_up_nothing_else(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for a name cannot be ended, and the threads of the loop are for everybody."""
    answered, look_up = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        if str(host).endswith(".hangs.example"):
            answered.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    await secret_of(gateway, "team-a")
    token = await gateway.new_token(owner="team-a")
    await secret_of(gateway)
    try:
        for number in range(40):
            one = f"hangs-{number}"
            told = await gateway.post(id=one, token=token, callback_url=f"http://{one}.hangs.example/")
            assert told.status == 202
            await Run(gateway.record, one, owner="team-a").whole()
        await ended(gateway, receiver.url.replace("127.0.0.1", "localhost"))
        await receiver.heard()
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        answered.set()


@pytest.mark.parametrize(
    "url", ["http://EXAMPLE.org/a", "http://example.org:8080/", "http://example.org./", "https://example.org/"]
)
def test_a_host_is_the_same_however_it_is_written(url: str) -> None:
    now = datetime.now(UTC)
    one = Delivery(deliberation=ID, number=1, target=UrlTarget(url=url, secrets_of="home"), created_at=now)
    assert callbacks._host(one) == "host example.org"


def test_of_two_tries_at_once_the_one_that_arrived_counts() -> None:
    """As where it is sent again while a try is under way."""
    now = datetime.now(UTC)
    target = UrlTarget(url="https://example.org/", secrets_of="home")
    one = Delivery(deliberation=ID, number=1, target=target, created_at=now, next_at=now)
    arrived = one.after(Try(at=now, verdict="delivered", status=200))
    late = Try(at=now, verdict="failed", status=409)
    after = arrived.after(late)
    assert (after.state, after.next_at, len(after.tries)) == ("delivered", None, 2)
    assert after.after(late) == after  # written down already: its acknowledgement was lost


async def test_what_is_due_is_not_asked_for_twice(gateway: Gateway, receiver: Receiver) -> None:
    """Whoever sends again without end sends one after another."""
    receiver.hang_s = 1.0
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await receiver.heard()
    for _ in range(50):
        assert (await gateway.ask("POST", f"{PATH}/{ID}/deliveries/1")).status == 202
    await until(gateway, "delivered")
    assert len(receiver.arrivals) == 1


async def test_nobody_at_home_is_told_as_that(gateway: Gateway) -> None:
    await secret_of(gateway)
    await ended(gateway, "http://127.0.0.1:9/hook")
    found = await until(gateway, "pending")
    assert found["tries"][0]["detail"] == "no connection: Connection refused"


async def test_a_secret_that_was_taken_away_is_told_and_waited_for(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    assert (await gateway.post(id=ID, callback_url=receiver.url)).status == 202
    (secret,) = await signing.secrets_of(gateway.record, "tester")
    await signing.revoke(gateway.record, secret.id)
    await Run(gateway.record, ID).whole()
    found = await until(gateway, "pending")
    assert "conclave secrets create tester" in found["tries"][0]["detail"]
    assert receiver.arrivals == []


async def test_a_gateway_that_is_killed_while_it_tells_leaves_that_to_the_next(
    memory: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ACK_WAIT_S", 1.0)
    receiver.hang_s = 30.0
    async with gateway_at(MEMORY, callback_networks=LOOPBACK) as gateway:
        secret = await secret_of(gateway)
        await ended(gateway, receiver.url)
        await receiver.heard()
    receiver.hang_s = 0.0
    async with gateway_at(MEMORY, callback_networks=LOOPBACK) as gateway:
        arrivals = await receiver.heard(2)
        found = await until(gateway, "delivered")
    assert len(found["tries"]) == 1  # the one that was broken off is nobody's
    assert {one.headers["webhook-id"] for one in arrivals} == {f"{ID}-1"}
    arrivals[-1].checked(secret)


async def test_an_end_that_came_while_no_gateway_was_there_is_told(memory: Any, receiver: Receiver) -> None:
    async with gateway_at(MEMORY, callback_networks=LOOPBACK) as gateway:
        await secret_of(gateway)
        assert (await gateway.post(id=ID, callback_url=receiver.url)).status == 202
        run = Run(gateway.record, ID)
        await run.begin()
    async with gateway_at(MEMORY, callback_networks=LOOPBACK) as gateway:
        run.record = gateway.record
        await run.finish()
        await receiver.heard()


async def test_two_gateways_tell_it_once(memory: Any, receiver: Receiver) -> None:
    async with (
        gateway_at(MEMORY, callback_networks=LOOPBACK) as gateway,
        gateway_at(MEMORY, callback_networks=LOOPBACK),
    ):
        await secret_of(gateway)
        for number in range(20):
            await ended(gateway, receiver.url, f"task-{number}")
        arrivals = await receiver.heard(20)
        await asyncio.sleep(0.3)
        assert len({arrival.headers["webhook-id"] for arrival in arrivals}) == len(arrivals) == 20


# --- what became of it ----------------------------------------------------------------------------


async def test_deliveries_are_shown_to_whom_the_deliberation_is(gateway: Gateway, receiver: Receiver) -> None:
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await until(gateway, "delivered")
    path = f"{PATH}/{ID}/deliveries"
    stranger, reader = await gateway.new_token(), await gateway.new_token("submit", "read")
    assert (await gateway.get(path, stranger)).status == 404
    assert (await gateway.get(path, reader)).status == 200
    assert (await gateway.ask("POST", f"{path}/1", stranger)).status == 404
    assert (await gateway.ask("POST", f"{path}/1", reader)).status == 403


@pytest.mark.parametrize("number", ["0", "2", "-1", "x", "1.0", "9999999999999999", "\u0661"])
async def test_a_delivery_that_there_is_not_is_told(gateway: Gateway, receiver: Receiver, number: str) -> None:
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await until(gateway, "delivered")
    told = await gateway.ask("POST", f"{PATH}/{ID}/deliveries/{number}")
    assert (told.status, told.problem["type"]) == (404, "unknown-delivery")


async def test_a_delivery_that_waits_is_sent_again_at_once(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answers = [answer(500, Retry_After="3600"), answer(200)]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await until(gateway, "pending")
    assert (await gateway.ask("POST", f"{PATH}/{ID}/deliveries/1")).status == 202
    await until(gateway, "delivered", tries=2)


async def test_a_delivery_that_was_to_be_sent_again_when_nats_went_is_sent_when_it_is_asked_for(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key says that it is due, and its message was not written."""
    receiver.answers = [answer(500, Retry_After="3600"), answer(200)]
    await secret_of(gateway)
    await ended(gateway, receiver.url)
    await until(gateway, "pending")
    with monkeypatch.context() as patched:
        patched.setattr(queue, "put", unwritten)
        assert (await gateway.ask("POST", f"{PATH}/{ID}/deliveries/1")).status == 503
    assert (await gateway.ask("POST", f"{PATH}/{ID}/deliveries/1")).status == 202
    await until(gateway, "delivered", tries=2)


async def unwritten(*_: Any) -> None:
    raise RecordUnavailable("gone")


async def test_a_receiver_that_is_down_at_both_of_its_addresses_is_told_as_that(serve: Any) -> None:
    """And not as an address that may not be told."""
    async with serve(callback_networks="127.0.0.0/8, ::1/128") as gateway:
        await secret_of(gateway)
        await ended(gateway, "http://localhost:9/")
        found = await until(gateway, "pending")
    assert found["tries"][0]["detail"].startswith("no connection")


async def test_no_secret_is_in_what_is_shown_or_logged(
    gateway: Gateway, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answers = [answer(500)]
    secret = await secret_of(gateway)
    await ended(gateway, receiver.url)
    await until(gateway, "pending")
    shown = json.dumps(await listed(gateway)) + caplog.text + (await gateway.get("/metrics")).text
    assert 'conclave_callbacks_total{verdict="failed"} 1' in shown
    assert secret not in shown
    assert secret.removeprefix("whsec_") not in shown


async def test_a_delivery_of_a_later_version_is_left_alone(gateway: Gateway, receiver: Receiver) -> None:
    """Whom a later version tells in another way is not told wrongly by this one, and ends no telling of others."""
    await gateway.record.callbacks.put(ID, {"targets": [{"kind": "carrier-pigeon", "loft": 3}]})
    await gateway.record.callbacks.put(f"{ID}.1", {"state": "pending", "target": {"kind": "carrier-pigeon"}})
    await queue.put(gateway.record, ID, 1)
    await Run(gateway.record, ID).whole()
    await secret_of(gateway)
    await ended(gateway, receiver.url, "task-2")
    await receiver.heard()
    assert await listed(gateway) == []
    for number in (1, deliveries.LATER):  # for a gateway of that version
        assert await gateway.record.exists(subjects.callback(ID, number))
