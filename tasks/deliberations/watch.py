"""Watching a deliberation that somebody runs, on the record: each answer as it comes, and its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from blocks.background import background
from blocks.record import subjects
from blocks.record.events import Record
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
