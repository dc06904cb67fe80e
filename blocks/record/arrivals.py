"""Who waits for events is woken when one was stored: one consumer for all who listen in this process, while any does.

What was stored is read from the streams by whoever was woken, so nothing is handed on here that could be lost, brought
twice, or pile up where a listener is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator
from contextlib import contextmanager

from blocks.background import background
from blocks.record.events import Record

LINGER_S = 30.0
"""How long events are heard of after the last who listened."""
PATTERNS = ("answers.>", "decisions.>", "deliberations.>")


class Arrival(asyncio.Event):
    """Set whenever something has arrived; to be cleared before one looks for it."""

    async def heard(self) -> None:
        """Return once something has arrived since it was cleared."""
        await self.wait()


class Arrivals:
    """Tells of stored events by the deliberation that they are of; `run` has to be at work meanwhile."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._waiting: dict[str | None, set[Arrival]] = {}
        self._somebody = asyncio.Event()
        self.count = 0
        """Grows whenever somebody may have been woken."""

    async def run(self) -> None:
        """Hear of events; never ends. Raises RecordError where the streams cannot be followed; then run it again."""
        while True:
            await self._somebody.wait()
            begins = [(pattern, await self._record.last_sequence(pattern)) for pattern in PATTERNS]
            self._wake(*self._waiting)  # what was stored before this was heard of by nobody
            async with background(*(self._hear(pattern, after) for pattern, after in begins)) as hearing:
                await self._until_left(hearing)

    async def _until_left(self, hearing: Collection[asyncio.Task[None]]) -> None:
        """Wait until nobody has listened for a while. Raises what ends the hearing."""
        while self._somebody.is_set():
            done, _ = await asyncio.wait(hearing, timeout=LINGER_S, return_when=asyncio.FIRST_EXCEPTION)
            for ended in done:
                ended.result()
            if not self._waiting:
                self._somebody.clear()

    @contextmanager
    def of(self, deliberation_id: str | None) -> Generator[Arrival, None, None]:
        """What is set whenever one of the deliberation's, or of any where that is None, was stored."""
        woken = Arrival()
        self._waiting.setdefault(deliberation_id, set()).add(woken)
        self._somebody.set()
        try:
            yield woken
        finally:
            self._waiting[deliberation_id].discard(woken)
            if not self._waiting[deliberation_id]:
                del self._waiting[deliberation_id]

    async def _hear(self, pattern: str, after: int) -> None:
        async for event in self._record.follow(pattern, after, headers_only=True):
            self._wake(event.subject.split(".")[1], None)

    def _wake(self, *deliberations: str | None) -> None:
        self.count += 1
        for one in deliberations:
            for woken in self._waiting.get(one, ()):
                woken.set()
