"""The rows of a batch as they are decided, read from the record: while it runs, and at any time later.

Agendas are gone through in their order, each to its end; one that is far behind keeps no other from being decided, only
from being told.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, Self

from blocks.background import background
from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.envelope import Event
from blocks.record.events import Record
from tasks.batch.asked import AskedRow, agenda_id
from tasks.batch.store import may_be_of_batch, read_batch, rows_of
from tasks.council.exceptions import InvalidRequest
from tasks.deliberations.read import plan_of

LOOK_S = 0.1
"""How often it is looked whether a further agenda has begun, or the batch has ended."""
SILENCE_S = 5.0
"""How often it is looked whether the batch is over without the decisions that are still waited for."""
AHEAD = 64
"""Decisions that are read ahead of who takes them."""


class Place(NamedTuple):
    """How far the decided rows of a batch were read: the agenda, and the sequence of its last decision."""

    agenda: int = 1
    sequence: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """The place that a text gives. Raises InvalidRequest."""
        if re.fullmatch(r"[0-9]{1,9}-[0-9]{1,18}", text) is None:
            raise InvalidRequest("after", "is no place in the decided rows of a batch")
        agenda, _, sequence = text.partition("-")
        return cls(int(agenda), int(sequence))

    def __str__(self) -> str:
        return f"{self.agenda}-{self.sequence}"


BEGINNING = Place()


class DecidedRow(NamedTuple):
    """A row, the deliberation that decided it, whose council it was, and the decision as it stands on the record."""

    row: AskedRow
    deliberation_id: str
    council_digest: str
    event: Event
    after: Place


async def decided_rows(record: Record, batch_id: str, after: Place = BEGINNING) -> AsyncGenerator[DecidedRow, None]:
    """The decided rows behind a place, as they come, to the end of the batch.

    A row that was asked again comes again; the last time counts. Raises RecordError.
    """
    number, sequence = after
    while (has_begun := await _has_begun(record, batch_id, number)) is not None:
        if not has_begun:  # others behind it may have: those with rows that are asked again begin as their time comes
            number, sequence = number + 1, 0
            continue
        async with aclosing(_of_agenda(record, batch_id, number, sequence)) as rows:
            async for row in rows:
                yield row
        number, sequence = number + 1, 0


async def _has_begun(record: Record, batch_id: str, number: int) -> bool | None:
    """Wait until an agenda has a plan; False where the batch has ended without it, None where it has no such agenda.

    One that somebody else has put there is none.
    """
    one = agenda_id(batch_id, number)
    while True:
        batch = await read_batch(record, batch_id)
        if batch is not None and await record.exists(subjects.plan(one)) and await may_be_of_batch(record, batch, one):
            return True
        if batch is None or (batch.has_ended and number > batch.agendas):
            return None
        if batch.has_ended:
            return False
        await asyncio.sleep(LOOK_S)


async def _of_agenda(record: Record, batch_id: str, number: int, after: int) -> AsyncGenerator[DecidedRow, None]:
    """The decided rows of one agenda, to its end."""
    one = agenda_id(batch_id, number)
    rows = {str(row.item.id): row for row in await rows_of(record, batch_id, number)}
    council_digest = (await plan_of(record, one)).council_digest
    pattern = subjects.decision(one, "*")
    left = len(rows) - (await _before(record, pattern, after) if after else 0)
    coming: asyncio.Queue[Event | RecordError | None] = asyncio.Queue(AHEAD)
    async with background(_bring(record, batch_id, pattern, after, coming)):
        while left > 0:
            event = await coming.get()
            if event is None:
                return
            if isinstance(event, RecordError):
                raise event
            left -= 1
            row = rows.get(event.subject.rpartition(".")[2])
            if row is not None:
                yield DecidedRow(row, one, council_digest, event, Place(number, event.sequence))


async def _bring(
    record: Record, batch_id: str, pattern: str, after: int, coming: asyncio.Queue[Event | RecordError | None]
) -> None:
    """Bring the decisions of a pattern, and nothing once the batch is over without the others; never raises."""
    reached = after

    async def watch() -> None:
        while True:
            await asyncio.sleep(SILENCE_S)
            if await _is_over(record, batch_id, pattern, reached):
                await coming.put(None)
                return

    try:
        async with background(watch()), aclosing(record.follow(pattern, after)) as events:
            async for event in events:
                reached = event.sequence
                await coming.put(event)
    except RecordError as error:
        await coming.put(error)


async def _is_over(record: Record, batch_id: str, pattern: str, after: int) -> bool:
    """Whether nothing follows in an agenda, since the batch has ended without it: its worker was given up."""
    batch = await read_batch(record, batch_id)
    return (batch is None or batch.has_ended) and await record.newest(pattern) <= after


async def _before(record: Record, pattern: str, after: int) -> int:
    """How many decisions of a pattern stand up to a sequence."""
    count = 0
    async for event in record.stored(pattern):
        if event.sequence > after:
            break
        count += 1
    return count
