"""Who may call Prefect's server: its own pages, under its own names, and clients that are no browsers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.websockets import WebSocket

pytestmark = pytest.mark.servers

OWN = ("http://127.0.0.1:4200", "http://localhost:4200")
PAGE = {"accept": "text/html,*/*"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An application behind the doors of Prefect's."""
    from fastapi import FastAPI
    from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings
    from starlette.routing import WebSocketRoute

    from infra.prefect_server import guard

    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    def anything(path: str) -> dict[str, str]:
        return {"path": path}

    async def events(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"told": True})
        await socket.close()

    app.router.routes.append(WebSocketRoute("/api/events/out", events))
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: ",".join(OWN)}):
        guard(app)
    return app


async def asked(app: FastAPI, method: str, url: str, **headers: str) -> httpx.Response:
    """One answer."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
        return await client.request(method, url, headers=headers)


@pytest.mark.parametrize("origin", [None, *OWN])
@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "[::1]:4200", "prefect-in-memory"])
async def test_own_pages_and_other_clients_are_answered(served: FastAPI, host: str, origin: str | None) -> None:
    """Under every name that the server has."""
    headers = {"origin": origin} if origin else {}
    for method in ("GET", "POST", "OPTIONS"):
        assert (await asked(served, method, f"http://{host}/api/health", **headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("evil.example:4200", None, 400),
        ("127.0.0.1.evil.example:4200", None, 400),
        ("localhost.:4200", None, 400),
        ("127.0.0.1:4200", "http://evil.example", 403),
        ("127.0.0.1:4200", "http://127.0.0.1:4201", 403),
        ("127.0.0.1:4200", "https://127.0.0.1:4200", 403),
        ("127.0.0.1:4200", "http://127.0.0.1:4200.evil.example", 403),
        ("127.0.0.1:4200", "null", 403),
        ("127.0.0.1:4200", "", 403),
    ],
)
async def test_others_are_refused(served: FastAPI, host: str, origin: str | None, code: int) -> None:
    """Foreign pages, and names that somebody has pointed at this machine; a websocket likewise."""
    headers = {} if origin is None else {"origin": origin}
    for method in ("GET", "POST", "OPTIONS"):
        for path in ("", "api/health", "api/flow_runs/filter"):
            got = await asked(served, method, f"http://{host}/{path}", **headers, **PAGE)
            assert got.status_code == code, (method, path)
    assert await listened(served, host, origin) == ["websocket.http.response.start", "websocket.http.response.body"]


async def listened(app: FastAPI, host: str, origin: str | None) -> list[str]:
    """What is sent to a websocket that asks for events."""
    headers = {"host": host, "upgrade": "websocket"} | ({} if origin is None else {"origin": origin})
    scope = {
        "type": "websocket",
        "path": "/api/events/out",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "query_string": b"",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app(scope, receive, send)
    return sent


async def test_the_servers_own_pages_may_listen(served: FastAPI) -> None:
    """To what others are refused."""
    told = ["websocket.accept", "websocket.send", "websocket.close"]
    assert [await listened(served, "127.0.0.1:4200", origin) for origin in (None, *OWN)] == [told] * 3


async def test_pages_have_one_origin(served: FastAPI) -> None:
    """Those that are opened at localhost lead to 127.0.0.1; calls of the API do not."""
    page = await asked(served, "GET", "http://localhost:4200/v2/runs?tab=a%20b&x=1", **PAGE)
    assert (page.status_code, page.headers["location"]) == (307, "http://127.0.0.1:4200/v2/runs?tab=a%20b&x=1")
    for url, headers in (
        ("http://localhost:4200/api/health", PAGE),
        ("http://localhost:4200/assets/a.js", {"accept": "*/*"}),
        ("http://127.0.0.1:4200/runs", PAGE),
        ("http://localhost:9999/runs", PAGE),
    ):
        assert (await asked(served, "GET", url, **headers)).status_code == 200, url
    odd = await asked(served, "GET", "http://localhost:4200//evil.example/", **PAGE)
    assert odd.headers["location"].startswith("http://127.0.0.1:4200//")
