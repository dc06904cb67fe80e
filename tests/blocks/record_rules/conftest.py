"""A NATS for the suite of the record's rules: the fake of `tests/fakes`, and a real one."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.blocks.conftest import NatsServer
from tests.fakes.memory_nats import MemoryNats
from tests.fakes.short_leases import shorten_leases


class RealBroker:
    """A nats-server, by what the suite of the record's rules asks of it."""

    lease_s = 2.0

    def __init__(self, server: NatsServer) -> None:
        self._server, self.url = server, server.url

    @asynccontextmanager
    async def absent(self) -> AsyncIterator[None]:
        """It was killed, and is started again at the end of the block."""
        await self._server.kill()
        try:
            yield
        finally:
            await self._server.start()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """It is there, and does nothing while the block runs."""
        assert self._server._process is not None
        self._server._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server._process.send_signal(signal.SIGCONT)


class MemoryBroker:
    """The fake of one."""

    lease_s = 0.5
    url = "nats://memory:4222"

    def __init__(self) -> None:
        self.server = MemoryNats()

    @asynccontextmanager
    async def absent(self) -> AsyncIterator[None]:
        """Nobody answers while the block runs, and consumers in memory are forgotten."""
        async with self.server.absent():
            yield

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """It does nothing while the block runs."""
        self.server.still = True
        try:
            yield
        finally:
            self.server.still = False


@pytest_asyncio.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.servers)])
async def broker(
    request: pytest.FixtureRequest, nats_server: Any, own_connections: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[RealBroker | MemoryBroker, None]:
    """A NATS with JetStream of the test's own: the fake, then a real one. Leases are short, so that they run out."""
    import blocks.record.events
    import blocks.record.server

    async with AsyncExitStack() as opened:
        found: RealBroker | MemoryBroker
        if request.param == "memory":
            found = MemoryBroker()
            monkeypatch.setattr(blocks.record.server, "Client", found.server.client)
        else:
            found = RealBroker(await opened.enter_async_context(nats_server()))
        shorten_leases(monkeypatch, found.lease_s)
        monkeypatch.setattr(blocks.record.events, "POLL_S", 0.2)
        yield found


@pytest_asyncio.fixture
async def open_record(broker: Any) -> AsyncGenerator[Callable[..., Awaitable[Any]], None]:
    """Another connection to the broker's record: `record = await open_record(patience_s=1)`."""
    from blocks.jetstream import JetStream

    closing = []

    async def open_(**fields: Any) -> Any:
        record, close = await JetStream(servers=[broker.url], **{"patience_s": 20, **fields})._connect()
        closing.append(close)
        return record

    yield open_
    for close in closing:
        await close()


@pytest_asyncio.fixture
async def record(open_record: Any) -> Any:
    """The record on the broker."""
    return await open_record()


@pytest_asyncio.fixture
async def leases(broker: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Leases on the broker, held for the test's loop from a thread."""
    from blocks import documents
    from blocks.jetstream import JetStream

    async def block() -> tuple[JetStream, Any]:
        return JetStream(servers=[broker.url], patience_s=20), documents._nothing

    monkeypatch.setattr(documents, "_read_jetstream", block)
    return await documents.open_leases()
