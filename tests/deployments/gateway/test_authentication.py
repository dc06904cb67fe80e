"""Who is let in: tokens with their scopes, times and bounds; hosts and pages; and nothing secret is told."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.gateway import authentication
from deployments.gateway.settings import GatewaySettings, gateway_settings
from deployments.settings import SettingsError
from tasks.access import tokens, usage
from tests.deployments.gateway.parts import PATH, Gateway, Run

pytestmark = pytest.mark.servers

READS = (PATH, "/v1/councils", "/openapi.json")


async def until_used(gateway: Gateway, owner: str, used: int) -> None:
    """Wait until so many model tokens are counted."""
    async with asyncio.timeout(20):
        while await usage.used_today(gateway.record, owner) != used:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("scope", "asks", "reads", "counts", "others"),
    [("submit", 202, 200, 403, 404), ("read", 403, 200, 200, 200), ("admin", 202, 200, 200, 200)],
)
async def test_a_scope_lets_do_what_it_says(
    gateway: Gateway, scope: str, asks: int, reads: int, counts: int, others: int
) -> None:
    theirs = (await gateway.post()).body["id"]
    token = await gateway.new_token(scope, owner="a")
    assert (await gateway.post(token=token)).status == asks
    assert {(await gateway.get(path, token)).status for path in READS} == {reads}
    assert (await gateway.get("/metrics", token)).status == counts
    assert (await gateway.get(f"{PATH}/{theirs}", token)).status == others
    stopped = await gateway.ask("DELETE", f"{PATH}/{theirs}", token)
    assert stopped.status == {"submit": 404, "read": 403, "admin": 200}[scope]


async def test_who_reads_all_stops_only_its_own(gateway: Gateway) -> None:
    token = await gateway.new_token("submit", "read", owner="a")
    theirs, own = (await gateway.post()).body["id"], (await gateway.post(token=token)).body["id"]
    assert (await gateway.ask("DELETE", f"{PATH}/{theirs}", token)).problem["type"] == "forbidden"
    told = await gateway.ask("DELETE", f"{PATH}?council=dev", token)
    assert told.body == {"cancelled": 1, "more": False}
    assert (await gateway.get(f"{PATH}/{own}")).body["status"] == "CANCELLED"
    assert (await gateway.get(f"{PATH}/{theirs}")).body["status"] == "PENDING"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_whether_it_lives_is_told_to_everybody(gateway: Gateway, path: str) -> None:
    assert (await gateway.get(path, None)).status == 200


@pytest.mark.parametrize(
    "value",
    [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer cnc_x", "Bearer cnc_aaaaaaaaaaaa_" + "A" * 43],
)
async def test_who_has_no_token_that_is_known_is_told_how_to_get_one(gateway: Gateway, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    told = await gateway.get(PATH, None, headers=headers)
    assert (told.status, told.problem["type"]) == (401, "unauthorized")
    assert told.headers["WWW-Authenticate"].startswith("Bearer")
    assert ("is it whole?" in told.problem["detail"]) == (value in ("Bearer", "Bearer ", "Bearer cnc_x"))


async def test_another_secret_of_a_known_token_lets_nobody_in(gateway: Gateway) -> None:
    other = tokens.new_text().split("_", 2)[2]
    assert (await gateway.get(PATH, "_".join([*gateway.text.split("_", 2)[:2], other]))).status == 401
    assert (await gateway.get(PATH)).status == 200


async def test_a_token_that_has_expired_lets_nobody_in(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await gateway.new_token(days=1)
    assert (await gateway.get(PATH, text)).status == 200

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr(authentication, "datetime", Later)
    told = await gateway.get(PATH, text)
    assert (told.status, "expired" in told.problem["detail"]) == (401, True)


async def test_a_token_that_is_revoked_lets_nobody_in(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "KEPT_S", 0.0)
    text = await gateway.new_token()
    assert (await gateway.get(PATH, text)).status == 200
    await tokens.revoke(gateway.record, (tokens.parts_of(text) or ("",))[0])
    assert (await gateway.get(PATH, text)).status == 401


async def test_a_token_that_was_read_counts_for_a_while(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that not every call asks for it; how long a revocation goes unheard has a bound."""
    monkeypatch.setattr(authentication, "KEPT_S", 3600.0)
    text = await gateway.new_token()
    assert (await gateway.get(PATH, text)).status == 200
    await tokens.revoke(gateway.record, (tokens.parts_of(text) or ("",))[0])
    assert (await gateway.get(PATH, text)).status == 200


