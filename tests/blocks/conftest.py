"""Connections of a test's own, model servers that answer as told, and NATS servers that can be killed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from infra.simulator import FaultRule, SimulatorSettings, simulator

MESSAGES = [{"role": "user", "content": "# Task\nWrite a function to merge sorted arrays\n"}]


@pytest.fixture(autouse=True)
def _settings_are_there(importable_prefect: None) -> None:
    """Prefect reads its settings at import, so every test here imports blocks only in its own time."""


@pytest_asyncio.fixture
async def own_connections(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None, None]:
    """A scope of this test's own, closed at its end, though the session's stays open on the same loop."""
    import blocks.connections

    monkeypatch.setattr(blocks.connections, "_pools", WeakKeyDictionary())
    async with blocks.connections.connections():
        yield


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# --- model servers --------------------------------------------------------------------------------


class Asker:
    """Asks a model server through the block, and keeps what it says of failed attempts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failed: list[tuple[int, Exception]] = []

    def block(self, **fields: Any) -> Any:
        """The block for this server, with short pauses."""
        from blocks.vllm_server import VLLM

        return VLLM(base_url=self.url, **{"backoff_s": 0.01, **fields})

    async def ask(
        self,
        *,
        deadline_s: float = 60,
        request_id: str = "r",
        server: Any = None,
        call: Any = None,
        learnt: Any = None,
        **fields: Any,
    ) -> Any:
        """One completion; `call` are fields of the call, the others of the block."""
        from blocks.chat import ChatCall

        async def failed(attempt: int, error: Exception, duration_ms: int) -> None:
            self.failed.append((attempt, error))

        wanted = {"messages": MESSAGES, "request_id": request_id, "seed": 1, "temperature": 0.7, "max_tokens": 2048}
        chat = ChatCall(**{**wanted, **(call or {})})
        deadline = asyncio.get_running_loop().time() + deadline_s
        return await (server or self.block(**fields)).complete(chat, deadline, failed, learnt)

    async def book(self, request_id: str = "r") -> list[dict[str, Any]]:
        """What the simulator saw of a call, one entry for each request."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/sim/calls") as answer:
            requests: list[dict[str, Any]] = (await answer.json())["requests"]
        return [entry for entry in requests if entry["request_id"] == request_id]

    async def until(self, field: str, request_id: str = "r") -> dict[str, Any]:
        """The book's last entry of a call, once its field is set."""
        async with asyncio.timeout(20):
            while not (entries := await self.book(request_id)) or not entries[-1][field]:
                await asyncio.sleep(0.01)
        return entries[-1]


@pytest.fixture
def simulated(own_connections: None) -> Callable[..., AbstractAsyncContextManager[Asker]]:
    """Start a simulator without latency, with these faults from the start; keywords are its settings."""

    @asynccontextmanager
    async def start(*faults: dict[str, Any], **settings: Any) -> AsyncIterator[Asker]:
        rules = tuple(FaultRule(**fault) for fault in faults)
        async with simulator(SimulatorSettings(**{"latency_s": 0, "faults": rules, **settings})) as server:
            yield Asker(server.url)

    return start


@pytest.fixture
def answering(own_connections: None) -> Callable[..., AbstractAsyncContextManager[Asker]]:
    """Start a server whose completions come from a handler; `models` answers /v1/models."""

    async def listed(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "m", "owned_by": "vllm"}]})

    @asynccontextmanager
    async def start(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]], models: Any = listed
    ) -> AsyncIterator[Asker]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", handler), web.get("/v1/models", models)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield Asker(f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()

    return start


# --- NATS -----------------------------------------------------------------------------------------


class NatsServer:
    """A nats-server of the test's own, which can be killed and started again on its store."""

    def __init__(self, store: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        assert binary, "the environment has no nats-server"
        self._command = [binary, "-a", "127.0.0.1", "-p", str(self.port), *(options or ("-js", "-sd", str(store)))]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start and wait until it takes connections."""
        null = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=null, stderr=null)
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._process = None


@pytest.fixture
def nats_server(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[NatsServer]]:
    """Start a nats-server with JetStream, or with the options given."""

    @asynccontextmanager
    async def start(*options: str) -> AsyncIterator[NatsServer]:
        server = NatsServer(tmp_path / "nats", *options)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()

    return start
