"""What `conclave up` and `conclave status` ask a model server, which is what its members will meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from deployments.stack.exceptions import NoAnswerError
from deployments.stack.probes import ask_llm, ask_prefect
from infra.simulator import SimulatorSettings, simulator

pytestmark = pytest.mark.servers

KEY = "a-key-of-ours"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_the_developers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sets its own."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def asked(url: str, key: str | None = None) -> dict[str, str]:
    """What a server from outside answers."""
    return await asyncio.to_thread(ask_llm, url, key, True)


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that answers everything so; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("dialects", "models"),
    [
        ((), {"simulated": "conclave-simulator"}),
        (("bare_models", "long_header"), {"simulated": "conclave-simulator"}),
        (("no_models",), {}),
    ],
)
async def test_a_server_is_ready_with_or_without_a_list(dialects: Any, models: dict[str, str]) -> None:
    """And the question that says nothing makes no text."""
    async with simulator(SimulatorSettings(dialects=dialects)) as server:
        assert await asked(server.url) == models
        (question,) = server._state.calls.listed()["requests"]
    assert (question["status"], question["asked"]) == (400, ())


async def test_a_server_of_our_own_is_not_asked_for_a_completion() -> None:
    """Its book has nobody's calls but the members'."""
    async with simulator(SimulatorSettings()) as server:
        await asyncio.to_thread(ask_llm, server.url, None)
        assert server._state.calls.listed()["requests"] == []


async def test_a_server_that_only_redirects_is_not_ready() -> None:
    """Whatever it redirects: the list, or the question alone, which would become a GET."""
    async with simulator(SimulatorSettings(dialects=("redirect",))) as server:
        with pytest.raises(NoAnswerError, match=r"redirects GET to https://elsewhere.example/v1/models; set the "):
            await asked(server.url)

    async def moved(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"detail": "Not Implemented"}, status=501)
        return web.Response(status=308, headers={"Location": "/elsewhere"})

    async with serving(moved) as url:
        with pytest.raises(NoAnswerError, match=rf"redirects POST to {url}/elsewhere; set the server's URL"):
            await asked(url)


async def test_what_has_neither_list_nor_completions_is_no_model_server() -> None:
    """Some other server is there, or the URL lacks a part of its path."""

    async def nothing(_request: web.Request) -> web.Response:
        return web.Response(text="<html><title>Welcome</title></html>", status=404, content_type="text/html")

    async with serving(nothing) as url:
        with pytest.raises(NoAnswerError, match="HTTP 404: an HTML page in place of an answer: Welcome"):
            await asked(url)


async def test_a_key_that_is_refused_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the server repeats it."""

    async def refuses(request: web.Request) -> web.Response:
        return web.json_response({"error": f"unknown: {request.headers['Authorization']}"}, status=401)

    async with serving(refuses) as url:
        with pytest.raises(NoAnswerError, match=r"it refuses our key \(HTTP 401: unknown: Bearer \*\*\*\)"):
            await asked(url, KEY)
    with pytest.raises(NoAnswerError, match="control character"):
        ask_llm("http://127.0.0.1:1", f"{KEY}\r", True)


async def test_what_only_the_proxy_reaches_is_asked_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model server as its members ask it, and a Prefect as its client does; loopback never."""
    passed: list[tuple[str, str | None]] = []

    async def proxy(request: web.Request) -> web.Response:
        passed.append((f"{request.method} {request.raw_path}", request.headers.get("Authorization")))
        if request.raw_path.endswith("/models"):
            return web.json_response({"data": [{"id": "m", "owned_by": "them"}]})
        return web.json_response(True, status=400 if request.method == "POST" else 200)

    async with serving(proxy) as url, simulator(SimulatorSettings()) as server:
        monkeypatch.setenv("http_proxy", url)
        assert await asked("http://models.invalid:8000", KEY) == {"m": "them"}
        await asyncio.to_thread(ask_prefect, "http://prefect.invalid/api", "Basic x")
        assert await asked(server.url) == {"simulated": "conclave-simulator"}

    root = "http://models.invalid:8000/v1"
    assert passed == [
        (f"GET {root}/models", f"Bearer {KEY}"),
        (f"POST {root}/chat/completions", f"Bearer {KEY}"),
        ("GET http://prefect.invalid/api/health", "Basic x"),
        ("GET http://prefect.invalid/api/admin/version", "Basic x"),
    ]
