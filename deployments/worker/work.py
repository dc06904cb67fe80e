"""A request that a worker is at."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import State

from blocks.record.events import Record
from blocks.record.leases import Lease
from blocks.record.queue import Delivery
from tasks.batch.tries import take_back_try
from tasks.deliberations.submit import BATCH_FLOWS, Request

MAX_TRIES = 5
"""A request that is still not finished after so many runs is ended with what stands on the record."""


@dataclass
class Work:
    """A request that is being worked on."""

    delivery: Delivery
    request: Request | None = None
    lease: Lease | None = None
    run: str | None = None
    flow: asyncio.Task[State[Any]] | None = None
    cancelled: bool = False
    tries: int = 0
    """Runs of the deliberation with this one; 0 where none has begun."""
    spent: bool = False
    """Whether it failed too often, and is to be given up."""

    def cancel(self) -> None:
        """Stop its flow, for somebody who asked for that."""
        if self.flow is not None:
            self.cancelled = True
            self.flow.cancel()

    async def take_back_try(self, record: Record) -> None:
        """Let its run, where one has begun, not count as a try of the deliberation. Raises RecordError."""
        if self.request is not None and self.request.flow in BATCH_FLOWS and self.run is not None:
            await take_back_try(record, self.run)
        elif self.request is not None and self.tries:
            await record.statuses.merge(self.request.id, {"tries": self.tries - 1})
