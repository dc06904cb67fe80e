"""Webhooks in: what is signed becomes a deliberation, once; whatever else comes is 401, and asks for nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from standardwebhooks import Webhook as StandardWebhook

from blocks.record import subjects
from deployments.event_files import EventFileError
from deployments.gateway import bodies
from deployments.webhooks.configuration import read_webhooks, require_secrets
from deployments.webhooks.signatures import signed
from tasks.access.usage import used_today
from tests.deployments.gateway.parts import Gateway, Run, Told

pytestmark = pytest.mark.servers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the one of the standard's own examples
NEXT = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
GITHUB = "It's a Secret to Everybody"
FILE = """
webhooks:
  - name: plans
    signature: standard
    secrets: [{{file: {secret}}}, {{file: {next}}}]
    when: "title != 'skip'"
    request:
      task: "title"
      context: "{{plan: plan}}"
  - name: issues
    signature: github
    secrets: [{{env: TEST_GITHUB_SECRET}}]
    request: {{task: issue.title}}
  - name: bounded
    signature: standard
    secrets: [{{file: {secret}}}]
    limits: {{councils: [dev], at_once: 1, tokens_a_day: 100}}
    request: {{task: title, council: council}}
  - name: named
    signature: standard
    secrets: [{{file: {secret}}}]
    id: "join('-', ['plan', plan])"
    request: {{task: title}}
