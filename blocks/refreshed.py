"""What is read often and changes seldom: read again beside those who ask for it, who seldom wait (RFC 5861)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Refreshed(Generic[T]):
    """A value that began to be read at most `kept_s` seconds before it was asked for.

    Who asks in the second half of that has it read again meanwhile; who has to wait, waits for a reading under way.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], kept_s: float) -> None:
        self._read, self._kept_s = read, kept_s
        self._kept: tuple[float, T] | None = None
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value. Raises what reading it raises, where none is kept that is young enough."""
        now = time.monotonic()
        if self._kept is not None and now - self._kept[0] < self._kept_s / 2:
            return self._kept[1]
        reading = self._reading_again()
        if self._kept is not None and now - self._kept[0] < self._kept_s:
            return self._kept[1]
        return await asyncio.shield(reading)  # others may wait for it, too

    async def anew(self) -> T:
        """A value that began to be read after this was called; all who wait for one share a reading.

        Raises what reading it raises.
        """
        asked = time.monotonic()
        while self._kept is None or self._kept[0] < asked:
            await asyncio.shield(self._reading_again())
        return self._kept[1]

    def _reading_again(self) -> asyncio.Task[T]:
        if self._reading is None:
            self._reading = asyncio.create_task(self._again())
            self._reading.add_done_callback(self._is_read)
        return self._reading

    async def _again(self) -> T:
        began = time.monotonic()
        value = await self._read()
        self._kept = began, value
        return value

    def _is_read(self, reading: asyncio.Task[T]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # who waits for it is told; where nobody does, the next one asks again
