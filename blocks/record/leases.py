"""Leases: who runs a deliberation now, renewed from a thread that a busy event loop cannot stall.

A lease is a key of the bucket `conclave-leases` that the server forgets `LEASE_S` after its last renewal. It keeps
two from doing the same work at once. What refuses the writes of a holder that was thought dead and is not is the
fence of its epoch (`Record.fence`).
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nats.errors
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError

from blocks.connections import connections
from blocks.exceptions import RecordUnavailable, Superseded
from blocks.record.events import Record
from blocks.record.lease_keys import LEASE_S
from blocks.record.patience import TRANSIENT

T = TypeVar("T")

WAIT_S = LEASE_S / 20
RENEW_S = LEASE_S / 4
WORKING = b"+WPI"
"""JetStream's acknowledgement that says: still at work, do not deliver it again yet."""
STALLED_S = 120.0
"""A loop that has not turned for so long is lost: its leases are left to others."""
START_S = 30.0
CLOSE_S = 10.0


@dataclass
class Lease:
    """A lease that is held: `epoch` grows from holder to holder of a key; `waited`: another one had it first."""

    key: str
    epoch: int
    waited: bool = False
    holder: bytes = b""
    revision: int = 0
    renewed_at: float = 0.0
    lost: bool = False
    _watchers: list[Callable[[], None]] = field(default_factory=list)
    _leases: Leases | None = None

    async def check(self) -> None:
        """Raise Superseded unless it is still held."""
        assert self._leases is not None
        await self._leases.check(self)

    def lose(self) -> None:
        """Tell whoever works under it that it is somebody else's."""
        self.lost = True
        for watcher in self._watchers:
            watcher()


carried: ContextVar[Lease | None] = ContextVar("carried_lease", default=None)
"""The lease that a worker took for the flow that it runs; the flow goes on under it."""


