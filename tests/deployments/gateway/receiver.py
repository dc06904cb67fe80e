"""A receiver of callbacks on a port of its own, which answers what a test says and remembers what came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as StandardWebhook


@dataclass
class Arrival:
    """A request as it came."""

    headers: dict[str, str]
    body: bytes

    def checked(self, secret: str) -> Any:
        """The body, if the standard's library finds its signature good. Raises what that raises."""
        return StandardWebhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """`answers` are given in their order, the last one for ever; `hang_s`: so long nothing is answered."""

    url: str = ""
    arrivals: list[Arrival] = field(default_factory=list)
    answers: list[Callable[[], web.Response]] = field(default_factory=lambda: [lambda: web.Response(status=204)])
    hang_s: float = 0.0

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.arrivals.append(Arrival(headers, await request.read()))
        await asyncio.sleep(self.hang_s)
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()

    async def heard(self, count: int = 1, within_s: float = 20.0) -> list[Arrival]:
        """The arrivals, once there are so many."""
        async with asyncio.timeout(within_s):
            while len(self.arrivals) < count:
                await asyncio.sleep(0.01)
        return self.arrivals


def answer(status: int, **headers: str) -> Callable[[], web.Response]:
    """An answer with this status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.Response(status=status, headers=named)


@asynccontextmanager
async def listening_app(app: web.Application) -> AsyncGenerator[int, None]:
    """An application on a port of its own, on loopback."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver, None]:
    """A receiver."""
    found, app = Receiver(), web.Application()
    app.router.add_post("/{any:.*}", found.take)
    async with listening_app(app) as port:
        found.url = f"http://127.0.0.1:{port}/hook"
        yield found
