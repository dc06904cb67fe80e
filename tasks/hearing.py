"""Waiting for the stage before one's own: its closing, item by item, as the record tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from blocks.background import background
from blocks.exceptions import RecordError
from blocks.record import Record
from tasks.council.closing import Closing, closed_subject
from tasks.council.models import Deliberation, Item


class Closings:
    """The closings of the stage before `stage`: from each one on, only what it names counts for its item."""

    def __init__(self, record: Record, plan: Deliberation, stage: str) -> None:
        self._record = record
        self._pattern = closed_subject(plan.id, "*", plan.stages[plan.stages.index(stage) - 1])
        self._closed: dict[str, asyncio.Future[Closing]] = {}

    @asynccontextmanager
    async def heard(self) -> AsyncGenerator[None, None]:
        """Listen while the block runs."""
        async with background(self._hear()):
            yield

    async def of(self, item: Item) -> Closing:
        """The closing of an item, once there is one. Raises RecordError."""
        return await self._closing(item.id)

    async def _hear(self) -> None:
        try:
            async with aclosing(self._record.follow(self._pattern)) as events:
                async for event in events:
                    closed = Closing.model_validate(event.body)
                    if not (closing := self._closing(closed.item)).done():
                        closing.set_result(closed)
        except RecordError as error:
            for closing in self._closed.values():
                if not closing.done():
                    closing.set_exception(error)
            raise

    def _closing(self, item_id: str) -> asyncio.Future[Closing]:
        return self._closed.setdefault(item_id, asyncio.get_running_loop().create_future())