"""
PLAN = {"plan": "1", "title": "Choose a queue"}
ISSUE = {"issue": {"title": "Queue or cache?"}}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of webhooks, with its secrets beside it."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "next").write_text(NEXT)
    monkeypatch.setenv("TEST_GITHUB_SECRET", GITHUB)
    path = tmp_path / "webhooks.yaml"
    path.write_text(FILE.format(secret=tmp_path / "secret", next=tmp_path / "next"))
    return path


@pytest_asyncio.fixture
async def gateway(file: Path, serve: Callable[..., AbstractAsyncContextManager[Gateway]]) -> Any:
    """A gateway with these webhooks, on the NATS in memory."""
    async with serve(webhooks=file) as found:
        yield found


def written(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def standard(payload: Any = PLAN, delivery: str = "msg_1", secret: str = SECRET, at: datetime | None = None) -> Any:
    """The headers of a delivery, made by the standard's library alone."""
    at = at or datetime.now(UTC)
    signature = StandardWebhook(secret).sign(delivery, at, written(payload).decode())
    return {"webhook-id": delivery, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def github(payload: Any = ISSUE, delivery: str = "d1", secret: str = GITHUB) -> Any:
    digest = hmac.new(secret.encode(), written(payload), hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": delivery, "X-GitHub-Event": "issues"}


async def sent(gateway: Gateway, name: str, headers: Any, payload: Any = None, data: bytes | None = None) -> Told:
    """Deliver, without any token."""
    body = written(payload if payload is not None else PLAN) if data is None else data
    headers = {"Content-Type": "application/json", **headers}
    return await gateway.ask("POST", f"/v1/webhooks/{name}", None, data=body, headers=headers)


# --- what is signed -------------------------------------------------------------------------------


async def test_a_signed_delivery_is_a_deliberation_of_the_webhooks_own_owner(gateway: Gateway) -> None:
    told = await sent(gateway, "plans", standard())
    one = told.body["id"]
    assert (told.status, told.body["status"], told.headers["Location"]) == (202, "PENDING", f"/v1/deliberations/{one}")
    assert await gateway.queued() == [subjects.request(one)]
    queued = await gateway.record.last(subjects.request(one), direct=False)
    assert queued is not None
    assert queued.body["door"] == "webhook"
    assert queued.body["owner"] == "webhook.plans"
    assert queued.body["parameters"] == {"task": "Choose a queue", "context": {"plan": "1"}}
    assert (await gateway.get(f"/v1/deliberations/{one}")).status == 200
    assert (await gateway.get(f"/v1/deliberations/{one}", await gateway.new_token())).status == 404


async def test_githubs_own_example_is_good(gateway: Gateway) -> None:
    """The value that GitHub's documentation gives for its secret and `Hello, World!`; which is no JSON."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    told = await sent(gateway, "issues", {"X-Hub-Signature-256": signature}, data=b"Hello, World!")
    assert (told.status, told.problem["type"]) == (400, "bad-request")


async def test_githubs_form_is_taken(gateway: Gateway) -> None:
    told = await sent(gateway, "issues", github(), ISSUE)
    assert told.status == 202
    assert await gateway.queued() == [subjects.request(told.body["id"])]


@pytest.mark.parametrize("secret", [SECRET, NEXT])
async def test_two_secrets_count_while_one_takes_the_place_of_the_other(gateway: Gateway, secret: str) -> None:
    assert (await sent(gateway, "plans", standard(secret=secret))).status == 202


async def test_secrets_change_hands_without_a_restart_and_without_a_delivery_refused(
    gateway: Gateway, file: Path
) -> None:
    """The old one is taken away once the sender has the next; then the next takes its place."""
    old, new = file.parent / "secret", file.parent / "next"
    old.unlink()
    assert (await sent(gateway, "plans", standard(secret=NEXT))).status == 202
    assert (await sent(gateway, "plans", standard(delivery="msg_2"))).status == 401
    old.write_text(NEXT)
    new.write_text("")
    assert (await sent(gateway, "plans", standard(delivery="msg_3", secret=NEXT))).status == 202


async def test_a_secret_in_a_file_is_changed_without_a_restart(gateway: Gateway, file: Path) -> None:
    assert (await sent(gateway, "named", standard(secret=NEXT))).status == 401
    (file.parent / "secret").write_text(NEXT)
    assert (await sent(gateway, "named", standard(secret=NEXT))).status == 202
    assert (await sent(gateway, "named", standard(delivery="msg_2"))).status == 401
    (file.parent / "secret").unlink()
    told = await sent(gateway, "named", standard(secret=NEXT))
    assert (told.status, told.problem["type"]) == (503, "secret-unavailable")


async def test_of_several_signatures_one_is_enough(gateway: Gateway) -> None:
    headers = standard()
    headers["webhook-signature"] = "v1a,AAAA v1,AAAA " + headers["webhook-signature"]
    assert (await sent(gateway, "plans", headers)).status == 202


async def test_what_the_condition_passes_over_asks_for_nothing(gateway: Gateway) -> None:
    payload = {**PLAN, "title": "skip"}
    told = await sent(gateway, "plans", standard(payload), payload)
    assert (told.status, told.body["status"]) == (200, "passed over")
    assert await gateway.queued() == []


async def test_the_mapping_may_name_the_deliberation(gateway: Gateway) -> None:
    first, second = await sent(gateway, "named", standard()), await sent(gateway, "named", standard(delivery="msg_2"))
    assert (first.body["id"], second.body["id"]) == ("plan-1", "plan-1")
    assert second.headers["Idempotency-Replayed"] == "true"
    other = {**PLAN, "title": "Another"}
    told = await sent(gateway, "named", standard(other, "msg_3"), other)
    assert (told.status, told.problem["type"], told.problem["field"]) == (422, "id-reused", "id")


@pytest.mark.parametrize("payload", [{"plan": "1"}, {"plan": "1", "title": ["x"]}, {"title": ""}])
async def test_a_signed_delivery_that_is_no_request_is_told_by_its_field(gateway: Gateway, payload: Any) -> None:
    told = await sent(gateway, "plans", standard(payload), payload)
    assert (told.status, told.problem["type"], told.problem["field"]) == (422, "invalid-field", "task")
    assert await gateway.queued() == []


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense", b"payload=%7B%7D", b'{"task": \xff}'])
async def test_a_signed_body_that_is_no_json_object_is_told(gateway: Gateway, data: bytes) -> None:
    digest = hmac.new(GITHUB.encode(), data, hashlib.sha256).hexdigest()
    told = await sent(gateway, "issues", {"X-Hub-Signature-256": f"sha256={digest}"}, data=data)
    assert (told.status, told.problem["type"]) == (400, "bad-request")


@pytest.mark.parametrize("name", ["plans", "issues"])
async def test_nothing_is_told_of_what_became_of_it_but_its_status(gateway: Gateway, name: str) -> None:
    """Whoever has overheard a delivery of GitHub's could send it again, and wait for the decision."""
    headers, payload = (standard(), PLAN) if name == "plans" else (github(), ISSUE)
    one = (await sent(gateway, name, {**headers, "Prefer": "wait=60"}, payload)).body["id"]
    asked: Any = {"task": "Queue or cache?"} if name == "issues" else {"context": {"plan": "1"}}
    await Run(gateway.record, one, owner=f"webhook.{name}", **asked).whole()
    told = await sent(gateway, name, {**headers, "Prefer": "wait=60"}, payload)
    assert (told.status, told.body["status"]) == (202, "COMPLETED")
    assert set(told.body) == {"id", "status", "links"}
    assert "Preference-Applied" not in told.headers


# --- once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plans", "issues"])
async def test_the_same_delivery_fifty_times_at_once_is_one(gateway: Gateway, name: str) -> None:
    headers, payload = (standard(), PLAN) if name == "plans" else (github(), ISSUE)
    told = await asyncio.gather(*(sent(gateway, name, headers, payload) for _ in range(50)))
    assert {one.status for one in told} == {202}
    assert len({one.body["id"] for one in told}) == 1
    assert [one.headers.get("Idempotency-Replayed") for one in told].count("true") == 49
    assert len(await gateway.queued()) == 1


async def test_a_delivery_that_comes_again_after_its_end_is_a_replay(gateway: Gateway) -> None:
    """Also once its key was let go: for as long as the streams keep."""
    one = (await sent(gateway, "plans", standard())).body["id"]
    await Run(gateway.record, one, owner="webhook.plans", context={"plan": "1"}).whole()
    await gateway.record.statuses.delete(one)
    await gateway.record.jetstream.purge_stream(subjects.REQUESTS)
    told = await sent(gateway, "plans", standard())
    assert (told.status, told.body["id"], told.body["status"]) == (202, one, "COMPLETED")
    assert await gateway.queued() == []


async def test_a_delivery_of_githubs_under_another_id_is_the_same(gateway: Gateway) -> None:
    """GitHub signs neither the id nor a time: whoever has heard one could send it again under a new id."""
    first = await sent(gateway, "issues", github(delivery="d1"), ISSUE)
    again = await sent(gateway, "issues", github(delivery="d2"), ISSUE)
    assert first.body["id"] == again.body["id"]
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_another_payload_under_a_delivery_id_is_refused(gateway: Gateway) -> None:
    await sent(gateway, "plans", standard())
    other = {**PLAN, "title": "Another"}
    told = await sent(gateway, "plans", standard(other), other)
    assert (told.status, told.problem["type"]) == (422, "idempotency-key-reused")
    assert told.problem["field"] == "webhook-id"


async def test_a_delivery_id_is_one_webhooks_own(gateway: Gateway) -> None:
    one, other = await sent(gateway, "plans", standard()), await gateway.post("msg_1")
    assert one.body["id"] != other.body["id"]


# --- what is not ----------------------------------------------------------------------------------


def _without(name: str) -> Any:
    return {key: value for key, value in standard().items() if key != name}


HOSTILE: dict[str, Callable[[], Any]] = {
    "unsigned": dict,
    "without an id": lambda: _without("webhook-id"),
    "without a time": lambda: _without("webhook-timestamp"),
    "without a signature": lambda: _without("webhook-signature"),
    "of another secret": lambda: standard(secret="whsec_" + "A" * 32),
    "of another body": lambda: standard({**PLAN, "title": "Another"}),
    "under another id": lambda: {**standard(), "webhook-id": "msg_2"},
    "at another time": lambda: {**standard(), "webhook-timestamp": str(int(datetime.now(UTC).timestamp()) + 9)},
    "late": lambda: standard(at=datetime.now(UTC) - timedelta(minutes=6)),
    "early": lambda: standard(at=datetime.now(UTC) + timedelta(minutes=6)),
    "bad base64": lambda: {**standard(), "webhook-signature": "v1,A"},
    "no base64": lambda: {**standard(), "webhook-signature": "v1,é"},
    "no version": lambda: {**standard(), "webhook-signature": "abc"},
    "three parts": lambda: {**standard(), "webhook-signature": "v1,a,b"},
    "another version": lambda: {**standard(), "webhook-signature": standard()["webhook-signature"].replace("v1", "v2")},
    "no time": lambda: {**standard(), "webhook-timestamp": "now"},
    "nan": lambda: {**standard(), "webhook-timestamp": "nan"},
    "infinity": lambda: {**standard(), "webhook-timestamp": "1e999"},
    "a far time": lambda: {**standard(), "webhook-timestamp": "9" * 40},
    "a long id": lambda: standard(delivery="m" * 256),
    "an id with spaces": lambda: standard(delivery="m 1"),
    "github's": lambda: github(PLAN),
    "a bad one before the good one": lambda: standard() | {"webhook-signature": "x " + standard()["webhook-signature"]},
}


@pytest.mark.parametrize("headers", HOSTILE.values(), ids=HOSTILE)
async def test_whatever_nobody_who_may_has_signed_is_401(gateway: Gateway, headers: Callable[[], Any]) -> None:
    told = await sent(gateway, "plans", headers())
    assert (told.status, told.problem["type"]) == (401, "bad-signature")
    assert SECRET not in told.text
    assert await gateway.queued() == []


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha256=00", "sha1=" + "0" * 40, "sha256=é", "SHA256=" + "0" * 64, "0" * 64]
)
async def test_githubs_signature_has_to_be_whole(gateway: Gateway, signature: str) -> None:
    told = await sent(gateway, "issues", {**github(), "X-Hub-Signature-256": signature}, ISSUE)
    assert (told.status, told.problem["type"]) == (401, "bad-signature")


@pytest.mark.parametrize(
    "line", [b"webhook-signature: v1,\xff\xfe", b"webhook-id: \xff", b"webhook-timestamp: \xc3\x28"]
)
async def test_a_header_that_is_no_utf8_is_401(gateway: Gateway, line: bytes) -> None:
    name, body = line.partition(b":")[0].decode(), written(PLAN)
    lines = [f"{key}: {value}".encode() for key, value in standard().items() if key != name]
    assert b" 401 " in await raw(gateway, "plans", [*lines, line], body)


async def test_a_header_that_stands_there_twice_is_401(gateway: Gateway) -> None:
    lines = [f"{key}: {value}".encode() for key, value in standard().items()]
    assert b" 401 " in await raw(gateway, "plans", [*lines, b"webhook-id: msg_2"], written(PLAN))


async def raw(gateway: Gateway, name: str, lines: list[bytes], body: bytes) -> bytes:
    """The first line of what is answered to header lines as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = [f"POST /v1/webhooks/{name} HTTP/1.1".encode(), b"Host: 127.0.0.1", b"Content-Length: %d" % len(body)]
    writer.write(b"\r\n".join([*head, *lines, b"", body]))
    try:
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()


async def test_what_carries_no_signature_is_not_even_read(gateway: Gateway) -> None:
    """Whoever is not a sender could else let the gateway hold as many bodies as they have connections."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/webhooks/plans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n")
    try:
        async with asyncio.timeout(20):
            assert b" 401 " in await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused_before_its_signature_is_looked_at(gateway: Gateway, chunked: bool) -> None:
    async def parts() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    data: Any = parts() if chunked else b" " * 2_000_000
    told = await sent(gateway, "plans", standard(), data=data)
    assert (told.status, told.problem["type"]) == (413, "too-large")


