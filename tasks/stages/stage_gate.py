"""Waiting for the stage before one's own: its closing, item by item, as the record tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

from blocks.background import background
from blocks.exceptions import Orphaned, RecordError
from blocks.record import subjects
from blocks.record.events import Record
from tasks.council.models import Deliberation, Item
from tasks.council.progress.stage_end import Closing

ORPHANED_S = 30.0
"""How often a task that waits looks whether anybody runs its deliberation; it leaves when nobody does twice."""


class StageGate:
    """The closings of the stage before `stage`: from each one on, only what it names counts for its item.

    A run that was killed leaves its agent tasks waiting. Those leave when nobody runs the deliberation any more; and
    when a later run, of a higher `epoch`, closes a stage, they are not among those called: its own tasks are.
    """

    def __init__(self, record: Record, plan: Deliberation, stage: str, epoch: int) -> None:
        self._record, self._plan, self._epoch = record, plan, epoch
        self._pattern = subjects.closed(plan.id, "*", plan.stages[plan.stages.index(stage) - 1])
        self._closed: dict[str, asyncio.Future[Closing]] = {}
        self._items = {item.id: item for item in plan.agenda}
        self._news: asyncio.Queue[str | None] = asyncio.Queue()
        """Items that are closed, by id; None once nothing follows."""
        self._lost: Exception | None = None

    @asynccontextmanager
    async def heard(self) -> AsyncGenerator[None, None]:
        """Listen while the block runs."""
        async with background(self._or_give_up(self._hear()), self._or_give_up(self._look_after())):
            yield

    async def of(self, item: Item) -> Closing:
        """The closing of an item, once there is one. Raises RecordError and Orphaned."""
        if self._lost:
            raise self._lost
        return await self._closing(item.id)

    async def items(self) -> AsyncGenerator[Item, None]:
        """The items as they are closed, each once, until all are or the driver says that it is over.

        Raises RecordError and Orphaned.
        """
        over = subjects.dispatch(self._plan.id, self._epoch, len(self._items) + 1)
        passing = await self._record.listen(over, lambda _: self._news.put_nowait(None))
        try:
            for _ in self._items:
                one = await self._news.get()
                if one is None:
                    break
                yield self._items[one]
            if self._lost is not None:
                raise self._lost
        finally:
            await passing.unsubscribe()

    async def _hear(self) -> None:
        async with aclosing(self._record.follow(self._pattern)) as events:
            async for event in events:
                closed = Closing.from_record(event.body)
                if closed.epoch > self._epoch:
                    closed = closed.model_copy(update={"called": ()})
                if not (closing := self._closing(closed.item)).done():
                    closing.set_result(closed)
                    if closed.item in self._items:
                        self._news.put_nowait(closed.item)

    async def _look_after(self) -> None:
        await self._record.leases.abandoned(self._plan.id, ORPHANED_S)
        raise Orphaned(f"nobody runs deliberation {self._plan.id} any more")

    async def _or_give_up(self, work: Coroutine[Any, Any, None]) -> None:
        """What ends this work ends everybody's wait."""
        try:
            await work
        except (RecordError, Orphaned, ValueError) as error:  # a ValueError: a closing of another form
            self._lost = error
            self._news.put_nowait(None)
            for closing in self._closed.values():
                if not closing.done():
                    closing.set_exception(error)

    def _closing(self, item_id: str) -> asyncio.Future[Closing]:
        return self._closed.setdefault(item_id, asyncio.get_running_loop().create_future())