async def test_a_token_asks_only_its_councils(gateway: Gateway) -> None:
    text = await gateway.new_token(councils=("qa",))
    told = await gateway.post(token=text)
    assert (told.status, told.problem["field"]) == (403, "council")
    assert (await gateway.post(token=text, council="qa")).status == 202
    assert len(await gateway.queued()) == 1


async def test_an_owner_has_so_many_open_and_no_refusal_frees_a_place(gateway: Gateway) -> None:
    text = await gateway.new_token(owner="a", at_once=2)
    first, _ = await gateway.post("1", text), await gateway.post("2", text)
    assert (await gateway.post("1", text)).status == 202
    assert (await gateway.post("1", text, task="Another")).status == 422
    told = await gateway.post("3", text)
    assert (told.status, told.problem["type"]) == (429, "too-many-open")
    assert int(told.headers["Retry-After"]) <= 120
    assert len(await gateway.queued()) == 2
    await gateway.ask("DELETE", f"{PATH}/{first.body['id']}", text)
    assert (await gateway.post("3", text)).status == 202
    assert (await gateway.post("4", text)).status == 429
    assert (await gateway.post("1", text)).body["status"] == "CANCELLED"


async def test_of_many_at_once_as_many_are_let_in_as_may_be_open(either: Gateway) -> None:
    text = await either.new_token(owner="a", at_once=5)
    told = await asyncio.gather(*(either.post(token=text) for _ in range(20)))
    assert sorted(one.status for one in told) == [202] * 5 + [429] * 15


async def test_model_tokens_of_a_day_are_counted_once_and_bounded(either: Gateway) -> None:
    """An end that comes again is not counted again; on the next day it begins anew."""
    text = await either.new_token(owner="a", tokens_a_day=10)
    one, two = (await either.post("1", text)).body["id"], (await either.post("2", text)).body["id"]
    await Run(either.record, one, owner="a").whole(tokens=4)
    await until_used(either, "a", 4)
    event = await either.record.last(f"deliberations.{one}.finished")
    assert event is not None
    await usage.add_end(either.record, "a", event.body, event.sequence)
    assert await usage.used_today(either.record, "a") == 4
    assert (await either.post("3", text)).status == 202
    await Run(either.record, two, owner="a").whole(tokens=6)
    await until_used(either, "a", 10)
    told = await either.post("4", text)
    assert (told.status, told.problem["type"]) == (429, "daily-tokens")
    assert 0 < int(told.headers["Retry-After"]) <= 120
    await either.record.access.change("usage.a", lambda body: {**(body or {}), "day": "2020-01-01"})
    assert (await either.post("4", text)).status == 202


async def test_who_asks_too_often_is_told_when_to_come_again(serve: Any) -> None:
    async with serve(rate="3/minute") as gateway:
        told = [await gateway.get(PATH) for _ in range(4)]
        assert [one.status for one in told] == [200, 200, 200, 429]
        assert told[0].headers["RateLimit-Policy"] == '"token";q=3;w=60'
        assert told[0].headers["RateLimit"].startswith('"token";r=2;t=')
        assert told[3].headers["RateLimit"].startswith('"token";r=0;t=')
        assert 0 < int(told[3].headers["Retry-After"]) <= 60
        assert (await gateway.get(PATH, await gateway.new_token())).status == 200


