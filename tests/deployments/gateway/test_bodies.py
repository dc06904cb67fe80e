"""What is sent: read where it is sound, refused by the field where it is not, and never a fault of the gateway's."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from deployments.gateway import bodies
from tests.deployments.gateway.parts import PATH, TASK, Gateway

pytestmark = pytest.mark.servers

JSON = {"Content-Type": "application/json"}


async def sent(gateway: Gateway, data: Any, **headers: str) -> Any:
    return await gateway.ask("POST", PATH, data=data, headers=JSON | headers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"task": "x"} {}',
        b'{"task": NaN}',
        b'{"task": "x", "grace_s": Infinity}',
        b'{"task": "x", "grace_s": -Infinity}',
        b"[" * 100_000,
        b'{"metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"task": ' + b"1" * 5_000 + b"}",
        b'{"task": "\xff"}',
        b'{"task": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"task": "x"}',
        b"[]",
        b'"task"',
        b"null",
        b"1",
    ],
)
async def test_what_is_no_json_object_is_told(gateway: Gateway, data: bytes) -> None:
    told = await sent(gateway, data)
    assert (told.status, told.problem["type"]) == (400, "bad-request")
    assert len(told.text) < 3_000
    assert await gateway.queued() == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense", "é"]
)
async def test_another_content_type_is_told(gateway: Gateway, kind: str) -> None:
    told = await gateway.ask("POST", PATH, data=b'{"task": "x"}', headers={"Content-Type": kind})
    assert (told.status, told.problem["type"]) == (415, "unsupported-media-type")


async def test_json_with_parameters_is_json(gateway: Gateway) -> None:
    told = await gateway.ask(
        "POST", PATH, data=b'{"task":"x"}', headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )
    assert told.status == 202


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_size_is_told(serve: Any, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES", 1_000)

    async def parts() -> Any:
        for _ in range(10):
            yield b" " * 1_000

    async with serve() as gateway:
        told = await sent(gateway, parts() if chunked else b" " * 10_000)
        assert (told.status, told.problem["type"]) == (413, "too-large")
        assert (await sent(gateway, b'{"task": "x"}')).status == 202


async def test_a_bomb_is_bounded_by_what_comes_out_of_it(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES", 100_000)
    async with serve() as gateway:
        bomb = gzip.compress(b" " * 50_000_000)
        assert (await sent(gateway, bomb, **{"Content-Encoding": "gzip"})).status == 413
        sound = gzip.compress(b'{"task": "x"}')
        assert (await sent(gateway, sound, **{"Content-Encoding": "gzip"})).status == 202


async def test_a_body_that_drips_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    ended = asyncio.Event()

    async def drip() -> Any:
        yield b"{"
        await ended.wait()

    asking = asyncio.create_task(sent(gateway, drip()))
    told = await asking
    ended.set()
    assert (told.status, told.problem["type"]) == (408, "slow-body")


async def raw(gateway: Gateway, head: bytes, rest: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/deliberations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Authorization: Bearer " + gateway.text.encode() + b"\r\n" + head + b"\r\n\r\n" + rest
    )
    if b"Content-Encoding" not in head:
        writer.write_eof()
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"Transfer-Encoding: chunked", b"zz\r\nnonsense\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\n{\r\n"),
        (b"Content-Length: 100", b"{"),
        (b"Content-Length: 12\r\nContent-Encoding: gzip", b"no gzip here"),
        (b"Content-Length: 12\r\nContent-Encoding: deflate", b"no deflate.."),
        (b"Content-Length: 1\r\nContent-Length: 2", b"{}"),
        (b"Content-Length: -1", b"{}"),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_that_breaks_off_or_cannot_be_unpacked_is_no_fault_of_the_gateways(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, head: bytes, rest: bytes
) -> None:
    answer = await raw(gateway, head, rest)
    assert not answer or answer.split(b" ", 2)[1].startswith(b"4"), answer
    assert await gateway.queued() == []
    assert not [one for one in caplog.records if one.name == "conclave.gateway" and one.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"task": ""}, "task"),
        ({"task": 1}, "task"),
        ({"task": "x", "items": [{"task": "y"}]}, "task"),
        ({"task": None}, "task"),
        ({"task": None, "items": []}, "items"),
        ({"task": None, "items": [{"task": "x", "nonsense": 1}]}, "items.0.nonsense"),
        ({"council": "no name!"}, "council"),
        ({"strategy": "nonsense"}, "strategy"),
        ({"members": 0}, "members"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"task": "\ud800"}, "task"),
        ({"\ud800": 1}, ""),
        ({"\x1b[31m": 1}, "[31m"),
        ({"a\x00": 1}, "a"),
        ({"x" * 5_000: 1}, None),
        ({"id": "no id!"}, "id"),
        ({"id": "../x"}, "id"),
        ({"id": "a" * 65}, "id"),
        ({"id": 1}, "id"),
        ({"delay_s": -1}, "delay_s"),
        ({"delay_s": 7 * 86_400 + 1}, "delay_s"),
        ({"delay_s": "nonsense"}, "delay_s"),
        ({"expires_s": 0}, "expires_s"),
        ({"expires_s": 30 * 86_400 + 1}, "expires_s"),
        ({"delay_s": 10, "expires_s": 10}, "expires_s"),
        ({"priority": "urgent"}, "priority"),
        ({"owner": "somebody"}, "owner"),
        ({"door": "prefect"}, "door"),
        ({"deliberation_id": "x"}, "deliberation_id"),
    ],
)
async def test_a_field_that_cannot_be_is_named(gateway: Gateway, fields: dict[str, Any], field: str | None) -> None:
    told = await sent(gateway, json.dumps({"task": TASK, **fields}).encode())
    assert (told.status, told.problem["type"]) == (422, "invalid-field")
    if field is not None:
        assert told.problem["field"] == field
    assert len(told.text) < 5_000
    assert "\x1b" not in told.text
    assert await gateway.queued() == []


async def test_what_is_null_is_left_to_its_default(gateway: Gateway) -> None:
    told = await gateway.post(id=None, delay_s=None, expires_s=None, council=None, items=None, priority=None)
    assert told.status == 202, told.text


async def test_a_delay_and_an_end_are_kept_with_the_request(gateway: Gateway) -> None:
    from tasks.deliberations.submit import queued_request

    one = (await gateway.post(delay_s=10, expires_s=20, priority="batch")).body["id"]
    request = await queued_request(gateway.record, one)
    assert request is not None
    assert request.not_before is not None
    assert request.expires_at is not None
    assert (request.expires_at - request.not_before).total_seconds() == 10
    assert await gateway.queued() == [f"requests.{one}.batch"]


@pytest.mark.parametrize("key", ["", '""', "a" * 256, "é", "a\tb"])
async def test_a_key_that_cannot_be_is_named(gateway: Gateway, key: str) -> None:
    told = await gateway.post(key)
    assert (told.status, told.problem["field"]) == (422, "Idempotency-Key")


async def test_two_keys_are_one_too_many(gateway: Gateway) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Authorization", f"Bearer {gateway.text}")]
    async with gateway.session.post(gateway.url + PATH, json={"task": TASK}, headers=headers) as answer:
        assert answer.status == 422
        assert (await answer.json())["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        ("GET", PATH),
        ("DELETE", PATH),
        ("GET", "/v1/councils"),
        ("GET", "/v1/events"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
        ("GET", f"{PATH}/x"),
        ("DELETE", f"{PATH}/x"),
        ("GET", f"{PATH}/x/wait"),
        ("GET", f"{PATH}/x/events"),
        ("GET", f"{PATH}/x/items/task"),
        ("GET", "/v1/councils/dev"),
    ],
)
async def test_a_parameter_that_a_call_does_not_know_is_named(gateway: Gateway, method: str, path: str) -> None:
    for name in ("nonsense", "%ED%A0%80", "%FF", "%00", "metadatax"):
        told = await gateway.ask(method, f"{path}?{name}=1", json={"task": TASK} if method == "POST" else None)
        assert (told.status, told.problem["type"]) == (400, "bad-request"), told.text


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("status=nonsense", 422, "status"),
        ("status=", 422, "status"),
        ("limit=0", 422, "limit"),
        ("limit=201", 422, "limit"),
        ("limit=x", 400, "limit"),
        ("limit=1.5", 400, "limit"),
        ("limit=nan", 400, "limit"),
        ("limit=1_0", 400, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("council=a&council=b", 400, "council"),
        ("cursor=nonsense", 422, "cursor"),
        ("cursor=W10", 422, "cursor"),
        ("cursor=WzEsMl0", 422, "cursor"),
        ("cursor=WyJcdWQ4MDAiLCAieCJd", 422, "cursor"),
        ("cursor=" + "W1tb" * 1_500, 422, "cursor"),
        ("&".join(f"metadata.n{n}=1" for n in range(21)), 422, "metadata."),
    ],
)
async def test_a_value_of_the_query_that_cannot_be_is_named(
    gateway: Gateway, query: str, status: int, field: str
) -> None:
    told = await gateway.get(f"{PATH}?{query}")
    assert (told.status, told.problem["field"]) == (status, field), told.text


@pytest.mark.parametrize("name", ["%ED%A0%80", "%FF", "%00", "a%22b", "%27;--", "%5B", "$.a", "a" * 3_000])
async def test_whatever_is_asked_of_metadata_and_councils_is_only_compared(gateway: Gateway, name: str) -> None:
    for query in (f"metadata.{name}=1", f"metadata.a={name}", f"council={name}"):
        told = await gateway.get(f"{PATH}?{query}")
        assert (told.status, told.body["deliberations"]) == (200, []), told.text


@pytest.mark.parametrize("one", ["%ED%A0%80", "%FF", "%00", "..%2Fx", "a.b", "*", "%3E", "a%20b", "a" * 65])
async def test_what_can_be_no_id_is_unknown(gateway: Gateway, one: str) -> None:
    for path in (f"{PATH}/{one}", f"{PATH}/{one}/wait", f"{PATH}/{one}/events", f"{PATH}/{one}/items/x"):
        told = await gateway.get(path)
        assert (told.status, told.problem["type"]) == (404, "unknown-deliberation"), told.text
    assert (await gateway.ask("DELETE", f"{PATH}/{one}")).status == 404
    assert (await gateway.get(f"/v1/councils/{one}")).problem["type"] == "unknown-council"
    known = (await gateway.post()).body["id"]
    assert (await gateway.get(f"{PATH}/{known}/items/{one}")).problem["type"] == "unknown-item"
