"""Whether a worker works, told over HTTP: 200 while it takes requests, 503 while it waits for something or drains.

Answered from a thread of its own, so that it says also that a loop stands still.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from blocks.exceptions import ConclaveError

Report = Callable[[], dict[str, Any]]

CLOSE_S = 5.0


class HealthUnavailable(ConclaveError):
    """The address of the health endpoint cannot be listened on."""


@asynccontextmanager
async def health(address: str | None, report: Report) -> AsyncGenerator[None, None]:
    """Answer `GET /healthz` with the report while the block runs; nothing without an address.

    The report is made in another thread. Raises HealthUnavailable where the address is taken.
    """
    if address is None:
        yield
        return
    server = _Server(address, report)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


class _Server:
    """The thread that answers."""

    def __init__(self, address: str, report: Report) -> None:
        self._address, self._report = address, report
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="conclave-health", daemon=True)

    async def start(self) -> None:
        """Answer from now on. Raises HealthUnavailable."""
        self._thread.start()
        await asyncio.wrap_future(self._started)

    async def stop(self) -> None:
        """Answer no more."""
        self._started.result().call_soon_threadsafe(self._closing.set)
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  # told to whoever starts it
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)
        await runner.setup()
        try:
            host, _, port = self._address.rpartition(":")
            try:
                await web.TCPSite(runner, host, int(port)).start()
            except OSError as error:
                raise HealthUnavailable(f"CONCLAVE_WORKER_HEALTH={self._address}: {error.strerror}") from error
            self._started.set_result(asyncio.get_running_loop())
            await self._closing.wait()
        finally:
            await runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        body = self._report()
        return web.json_response(body, status=200 if body["ready"] else 503)