async def test_two_tokens_are_one_too_many(gateway: Gateway) -> None:
    headers = [("Authorization", f"Bearer {gateway.text}"), ("Authorization", f"Bearer {gateway.text}")]
    async with gateway.session.get(gateway.url + PATH, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["field"] == "Authorization"


async def raw(gateway: Gateway, text: bytes) -> tuple[int, bytes]:
    """What is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(text)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize(
    "name", [b"Authorization", b"Idempotency-Key", b"Prefer", b"Last-Event-ID", b"Origin", b"Host"]
)
@pytest.mark.parametrize(
    "value", [b"Bearer \xff\xfe", b"Bearer a\r\n b", b"Bearer \xed\xa0\x80", b"http://[", b"\xc3\xa9"]
)
async def test_bytes_in_a_header_are_no_fault_of_the_gateways(gateway: Gateway, name: bytes, value: bytes) -> None:
    lines = {b"Host": b"127.0.0.1", b"Authorization": b"Bearer " + gateway.text.encode(), b"Connection": b"close"}
    lines[name] = value
    head = b"".join(key + b": " + text + b"\r\n" for key, text in lines.items())
    body = b'{"task": "x"}'
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    for first in (b"POST /v1/deliberations HTTP/1.1\r\n", b"GET /v1/deliberations/x/events HTTP/1.1\r\n"):
        status, answer = await raw(gateway, first + head + body)
        assert status < 500, answer
        assert b"Traceback" not in answer


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.2", ""])
async def test_a_name_that_is_not_ours_is_refused(gateway: Gateway, host: str) -> None:
    told = await gateway.get("/healthz", headers={"Host": host})
    assert (told.status, told.problem["type"]) == (421, "unknown-host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]", "[::1]:8080", "council.example"])
async def test_a_name_that_is_ours_is_taken(serve: Any, host: str) -> None:
    async with serve(hosts=("council.example",)) as gateway:
        assert (await gateway.get("/healthz", headers={"Host": host})).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1:1", "file://", "é"])
async def test_a_page_of_another_host_is_refused(gateway: Gateway, origin: str) -> None:
    told = await gateway.get("/healthz", headers={"Origin": origin})
    assert (told.status, told.problem["type"]) == (403, "forbidden")
    assert "Access-Control-Allow-Origin" not in told.headers


async def test_a_page_of_its_own_is_taken(gateway: Gateway) -> None:
    assert (await gateway.get("/healthz", headers={"Origin": gateway.url})).status == 200


async def test_open_to_everybody_who_reaches_it(serve: Any) -> None:
    async with serve(open=True) as gateway:
        assert (await gateway.post(token=None)).status == 202
        assert (await gateway.get("/metrics", None)).status == 200
        assert (await gateway.get(PATH, "cnc_wrong")).status == 401


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "example.org:1", "192.168.0.1:1"])
def test_open_only_on_loopback(listen: str) -> None:
    with pytest.raises(SettingsError, match="CONCLAVE_OPEN"):
        gateway_settings({"CONCLAVE_OPEN": "1", "CONCLAVE_GATEWAY": listen})
    assert gateway_settings({"CONCLAVE_GATEWAY": listen}).open is False


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:1"])
def test_open_on_loopback(listen: str) -> None:
    assert GatewaySettings(open=True, listen=listen).on_loopback


async def test_no_secret_is_told_or_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = await gateway.new_token("admin", owner="a")
    secret = text.split("_", 2)[2]
    one = (await gateway.post("k", text)).body["id"]
    wrong = text[:-5] + "AAAAA"
    told = [
        await gateway.post("k", text, nonsense=text),
        await gateway.post("k", wrong),
        await gateway.get(f"{PATH}/{one}", text),
        await gateway.get(PATH, text),
        await gateway.get("/metrics", text),
        await gateway.ask("DELETE", f"{PATH}/{one}", text),
        await gateway.get(PATH, None, headers={"Authorization": f"Basic {text}"}),
    ]
    assert secret not in caplog.text
    assert secret[:-5] not in caplog.text
    assert all(secret[:-5] not in one.text + str(one.headers) for one in told)
    token = await tokens.read(gateway.record, text.split("_")[1])
    assert token is not None
    assert secret not in token.model_dump_json()
    assert all(token.digest not in one.text for one in told)


async def test_no_such_path_or_method_is_told_and_counted_under_one_name(gateway: Gateway) -> None:
    for number in range(20):
        assert (await gateway.get(f"/nowhere/{number}", None)).status == 404
    assert (await gateway.ask("POST", "/healthz", None)).headers["Allow"] == "GET"
    assert (await gateway.get("/nowhere", None)).problem["type"] == "not-found"
    figures = (await gateway.get("/metrics")).text
    assert 'conclave_http_requests_total{method="GET",path="unknown",status="404"} 21' in figures
    assert "/nowhere" not in figures


async def test_the_token_of_the_home_is_admitted_and_its_predecessor_is_not(serve: Any, tmp_path: Any) -> None:
    file = tmp_path / "token"
    first, second = tokens.new_text(), tokens.new_text()
    file.write_text(first + "\n")
    async with serve(token_file=file) as gateway:
        assert (await gateway.get("/metrics", first)).status == 200
    file.write_text(second + "\n")
    async with serve(token_file=file) as gateway:
        assert (await gateway.get("/metrics", second)).status == 200
        assert (await gateway.get("/metrics", first)).status == 401
        assert [one.owner for one in await tokens.listed(gateway.record)].count("home") == 1


def test_times_of_a_token_are_aware_of_their_zone() -> None:
    token, _ = tokens.make("x", ("submit",), days=1)
    assert token.expires_at is not None
    assert not token.has_expired(datetime.now(UTC))
    assert token.has_expired(token.expires_at)
