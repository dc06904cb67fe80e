"""A simulator that listens: started in-process by tests, or by `python -m infra.simulator`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from infra.simulator.routes import ROUTES, as_vllm, name_request
from infra.simulator.settings import SimulatorSettings
from infra.simulator.state import STATE, State

MAX_BODY_BYTES = 64 * 2**20
BACKLOG = 4_096
GOODBYE_S = 0.2
"""Seconds that answers under way get when the server is stopped."""


class SimulatorServer:
    """One listening simulator."""

    def __init__(self, settings: SimulatorSettings, die: Callable[[], None] | None = None) -> None:
        """Not listening yet; `die` is the fault of that name, by default a crash of this server alone."""
        self.settings = settings
        self._crashing: asyncio.Task[None] | None = None
        self._state = State(settings, die or self._crash_soon)
        app = web.Application(middlewares=[as_vllm], client_max_size=MAX_BODY_BYTES)
        app[STATE] = self._state
        app.on_response_prepare.append(name_request)
        app.add_routes(ROUTES)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=settings.keepalive_s,
            shutdown_timeout=GOODBYE_S,
        )

    async def start(self) -> None:
        """Begins to listen; raises OSError where the address is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port, backlog=BACKLOG)
        await site.start()
        self._port: int = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening and ends what is under way, within about GOODBYE_S seconds."""
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Root of the server, without /v1."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._port}"

    def _crash_soon(self) -> None:
        self._crashing = asyncio.get_running_loop().create_task(self._crash())

    async def _crash(self) -> None:
        """Goes as a killed process goes: no answer is finished, nobody listens any more."""
        connections = self._runner.server.connections if self._runner.server else []
        for site in self._runner.sites:
            await site.stop()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()


@asynccontextmanager
async def simulator(settings: SimulatorSettings | None = None) -> AsyncIterator[SimulatorServer]:
    """A simulator in this process: `async with simulator(SimulatorSettings(latency_s=0)) as server`."""
    server = SimulatorServer(settings or SimulatorSettings())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
