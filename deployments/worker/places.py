"""Places for flow runs that start: more than a few only wait for one another's lock in Prefect's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from blocks.work_queue import Lane


class Places:
    """So many starts at the same moment; who waits in the lane `batch` lets the others pass."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._people = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def starting(self, lane: Lane) -> AsyncGenerator[Callable[[], None], None]:
        """Wait for a place; the function that is given frees it, and so does the end of the block."""
        await self._taken(lane)
        held = True

        def started() -> None:
            nonlocal held
            if held:
                held = False
                self._free += 1
                self._waking = asyncio.ensure_future(self._wake())

        try:
            yield started
        finally:
            started()

    async def _taken(self, lane: Lane) -> None:
        person = lane == "interactive"
        self._people += person
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._free > 0 and (person or not self._people))
                self._free -= 1
        finally:
            self._people -= person

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
