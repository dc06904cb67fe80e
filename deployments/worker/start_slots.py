"""Slots for flow runs that start: more than a few only wait for one another's lock in Prefect's database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from blocks.record.queue import LANES
from blocks.record.subjects import Lane


class StartSlots:
    """So many starts at the same moment; who waits in the lane `batch` lets the others pass."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in LANES}

    @asynccontextmanager
    async def starting(self, lane: Lane) -> AsyncGenerator[Callable[[], None], None]:
        """Wait for a slot; the function that is given frees it, and so does the end of the block."""
        await self._taken(lane)
        held = True

        def started() -> None:
            nonlocal held
            if held:
                held = False
                self._passed_on()

        try:
            yield started
        finally:
            started()

    async def _taken(self, lane: Lane) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came just now: the next one's it is
                self._passed_on()
            raise

    def _passed_on(self) -> None:
        """Give the slot to the next who waits, people first."""
        for lane in LANES:
            while self._waiting[lane]:
                turn = self._waiting[lane].popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
