"""The floor: what the answers cost a plain client, with nothing around them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from deployments.bench.peers.peer import Bench
from deployments.bench.samples import Sample, now

OPTIONS = {
    "client": "one aiohttp session, no limit of connections, TCP_NODELAY",
    "connections": "opened before the clock starts",
    "requests": "serialised before the clock starts; answers are read whole and not parsed",
    "does_not_do": "no record, no decision, no retries",
}


class Floor:
    """All requests at once from one aiohttp session, until the last byte."""

    title = "floor"
    packages = ("aiohttp",)
    options = OPTIONS

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def sample(self, size: int) -> Sample:
        """One council's answers."""
        server, run_id = self._bench.server, f"floor-{uuid.uuid4()}"
        ids = {f"{run_id}:{member.agent_id}": member for member in self._bench.council.sized(size).members}
        bodies = {request_id: server.body(member, request_id) for request_id, member in ids.items()}
        await server.open(size)
        started = now()
        await asyncio.gather(*(server.ask(*each) for each in bodies.items()))
        return await server.sample(run_id, started, started, now())


@asynccontextmanager
async def floor(bench: Bench) -> AsyncGenerator[Floor, None]:
    """The floor."""
    yield Floor(bench)