class Leases:
    """A thread with a loop and a connection of its own, that holds leases for the loop which made it."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Record]], stalled_s: float = STALLED_S) -> None:
        self._connect, self._stalled_s = connect, stalled_s
        self._owner = asyncio.get_running_loop()
        self._turned_at = time.monotonic()
        self._held: dict[str, Lease] = {}
        self._deliveries: set[str] = set()
        self._started: asyncio.Future[None] = self._owner.create_future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._record: Record | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conclave-leases", daemon=True)

    async def open(self) -> None:
        """Start the thread. Raises RecordError where no JetStream answers."""
        self._thread.start()
        async with asyncio.timeout(START_S):
            await asyncio.shield(self._started)

    async def close(self) -> None:
        """Let go of everything and end the thread."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    @property
    def stalled(self) -> bool:
        """Whether the loop that made this has not turned for too long."""
        return time.monotonic() - self._turned_at > self._stalled_s

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncGenerator[Lease, None]:
        """Hold a key that nobody else holds, and renew it; waits for another holder.

        Under a lease that is carried here it goes on with that one. Raises Superseded in the block where somebody
        else has taken the lease over, since it could not be renewed in time.
        """
        lease = carried.get()
        if lease is not None and lease.key == key:
            async with until_lost(lease):
                yield lease
            return
        waited = False
        while (lease := await self.take(key)) is None:
            waited = True
            await asyncio.sleep(WAIT_S)
        lease.waited = waited
        try:
            async with until_lost(lease):
                yield lease
        finally:
            await self.release(lease)

    async def take(self, key: str) -> Lease | None:
        """A lease on the key, None where somebody else holds it. To be released."""
        return await self._there(self._take(key))

    async def release(self, lease: Lease) -> None:
        """Let go of a lease, whoever holds it by now."""
        with suppress(RecordUnavailable):
            await self._there(self._release(lease))

    async def check(self, lease: Lease) -> None:
        """Raise Superseded unless the lease is still held: asked of the server where it was not renewed of late."""
        if not lease.lost and time.monotonic() - lease.renewed_at > LEASE_S:
            await self._there(self._renew(lease))
        if lease.lost:
            raise _superseded(lease)

    @asynccontextmanager
    async def working_on(self, reply: str) -> AsyncGenerator[None, None]:
        """Tell JetStream while the block runs that the message with this reply subject is being worked on."""
        self._deliveries.add(reply)
        try:
            yield
        finally:
            self._deliveries.discard(reply)

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop that made this is closed: nobody is left to be told
            try:
                asyncio.run(self._work())
            except Exception as error:  # noqa: BLE001  # told to whoever waits
                self._owner.call_soon_threadsafe(_settle, self._started, error)

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with connections():
            self._record = await self._connect()
            self._owner.call_soon_threadsafe(_settle, self._started, None)
            turned = 0.0
            while not self._closing.is_set():
                await asyncio.sleep(0.05)
                if (turned := turned + 0.05) >= RENEW_S:
                    turned = 0.0
                    await self._keep()
            await asyncio.gather(*(self._release(lease) for lease in list(self._held.values())))

    async def _keep(self) -> None:
        """Renew what is held, unless the owner's loop hangs."""
        with suppress(RuntimeError):
            self._owner.call_soon_threadsafe(self._turn)
        if self.stalled:
            return
        await asyncio.gather(*(self._renew(lease) for lease in list(self._held.values())))
        for reply in list(self._deliveries):
            with suppress(*TRANSIENT, nats.errors.Error):
                await self._there_record.tell(reply, WORKING)

    def _turn(self) -> None:
        self._turned_at = time.monotonic()

    @property
    def _there_record(self) -> Record:
        assert self._record is not None
        return self._record

    async def _take(self, key: str) -> Lease | None:
        lease = Lease(key, 0, holder=uuid.uuid4().hex.encode(), _leases=self)
        revision = await self._there_record.leases.create(key, lease.holder)
        if revision is None:
            return None
        lease.epoch = lease.revision = revision
        lease.renewed_at = time.monotonic()
        self._held[lease.holder.decode()] = lease
        return lease

    async def _renew(self, lease: Lease) -> None:
        """Renew; make it again where the server forgot it and nobody has taken it; lost where somebody has."""
        with suppress(*TRANSIENT, nats.errors.Error):
            leases = self._there_record.leases.bucket
            try:
                lease.revision = await leases.update(lease.key, lease.holder, last=lease.revision)
            except KeyWrongLastSequenceError:
                try:
                    entry = await leases.get(lease.key)
                    if entry.value != lease.holder:
                        self._lose(lease)
                        return
                    lease.revision = await leases.update(lease.key, lease.holder, last=entry.revision)
                except KeyNotFoundError:
                    lease.revision = await leases.create(lease.key, lease.holder)
            lease.renewed_at = time.monotonic()

    async def _release(self, lease: Lease) -> None:
        self._held.pop(lease.holder.decode(), None)
        if lease.lost:
            return
        leases = self._there_record.leases.bucket
        with suppress(*TRANSIENT, nats.errors.Error):
            try:
                await leases.delete(lease.key, last=lease.revision)
            except APIError:  # it was renewed meanwhile, or is somebody else's
                if (await leases.get(lease.key)).value == lease.holder:
                    await leases.delete(lease.key)

    def _lose(self, lease: Lease) -> None:
        self._held.pop(lease.holder.decode(), None)
        with suppress(RuntimeError):
            self._owner.call_soon_threadsafe(lease.lose)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work on the thread's loop."""
        if self._loop is None or self._closing.is_set():
            work.close()
            raise RecordUnavailable("the leases are closed")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


@asynccontextmanager
async def until_lost(lease: Lease) -> AsyncGenerator[None, None]:
    """End the block with Superseded once the lease is somebody else's."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:

            def lost() -> None:
                limit.reschedule(loop.time())

            lease._watchers.append(lost)
            try:
                yield
            finally:
                lease._watchers.remove(lost)
    except TimeoutError as error:
        if limit.expired():
            raise _superseded(lease) from error
        raise


def _superseded(lease: Lease) -> Superseded:
    return Superseded(f"the lease on {lease.key} is somebody else's by now")


def _settle(started: asyncio.Future[None], error: Exception | None) -> None:
    if started.done():
        return
    if error is None:
        started.set_result(None)
    else:
        started.set_exception(error)