async def test_a_body_that_drips_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    lines = [f"{key}: {value}".encode() for key, value in standard().items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = [b"POST /v1/webhooks/plans HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: 1000", *lines, b"", b""]
    writer.write(b"\r\n".join(head))
    try:
        async with asyncio.timeout(20):
            told = asyncio.create_task(reader.readline())
            while not told.done():
                writer.write(b" ")
                await asyncio.sleep(0.02)
            assert b" 408 " in told.result()
    finally:
        writer.close()


async def test_an_unknown_webhook_is_told(gateway: Gateway) -> None:
    told = await sent(gateway, "nope", standard())
    assert (told.status, told.problem["type"]) == (404, "unknown-webhook")


async def test_a_page_of_another_host_may_not_deliver(gateway: Gateway) -> None:
    told = await sent(gateway, "plans", {**standard(), "Origin": "http://example.org"})
    assert told.status == 403


async def test_a_webhook_has_limits_of_its_own(gateway: Gateway) -> None:
    """As a token has them: one council, one open, so many model tokens in a day."""
    plan = {"title": "Choose a queue", "council": "dev"}
    other = {**plan, "council": "qa"}
    refused = await sent(gateway, "bounded", standard(other, "msg_1"), other)
    assert (refused.status, refused.problem["field"]) == (403, "council")
    first = await sent(gateway, "bounded", standard(plan, "msg_2"), plan)
    assert first.status == 202
    second = await sent(gateway, "bounded", standard(plan, "msg_3"), plan)
    assert (second.status, second.problem["type"]) == (429, "too-many-open")
    await Run(gateway.record, first.body["id"], owner="webhook.bounded", council="dev").whole(tokens=100)
    async with asyncio.timeout(10):
        while await used_today(gateway.record, "webhook.bounded") < 100:
            await asyncio.sleep(0.02)
    third = await sent(gateway, "bounded", standard(plan, "msg_4"), plan)
    assert (third.status, third.problem["type"]) == (429, "daily-tokens")


async def test_a_webhook_may_not_deliver_without_end(file: Path, serve: Any) -> None:
    async with serve(webhooks=file, rate="2/hour") as gateway:
        statuses = [(await sent(gateway, "plans", standard(delivery=f"msg_{n}"))).status for n in range(3)]
        refused = await sent(gateway, "plans", {})
    assert statuses == [202, 202, 429]
    assert refused.status == 401


def test_a_time_is_signed_as_what_it_is_in_any_zone() -> None:
    """The library itself takes a time without UTC for one in UTC."""
    now = datetime.now(timezone(timedelta(hours=9)))
    headers = signed("standard", SECRET, "msg_1", now, written(PLAN))
    StandardWebhook(SECRET).verify(written(PLAN), headers, json_parse=False)


# --- the file -------------------------------------------------------------------------------------

GOOD = "{{name: a, signature: github, secrets: [{{env: A}}], request: {{task: t}}{more}}}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("webhooks: []", "webhooks"),
        ("nonsense", "the file"),
        ("webhooks: [{name: a, request: {task: t}}]", "webhooks.0.signature"),
        ("webhooks: [{name: a, signature: md5, secrets: [{env: A}], request: {task: t}}]", "webhooks.0.signature"),
        ("webhooks: [{name: a, signature: github, secrets: [], request: {task: t}}]", "webhooks.0.secrets"),
        ("webhooks: [{name: a, signature: github, secrets: [{}], request: {task: t}}]", "webhooks.0.secrets.0"),
        ("webhooks: [{name: a, signature: github, secrets: [plain], request: {task: t}}]", "webhooks.0.secrets.0"),
        ("webhooks: [{name: a, signature: github, secrets: [{env: A}], request: {}}]", "request.task"),
        ("webhooks: [{name: a, signature: github, secrets: [{env: A}], request: {task: '('}}]", "request.task"),
        (f"webhooks: [{GOOD.format(more='')}, {GOOD.format(more='')}]", "stands there twice"),
        (f"webhooks: [{GOOD.format(more=', nope: 1')}]", "nope"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "webhooks.yaml"
    path.write_text(text)
    with pytest.raises(EventFileError) as refused:
        read_webhooks(path)
    assert told in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("signature", "secret"),
    [
        ("github", ""),
        ("github", "short"),
        ("standard", ""),
        ("standard", "whsec_%%%"),
        ("standard", "changeme"),
        ("standard", "whsec_" + "A" * 20),
        ("standard", "whsec_" + "-_" * 20),
        ("standard", "not base64 at all, but long enough to be some"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signature: str, secret: str
) -> None:
    path = tmp_path / "webhooks.yaml"
    path.write_text(f"webhooks: [{{name: a, signature: {signature}, secrets: [{{env: A}}], request: {{task: t}}}}]")
    monkeypatch.setenv("A", secret)
    with pytest.raises(EventFileError, match="variable A") as refused:
        require_secrets(path, read_webhooks(path))
    assert not secret or secret not in str(refused.value)


@pytest.mark.parametrize(
    "secrets",
    [
        "[{whsec_MfKQ9r8GKYqr: x}]",
        "[whsec_MfKQ9r8GKYqr]",
        "[{env: A, whsec_MfKQ9r8GKYqr: x}]",
        "%whsec_MfKQ9r8GKYqr",
        "[whsec_MfKQ9r8GKYqr",
    ],
)
def test_a_secret_that_was_written_into_the_file_itself_is_not_shown(tmp_path: Path, secrets: str) -> None:
    path = tmp_path / "webhooks.yaml"
    path.write_text(f"webhooks: [{{name: a, signature: standard, request: {{task: t}}, secrets: {secrets}}}]")
    with pytest.raises(EventFileError) as refused:
        read_webhooks(path)
    assert "whsec_M" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("secrets: [{file: '~nobody-of-this-name/x'}]", "secrets"),
        ("secrets: [{env: A}], sample: {at: 2026-01-01}", "sample"),
        ("secrets: [{env: A}], sample: {a: .nan}", "sample"),
    ],
)
def test_what_would_fail_later_is_told_when_the_file_is_read(tmp_path: Path, more: str, told: str) -> None:
    path = tmp_path / "webhooks.yaml"
    path.write_text(f"webhooks: [{{name: a, signature: github, request: {{task: t}}, {more}}}]")
    with pytest.raises(EventFileError, match=told):
        read_webhooks(path)


def test_one_of_two_secrets_may_be_away_when_the_stack_comes_up(file: Path) -> None:
    (file.parent / "next").unlink()
    require_secrets(file, read_webhooks(file))
    (file.parent / "secret").unlink()
    with pytest.raises(EventFileError, match="webhook 'plans': secrets: file"):
        require_secrets(file, read_webhooks(file))


async def test_a_secret_that_is_away_at_the_start_closes_its_own_door_alone(
    file: Path, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (file.parent / "secret").unlink()
    async with serve(webhooks=file) as gateway:
        named = await sent(gateway, "named", standard())
        issues = await sent(gateway, "issues", github(), ISSUE)
        asked = await gateway.post()
    assert (named.status, issues.status, asked.status) == (503, 202, 202)
    assert "webhook 'named': secrets: file" in caplog.text


def test_the_example_is_sound() -> None:
    webhooks = read_webhooks(Path("docs/examples/webhooks.yaml"))
    for webhook in webhooks.values():
        asked = webhook.mapping.asked(webhook.sample)
        assert asked is not None
        assert asked.request.task
