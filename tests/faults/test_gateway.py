"""A gateway or its NATS that is killed while others are to be told of an end: they are told all the same."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from blocks.connections import connections
from blocks.record.events import Record
from blocks.record.server import JetStreamServer
from deployments.gateway.settings import TOKEN_FILE
from tasks.access import signing
from tasks.access.texts import new_text
from tests.blocks.conftest import NatsServer, free_port
from tests.deployments.gateway.parts import PATH, TASK, Run
from tests.deployments.gateway.receiver import Receiver, answer, receiving

pytestmark = [pytest.mark.servers, pytest.mark.timeout(200)]


@pytest_asyncio.fixture
async def nats(tmp_path: Path) -> AsyncGenerator[NatsServer, None]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest_asyncio.fixture
async def record(nats: NatsServer) -> AsyncGenerator[Record, None]:
    async with connections():
        yield await JetStreamServer(servers=[nats.url]).record()


@pytest_asyncio.fixture
async def receiver() -> AsyncGenerator[Receiver, None]:
    async with receiving() as found:
        yield found


class Process:
    """`python -m deployments.gateway`, as anybody runs it, with a token of its own."""

    def __init__(self, nats: NatsServer, token: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._session: aiohttp.ClientSession | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._token = token
        if not token.exists():
            token.write_text(new_text())
        self._environ = {
            **os.environ,
            "NATS_URL": nats.url,
            "CONCLAVE_GATEWAY": self.url.removeprefix("http://"),
            "CONCLAVE_CALLBACK_NETWORKS": "127.0.0.0/8",
            TOKEN_FILE: str(token),
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        """Serve while the block runs; killed after it, if it was not before."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deployments.gateway", env=self._environ
        )
        try:
            async with aiohttp.ClientSession() as self._session:
                await self._ready()
                yield self
        finally:
            await self.kill()

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._token.read_text()}"}
        async with self._session.request(method, self.url + path, headers=headers, **options) as told:
            assert told.status < 300, await told.text()
            return await told.json()

    async def delivery(self, one: str, tries: int) -> Any:
        """The first delivery of a deliberation, once it was tried so often."""
        async with asyncio.timeout(60):
            while True:
                found = (await self.ask("GET", f"{PATH}/{one}/deliveries"))["deliveries"]
                if found and len(found[0]["tries"]) >= tries:
                    return found[0]
                await asyncio.sleep(0.05)

    async def _ready(self) -> None:
        assert self._session is not None
        async with asyncio.timeout(30):
            while True:
                try:
                    async with self._session.get(f"{self.url}/readyz"):
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)


async def test_a_gateway_that_is_killed_in_the_middle_of_a_try_leaves_it_to_the_next(
    nats: NatsServer, record: Record, receiver: Receiver, tmp_path: Path
) -> None:
    """What it had taken comes again half a minute later, under the same id."""
    secret = (await signing.create(record, "home")).secret
    receiver.hang_s = 60.0
    async with Process(nats, tmp_path / "token").serving() as gateway:
        await gateway.ask("POST", PATH, json={"task": TASK, "id": "task-1", "callback_url": receiver.url})
        await Run(record, "task-1", owner="home").whole()
        await receiver.heard()
        await gateway.kill()
    receiver.hang_s = 0.0
    async with Process(nats, tmp_path / "token").serving() as gateway:
        arrivals = await receiver.heard(2, within_s=90)
        delivery = await gateway.delivery("task-1", 1)
    assert [arrival.headers["webhook-id"] for arrival in arrivals] == ["task-1-1"] * 2
    arrivals[1].checked(secret)
    assert (delivery["state"], len(delivery["tries"])) == ("delivered", 1)


async def test_nats_that_is_killed_while_a_try_waits_brings_it_neither_early_nor_never(
    nats: NatsServer, record: Record, receiver: Receiver, tmp_path: Path
) -> None:
    await signing.create(record, "home")
    receiver.answers = [answer(503, Retry_After="8"), answer(200)]
    async with Process(nats, tmp_path / "token").serving() as gateway:
        await gateway.ask("POST", PATH, json={"task": TASK, "id": "task-1", "callback_url": receiver.url})
        await Run(record, "task-1", owner="home").whole()
        waiting = await gateway.delivery("task-1", 1)
        await nats.kill()
        await nats.start()
        await receiver.heard(2, within_s=90)
        delivered = await gateway.delivery("task-1", 2)
    assert delivered["state"] == "delivered"
    assert delivered["tries"][1]["at"] >= waiting["next_at"]
