"""Slots, the queue before them and the pace of an answer: what a GPU would decide."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from infra.simulator.settings import SimulatorSettings


class QueueFull(Exception):
    """No slot is free and no room is left to wait."""


class Slots:
    """A bounded number of requests at once; the others wait, the lowest priority number first.

    Observed with vLLM 0.32 and `--scheduling-policy priority`: among equals the first come is served first,
    and a running request is not pushed out.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        """So many requests at once, and so many that may wait."""
        self.limit = limit
        self._max_waiting = max_waiting
        self._order = itertools.count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self.running = 0
        self.waiting = 0

    def resize(self, limit: int) -> None:
        """So many from now on: what waits gets new ones at once; what runs beyond the limit is answered to its end."""
        self.limit = limit
        while self.running < limit and self._hand_over():
            self.running += 1

    @asynccontextmanager
    async def taken(self, priority: int) -> AsyncIterator[None]:
        """Holds a slot; raises QueueFull instead of waiting where the queue is full."""
        await self._take(priority)
        try:
            yield
        finally:
            self._free()

    async def _take(self, priority: int) -> None:
        if self.running < self.limit:
            self.running += 1
            return
        if self.waiting >= self._max_waiting:
            raise QueueFull
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), turn))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self.waiting -= 1
                self._forget_the_gone()
            else:  # the slot was handed over in the same moment
                self._free()
            raise

    def _free(self) -> None:
        if self.running > self.limit or not self._hand_over():
            self.running -= 1

    def _hand_over(self) -> bool:
        """Give a slot to the first that waits; says whether there was one."""
        while self._queue:
            turn = heapq.heappop(self._queue)[2]
            if not turn.done():
                self.waiting -= 1
                turn.set_result(None)
                return True
        return False

    def _forget_the_gone(self) -> None:
        if len(self._queue) > 2 * self.waiting + 64:
            self._queue = [entry for entry in self._queue if not entry[2].done()]
            heapq.heapify(self._queue)


class Timing(NamedTuple):
    """When the first token and the last come, in seconds after the slot was taken."""

    first_s: float
    total_s: float

    def due_s(self, share: float) -> float:
        """When this share (0 to 1) of the answer is there."""
        return self.first_s + (self.total_s - self.first_s) * share


class Pace:
    """How long answers take."""

    def __init__(self, settings: SimulatorSettings) -> None:
        """The pace of these settings; its jitter is the same in every run."""
        self._settings = settings
        self.latency_s = settings.latency_s
        self._chance = random.Random(0)

    def timing(self, tokens: int, extra_s: float = 0.0) -> Timing:
        """Times of an answer of so many tokens; `extra_s` comes before its first token."""
        settings = self._settings
        factor = 1 + settings.jitter * self._chance.uniform(-1, 1) if settings.jitter else 1.0
        if self.latency_s is not None:
            return Timing(extra_s, extra_s + self.latency_s * factor)
        first = settings.ttft_s * factor
        return Timing(extra_s + first, extra_s + first + settings.tpot_s * factor * tokens)


async def sleep_until(moment: float) -> None:
    """Sleeps until the loop's clock shows `moment` (seconds); yields once if that is past."""
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
