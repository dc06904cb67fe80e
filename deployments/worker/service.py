"""What a worker does on its flows' loop: connect, take requests, run them, watch for cancels, drain.

Everything that can be away is waited for, and said in the worker's health. Requests are taken from two lanes, each with
slots of its own, so that people never wait behind a batch.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx

from blocks.background import background
from blocks.connections import connections
from blocks.documents import open_leases, open_record
from blocks.exceptions import ConclaveError, OtherInstallation, RecordError, RecordUnavailable
from blocks.names import carrying
from blocks.ownership import check_same, claim
from blocks.prefect_api import prefect_clients
from blocks.record.events import Record
from blocks.record.installation import note_pool
from blocks.record.queue import LANES, PRESENCE, Delivery, WorkQueue
from blocks.record.subjects import Lane
from blocks.warm.garbage import spare_what_is_loaded
from deployments.listeners import listen, read_listeners
from deployments.ownership import own_record
from deployments.settings import Settings
from deployments.worker.cancelling import watch_cancels
from deployments.worker.cluster import Cluster
from deployments.worker.doors import Door
from deployments.worker.health import health
from deployments.worker.mirroring import keep_mirror
from deployments.worker.pending import watch_pending
from deployments.worker.runs import Runs
from deployments.worker.stalls import LoopWatch
from deployments.worker.start_slots import StartSlots
from tasks.deliberations.submit import Request, enqueue

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

TAKE_S = 1.0
"""How long one question to the queue waits; so long a drain waits for the last one."""
AGAIN_S = 2.0


class WorkerService:
    """The worker on its loop; made on another thread, and told from there only to drain.

    Raises EventFileError for a file of listeners that cannot be used.
    """

    def __init__(
        self, settings: Settings, pool: str, concurrency: int, log: Log, watch: LoopWatch, polls: Door | None = None
    ) -> None:
        self._settings, self._pool, self._log = settings, pool, log
        self._watch, self._polls = watch, polls
        self._lanes = {lane: Door(f"the queue (lane {lane})") for lane in LANES}
        self._slots: dict[Lane, asyncio.Semaphore] = {
            "interactive": asyncio.Semaphore(concurrency),
            "batch": asyncio.Semaphore(min(concurrency, settings.worker_batch)),
        }
        self._listeners = read_listeners(settings.listeners) if settings.listeners else []
        self._cluster = Cluster(log)
        self._idle = asyncio.Condition()
        self._draining = asyncio.Event()
        self._waiting: str | None = "connecting"
        self._runs: Runs | None = None
        self._record: Record | None = None
        self._works: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests are taken from the queue."""
        return self._waiting is None and self._cluster.trouble is None and not self._draining.is_set()

    @property
    def left(self) -> bool:
        """Whether the drain left something running, which was handed back."""
        return bool(self._works)

    def drain(self) -> None:
        """Take nothing any more, and end once nothing runs or the limit is over."""
        self._draining.set()

    async def enqueue(self, request: Request) -> None:
        """Put a request into the queue. Raises RecordError."""
        if self._record is None:
            raise RecordUnavailable("the worker is not connected yet")
        await enqueue(self._record, request)

    def report(self) -> dict[str, Any]:
        """What the health endpoint tells, from its own thread."""
        runs, trouble, draining = self._runs, self._trouble(), self._draining.is_set()
        takes = [lane.age_s for lane in self._lanes.values() if lane.age_s is not None]
        return {
            "ready": trouble is None and not draining,
            "waiting_for": trouble,
            "draining": draining,
            "last_poll_s": self._polls.age_s if self._polls else None,
            "last_take_s": min(takes, default=None),
            "in_work": len(runs.in_work) if runs else 0,
            "peak": runs.peak if runs else 0,
            "ended": runs.ended if runs else 0,
            "newer": runs.failures.newer if runs else 0,
        }

    async def work(self) -> None:
        """Serve until drained. Raises HealthUnavailable."""
        async with health(self._settings.worker_health, self.report):
            while not self._draining.is_set():
                try:
                    await self._serve()
                    return
                except (ConclaveError, httpx.HTTPError) as error:  # away at the start
                    self._wait_for(str(error) or type(error).__name__)
                await self._pause(AGAIN_S)

    async def _serve(self) -> None:
        async with prefect_clients(), connections():
            record, leases = await self._own(), await open_leases()
            self._record = record
            start_slots = StartSlots(self._settings.worker_starts)
            runs = self._runs = Runs(self._record, leases, self._cluster, start_slots, self._log)
            async with leases.hold(f"{PRESENCE}{uuid.uuid4().hex}"):
                self._waiting = None
                spare_what_is_loaded()
                async with background(
                    self._kept("the connection to Ray", lambda: self._cluster.keep(self._idle, runs.in_work)),
                    self._kept("the watch for cancels", lambda: watch_cancels(runs, self._log)),
                    self._kept("the watch for lost runs", lambda: watch_pending(runs, self._log)),
                    self._kept("the mirror of the councils", lambda: keep_mirror(runs.record, self._log)),
                    self._kept("listening", lambda: listen(runs.record, self._listeners, self._log)),
                ):
                    await self._take(runs)

    async def _own(self) -> Record:
        """The record, where it and Prefect's names are this installation's. Raises OtherInstallation."""
        if (begin := carrying(self._settings.prefix or "", "")) and not self._pool.startswith(begin):
            raise OtherInstallation(f"the work pool {self._pool!r} does not carry the prefix {self._settings.prefix!r}")
        own = await own_record(self._settings)
        await claim(own)
        record = await open_record()
        await check_same(record, own.installation)
        await note_pool(record, self._pool)
        return record

    async def _take(self, runs: Runs) -> None:
        """Take from both lanes until the drain begins, then see to the end of what runs."""
        await asyncio.gather(*(self._kept(f"lane {lane}", partial(self._take_from, lane, runs)) for lane in LANES))
        if self._works:
            self._log.info("draining: %s requests are in work", len(self._works))
            await asyncio.wait(self._works, timeout=self._settings.worker_drain_s)
        if self._works:
            self._log.warning("%s requests did not end in time, and are handed back", len(self._works))
            await runs.hand_back()

    async def _take_from(self, lane: Lane, runs: Runs) -> None:
        queue, slots, told = WorkQueue(runs.record, lane), self._slots[lane], False
        door = self._lanes[lane]
        try:
            while not self._draining.is_set():
                if not await self._room(slots):
                    door.idle()
                    continue
                door.asked()
                try:
                    delivery = await queue.take(TAKE_S)
                    door.answered()
                    told = False
                except RecordError as error:
                    delivery = None
                    door.failed(str(error))
                    if not told:
                        self._log.warning("lane %s: %s", lane, error)
                    told = True
                    await self._pause(AGAIN_S)
                await self._taken(delivery, slots, runs)
        finally:
            await queue.close()

    async def _room(self, slots: asyncio.Semaphore) -> bool:
        """A slot for one more; False after a while without, so that a drain is heard."""
        try:
            async with asyncio.timeout(TAKE_S):
                await self._cluster.ready()
                await slots.acquire()
        except TimeoutError:
            return False
        return True

    async def _taken(self, delivery: Delivery | None, slots: asyncio.Semaphore, runs: Runs) -> None:
        if delivery is None or self._draining.is_set():
            slots.release()
            if delivery is not None:
                await delivery.hand_back()
            return
        work = asyncio.create_task(self._work_on(delivery, slots, runs))
        self._works.add(work)
        work.add_done_callback(self._works.discard)

    async def _work_on(self, delivery: Delivery, slots: asyncio.Semaphore, runs: Runs) -> None:
        try:
            await runs.run(delivery)
        finally:
            slots.release()
            async with self._idle:
                self._idle.notify_all()

    def _trouble(self) -> str | None:
        """What stands in the way of requests; None where they are taken."""
        doors = [*self._lanes.values(), *([self._polls] if self._polls else [])]
        found = (self._watch.trouble, self._waiting, self._cluster.trouble, *(door.trouble for door in doors))
        return next((trouble for trouble in found if trouble), None)

    # --- inside -----------------------------------------------------------------------------------

    async def _kept(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Let work go on: what ends it is told, and it begins again."""
        while not self._draining.is_set():
            try:
                await work()
                return
            except Exception:  # noqa: BLE001  # told, and begun again
                self._log.exception("%s failed, and begins again", what)
            await self._pause(AGAIN_S)

    def _wait_for(self, what: str) -> None:
        if self._waiting != what:
            self._log.warning("waiting: %s", what)
        self._waiting = what

    async def _pause(self, seconds: float) -> None:
        """Let time pass, unless a drain begins."""
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            pass
