"""Bodies for our own Prefect server: what is too deep, too many or too long is refused before Prefect sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.parameter_bounds import MAX_CHECKED_NODES, MAX_DEPTH, BodyBounds, Bounds, TooMuch
from tests.conftest import cases

QUIET = """
import os, sys
os.environ.update(PREFECT_HOME=sys.argv[1], PREFECT_LOGGING_LEVEL="CRITICAL", DO_NOT_TRACK="1")
os.environ.update(PREFECT_SERVER_ANALYTICS_ENABLED="false")
"""
EMPTY = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""
"""A database as Prefect's server makes it at its first start."""
JAM = """
import json
from infra.parameter_bounds import bound_bodies
if sys.argv[2] == "bounded":
    bound_bodies()
from infra.prefect_server import close_what_fails, lock_first
close_what_fails()
lock_first()  # else a write is refused now and then, where another test keeps the machine busy
from prefect.server.api.server import create_app
from starlette.testclient import TestClient
with TestClient(create_app(ephemeral=True), raise_server_exceptions=False) as client:
    flow = client.post("/api/flows/", json={"name": "x"}).json()["id"]
    deployment = client.post("/api/deployments/", json={"name": "x", "flow_id": flow}).json()["id"]
    headers = {"content-type": "application/json"}
    for value in json.loads(sys.argv[3]):
        said = '{"parameters": {"a": %s}, "%s": %s}'
        if "__prefect_kind" in value:
            path, more = f"/api/deployments/{deployment}/create_flow_run", ("enforce_parameter_schema", "false")
        else:
            path, more = "/api/flow_runs/", ("flow_id", json.dumps(flow))
        created = client.post(path, content=(said % (value, *more)).encode(), headers=headers)
        print(created.status_code, client.post("/api/flow_runs/filter", json={}).status_code)
"""
"""For each value a flow run that is stored and cannot be read back, then the list of flow runs."""


def in_a_string(text: str) -> str:
    """JSON as Prefect's form sends that of a field."""
    return json.dumps({"__prefect_kind": "json", "value": text})


