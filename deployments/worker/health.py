"""Whether a worker works, told over HTTP: 200 while it takes requests, 503 while it waits for something or drains.

Answered by the loop that runs the flows, so that a loop which hangs gives no answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from blocks.exceptions import ConclaveError

Report = Callable[[], dict[str, Any]]


class HealthUnavailable(ConclaveError):
    """The address of the health endpoint cannot be listened on."""


@asynccontextmanager
async def health(address: str | None, report: Report) -> AsyncGenerator[None, None]:
    """Answer `GET /healthz` with the report while the block runs; nothing without an address.

    Raises HealthUnavailable where the address is taken.
    """
    if address is None:
        yield
        return

    async def answer(_request: web.Request) -> web.Response:
        body = report()
        return web.json_response(body, status=200 if body["ready"] else 503)

    app = web.Application()
    app.add_routes([web.get("/healthz", answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(runner, host, int(port)).start()
        except OSError as error:
            raise HealthUnavailable(f"CONCLAVE_WORKER_HEALTH={address}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
