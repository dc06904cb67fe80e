"""The second thread of a worker, whose event loop runs the flows.

On the main thread Prefect's `capture_sigterm` would end every flow at SIGTERM; here they go on while the main thread's
handler drains the worker. The thread has an owner, `ConclaveWorker`, which starts it and waits for its end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from blocks.background import background
from blocks.exceptions import RecordUnavailable
from deployments.settings import Settings
from deployments.worker.doors import Door
from deployments.worker.service import WorkerService
from deployments.worker.stalls import LoopWatch
from tasks.deliberations.submit import Request

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

STOP_S = 10.0
"""How much longer than the drain the end of the thread may take."""


class FlowsThread:
    """Starts and ends the thread, and reaches into it; `polls` is Prefect's door, where somebody asks it."""

    def __init__(
        self, settings: Settings, pool: str, limit: int | None, log: Log, watch: LoopWatch, polls: Door | None = None
    ) -> None:
        self._settings, self._log, self._watch = settings, log, watch
        self._service = WorkerService(settings, pool, limit or settings.worker_concurrency, log, watch, polls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="conclave-flows", daemon=True)

    def start(self) -> None:
        """Start; what the flows need is connected to in there, and waited for."""
        self._thread.start()

    async def stop(self) -> None:
        """Let what runs finish within the limit, hand the rest back, and end the thread."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.drain)
        await asyncio.to_thread(self._thread.join, self._settings.worker_drain_s + STOP_S)
        if self._thread.is_alive():
            self._log.warning("the flows' loop did not end; what it ran is taken up by the next worker")

    @property
    def ready(self) -> bool:
        """Whether requests can be put into the queue and are taken from it."""
        return self._thread.is_alive() and self._service.ready

    async def enqueue(self, request: Request) -> None:
        """Put a request into the queue. Raises RecordError."""
        await self._there(self._service.enqueue(request))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise RecordUnavailable("the flows' loop is not running")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _work(self) -> None:
        async with background(self._watch.beating("the flows' loop")):
            await self._service.work()

    def _run(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._work())
        except Exception as error:  # noqa: BLE001  # told to the main thread, which ends the worker
            self._log.exception("the flows' loop ended; its requests are delivered again to another worker")
            self.failure = error
            return
        if self._service.left:  # what was handed back must not be cancelled: its members' calls go on, and count
            return
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