TEXTS = st.text(st.sampled_from('[]{}",:\\a\u2222é \n')) | st.text(max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def levels(value: Any) -> int:
    """How deep a value is nested."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)


def pieces(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    """A body in pieces."""
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    for start, end in zip([0, *ends], ends, strict=False):
        yield body[start:end]


@settings(deadline=None, max_examples=cases(500))
@given(JSON, st.lists(st.integers(0, 200)), st.booleans(), st.integers(0, 6))
def test_the_depth_is_that_of_the_value_however_the_body_is_cut(
    value: Any, cuts: list[int], ascii_only: bool, most: int
) -> None:
    """Brackets in strings do not count, whatever escapes stand around them."""
    body, bounds = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass"), Bounds(max_depth=most)
    try:
        for piece in pieces(body, cuts):
            bounds.read(piece)
    except TooMuch:
        assert levels(value) > most
    else:
        assert levels(value) <= most


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_another_encoding_is_refused(encoding: str) -> None:
    """A parser takes it, and quotes in it are none."""
    with pytest.raises(TooMuch, match="UTF-8"):
        Bounds().read(("[" * 100 + "]" * 100).encode(encoding))


def test_values_are_counted() -> None:
    """Flat ones too."""
    bounds = Bounds(max_nodes=1000)
    bounds.read(json.dumps([0] * 900).encode())
    with pytest.raises(TooMuch, match="more than 1,000 values"):
        bounds.read(json.dumps([0] * 200).encode())


async def asked(
    body: bytes, path: str = "/api/x", piece: int = 1 << 16, max_bytes: int = 1 << 20, **headers: str
) -> tuple[int, bytes]:
    """Status and body of the answer of an app that gives back what it reads."""
    sent: list[Any] = []
    waiting = [body[start : start + piece] for start in range(0, max(1, len(body)), piece)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    async def receive() -> Any:
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": named}
    await BodyBounds(app, max_bytes)(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("depth", "headers", "status"),
    [
        (MAX_DEPTH, {}, 200),
        (MAX_DEPTH + 1, {}, 422),
        (300, {"content_type": "application/json"}, 422),
        (300, {"content_type": "Application/Problem+JSON"}, 422),
        (300, {"content_type": "application/octet-stream"}, 200),
    ],
)
async def test_what_is_too_deep_is_refused_with_422(depth: int, headers: dict[str, str], status: int) -> None:
    """Where it is read as JSON; the app gets every other body as it was."""
    body = b'{"a":' * depth + b"1" + b"}" * depth
    answered, said = await asked(body, piece=7, **headers)
    assert answered == status
    assert (said == body) if status == 200 else ("nested more than 64 deep" in json.loads(said)["detail"])


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"18446744073709551615", 200),
        (b"-9223372036854775808", 200),
        (b"18446744073709551616", 422),
        (b"-9223372036854775809", 422),
        (b"1" + b"0" * 40, 422),
        (b"9" * 5_000, 422),
        (b"1234567890123456789012345.5", 200),
        (b"1234567890123456789012345e3", 200),
        (b'"1' + b"0" * 40 + b'"', 200),
        (b'"\\ud83d\\ude00"', 200),
        (b'"\\\\ud800"', 200),
        ('"\U0001f600\ud7ff"'.encode(), 200),
        (b'"\\ud83d"', 422),
        (b'"\\ude00\\ud83d"', 422),
        (b'"\\\\\\uD800x"', 422),
        (b'{"\\udfff": 1}', 422),
        (b'"\xed\xa0\x80"', 422),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1 << 16])
async def test_what_prefect_could_store_but_not_read_back_is_refused(value: bytes, status: int, piece: int) -> None:
    """Whole numbers of more than 64 bits and half characters: each would break every list of flow runs."""
    body = b'{"parameters": {"a": [1, ' + value + b"]}}"
    answered, said = await asked(body, piece=piece)
    assert (answered, said == body) == (status, status == 200)


async def test_a_body_is_bounded_while_it_is_read() -> None:
    """With a length given or without one, and however small its pieces are."""
    body = b'"' + b"x" * 2000 + b'"'
    assert (await asked(body, max_bytes=1000))[0] == 413
    assert (await asked(body, max_bytes=1000, content_length="2002"))[0] == 413
    assert (await asked(body, max_bytes=3000, piece=1)) == (200, body)


async def test_what_prefect_holds_against_a_schema_has_fewer_values() -> None:
    """Its validator takes long for each."""
    body = json.dumps([0] * (MAX_CHECKED_NODES + 2)).encode()
    assert (await asked(body))[0] == 200
    assert (await asked(body, "/api/deployments/1/create_flow_run"))[0] == 422
    assert (await asked(body, "/api/deployments/1/create_flow_run/bulk"))[0] == 422


def by_a_template(template: str) -> str:
    """A value that Prefect renders."""
    return json.dumps({"__prefect_kind": "jinja", "template": template})


def ran(program: str, home: Path, *arguments: str) -> list[str]:
    """What a program prints with that home of Prefect's."""
    command = [sys.executable, "-c", QUIET + program, str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=280).stdout.splitlines()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Prefect's with an empty database: the hundreds of steps that make one are gone once."""
    home = tmp_path_factory.mktemp("prefect")
    ran(EMPTY, home)
    return home


RENDERED = in_a_string("[1]").replace('"[1]"', by_a_template("{{ '[' * 300 + ']' * 300 }}"))
DEEP, LONG, HALF = "[" * 300 + "]" * 300, "1" + "0" * 40, r'"\ud800"'


@pytest.mark.timeout(300)
@pytest.mark.stack
@pytest.mark.parametrize(
    ("how", "values", "ends"),
    [
        ("as it is", [DEEP], ["500 500"]),
        ("as it is", [in_a_string(DEEP)], ["500 500"]),
        (
            "bounded",
            [
                *(DEEP, LONG, HALF, in_a_string(DEEP), in_a_string(LONG), in_a_string(HALF)),
                *(by_a_template(r"{{ '\ud800' }}"), RENDERED, in_a_string("[1]"), by_a_template("{{ 1 + 1 }}")),
            ],
            [*["422 200"] * 3, *["400 200"] * 5, *["201 200"] * 2],
        ),
    ],
    ids=["as it is", "a text, as it is", "bounded"],
)
def test_one_run_does_not_break_the_list_of_all(
    empty: Path, tmp_path: Path, how: str, values: list[str], ends: list[str]
) -> None:
    """Once "as it is" ends as "bounded" does, the bound can go."""
    home = shutil.copytree(empty, tmp_path / "prefect")
    assert ran(JAM, home, how, json.dumps(values)) == ends


@pytest.mark.parametrize("piece", [b"e" * (1 << 18), b"+-" * (1 << 17), b"1" * (1 << 18)], ids=["e", "signs", "digits"])
def test_what_only_looks_like_a_number_is_read_in_one_go(piece: bytes) -> None:
    """Its end is looked for from behind: from every place of it, this would take an hour."""
    bounds = Bounds()
    with pytest.raises(TooMuch, match="too many digits"):
        bounds.read(piece)
        bounds.end(piece)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b"Basic dXNlcjpwdw==", True),
        (b"Basic dXNlcjpwdw==.", True),  # each of these Prefect lets in
        (b"Basic\tdXNlcjpwdw==", True),
        (b"Basic\xa0dXNlcjpwdw==", True),
        (b"Basic .dXNl.cjpwdw==", True),
        (b"Basic d3Jvbmc=", False),
        (b"Basic \xe9", False),
        (b"Basic", False),
        (None, False),
    ],
)
async def test_the_body_of_a_request_without_the_key_is_not_read(given: bytes | None, read: bool) -> None:
    """The app refuses it; whoever has no key makes nobody hold or scan 96 MiB."""
    received = []

    async def receive() -> dict[str, Any]:
        received.append(1)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Refuses without reading."""

    async def send(message: Any) -> None:
        """Nobody is told."""

    headers = [(b"authorization", given)] if given else []
    scope = {"type": "http", "method": "POST", "path": "/api/flow_runs/filter", "headers": headers}
    await BodyBounds(app, auth="user:pw")(scope, receive, send)
    assert bool(received) is read
