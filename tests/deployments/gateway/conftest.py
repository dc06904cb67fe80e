"""A gateway in this process, on a NATS in memory or on a real one; without Prefect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

import blocks.connections
import blocks.record.server
from deployments.gateway import service
from tests.blocks.conftest import NatsServer
from tests.deployments.gateway.parts import Gateway, gateway_at
from tests.fakes.memory_nats import MemoryNats
from tests.fakes.short_leases import shorten_leases

MEMORY = "nats://memory:4222"


@pytest.fixture(autouse=True)
def _own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope of this test's own, though the session's stays open on the same loop; work begins again at once."""
    monkeypatch.setattr(blocks.connections, "_pools", WeakKeyDictionary())
    monkeypatch.setattr(service, "AGAIN_S", 0.02)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryNats:
    """A NATS in memory, which whoever connects from now on reaches."""
    nats = MemoryNats()
    monkeypatch.setattr(blocks.record.server, "Client", nats.client)
    shorten_leases(monkeypatch, 0.5)
    return nats


@pytest.fixture
def serve(memory: MemoryNats) -> Callable[..., AbstractAsyncContextManager[Gateway]]:
    """`async with serve(rate="2/second") as gateway`: one on the NATS in memory, with these settings."""
    return lambda **settings: gateway_at(MEMORY, **settings)


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the gateway, for tests to have others."""
    return {}


@pytest_asyncio.fixture
async def gateway(serve: Any, settings: dict[str, Any]) -> AsyncGenerator[Gateway, None]:
    """A gateway on the NATS in memory."""
    async with serve(**settings) as found:
        yield found


@pytest_asyncio.fixture
async def nats_server(tmp_path: Path) -> AsyncGenerator[NatsServer, None]:
    """A real nats-server with JetStream."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest_asyncio.fixture(params=["memory", "nats"])
async def either(
    request: pytest.FixtureRequest, tmp_path: Path, settings: dict[str, Any]
) -> AsyncGenerator[Gateway, None]:
    """A gateway on the NATS in memory, then one on a real one, where the fake could agree with the code alone."""
    server = NatsServer(tmp_path / "nats")
    if request.param == "memory":
        request.getfixturevalue("memory")
    else:
        await server.start()
    try:
        async with gateway_at(MEMORY if request.param == "memory" else server.url, **settings) as found:
            yield found
    finally:
        await server.kill()
