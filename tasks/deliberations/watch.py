"""Watching a deliberation that somebody runs, on the record: each answer as it comes, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from blocks.background import background, cancel_and_wait
from blocks.record import subjects
from blocks.record.events import Record
from blocks.record.lease_keys import LEASE_S
from tasks.council.answer import Answer
from tasks.council.models import Deliberation
from tasks.council.report.wording import copies_in_words


class Watcher:
    """Who is told while a deliberation runs; whoever does not care for something is not made to."""

    def began(self, plan: Deliberation) -> None:
        """It is watched from now on."""

    def answered(self, answer: Answer) -> None:
        """A member's final answer stands."""

    def ended(self) -> None:
        """It is watched no longer."""

    def say(self, text: str) -> None:
        """A line for whoever waits."""


@asynccontextmanager
async def watching(record: Record, plan: Deliberation, watcher: Watcher) -> AsyncGenerator[None, None]:
    """Tell the watcher who is asked, and of every answer while the block runs."""

    async def watch() -> None:
        async for event in record.follow(subjects.answers(plan.id)):
            watcher.answered(Answer.from_record(event.body))

    watcher.began(plan)
    if plan.copies:
        watcher.say(copies_in_words(plan))
    try:
        async with background(watch()):
            yield
    finally:
        watcher.ended()


async def end_of(record: Record, deliberation_id: str) -> str | None:
    """Wait for the end of a deliberation: its final status, None when nobody has held its lease for a while."""
    async with aclosing(record.follow(subjects.finished(deliberation_id))) as events:
        finished = asyncio.ensure_future(anext(events))
        abandoned = asyncio.ensure_future(record.leases.abandoned(deliberation_id, LEASE_S))
        try:
            await asyncio.wait([finished, abandoned], return_when=asyncio.FIRST_COMPLETED)
            if finished.done():
                return str((await finished).body["status"])
            await abandoned
        finally:
            await cancel_and_wait([finished, abandoned])
    return None
