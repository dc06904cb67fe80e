"""What comes in while a council is at work: one bounded inbox for everything that can change a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from blocks.background import background
from blocks.exceptions import ModelServerUnavailable, RecordError, RecordUnreadable
from blocks.record import subjects
from blocks.record.envelope import Event
from blocks.record.events import Record
from tasks.council.answer import Answer
from tasks.council.models import Deliberation
from tasks.deliberations.read import answer_in

MAX_SAID = 500
INBOX = 1024
"""News that may wait; whoever brings more waits with it."""


@dataclass(frozen=True)
class AgentExited:
    """A member's agent task for a stage has ended; `failure` says why, None where it ran to its end.

    `is_heard_out`: its last answers came in before this.
    """

    agent_id: str
    stage: str
    failure: str | None
    is_heard_out: bool = False


@dataclass(frozen=True)
class Room:
    """Further items may begin."""


@dataclass(frozen=True)
class MadeAgain:
    """A member's call is made again: it was refused or came to nothing, or else its answer could not be used."""

    item: str
    agent_id: str
    was_refused: bool


@dataclass(frozen=True)
class CancelAsked:
    """Somebody set `cancel_requested`."""


@asynccontextmanager
async def from_record(
    record: Record, plan: Deliberation, inbox: asyncio.Queue[Any], heard: Callable[[int], None]
) -> AsyncGenerator[None, None]:
    """Bring the answers, the wish to cancel, or the RecordError that ended either, into the inbox.

    `heard` is told the sequence of each answer once it is in.
    """
    answers = record.follow(subjects.answers(plan.id))
    bringing = _bring(answers, partial(_answer, plan.stages), inbox, heard)
    async with background(bringing), wishes(record, plan.id, inbox):
        yield


@asynccontextmanager
async def made_again(record: Record, plan: Deliberation, inbox: asyncio.Queue[Any]) -> AsyncGenerator[None, None]:
    """Bring the calls that are made again, or the RecordError that ended it."""
    attempts = record.follow(subjects.attempts(plan.id))
    async with background(_bring(attempts, _made_again, inbox)):
        yield


@asynccontextmanager
async def wishes(record: Record, deliberation_id: str, inbox: asyncio.Queue[Any]) -> AsyncGenerator[None, None]:
    """Bring the wish to cancel alone, or the RecordError that ended it."""
    async with background(_bring(record.follow(subjects.status(deliberation_id)), _wish, inbox)):
        yield


def _answer(stages: Collection[str], event: Event) -> Answer | None:
    """The answer in an event; None for one of a stage that is not the plan's: of an evaluation, or a later version."""
    return answer_in(event) if event.subject.split(".")[3] in stages else None


async def _bring(
    events: AsyncGenerator[Event, None],
    read: Callable[[Event], Any],
    inbox: asyncio.Queue[Any],
    heard: Callable[[int], None] = lambda _: None,
) -> None:
    subject = ""
    try:
        async for event in events:
            subject = event.subject
            if (news := read(event)) is not None:
                await inbox.put(news)
            heard(event.sequence)
    except RecordError as error:
        await inbox.put(error)
    except ValueError as error:  # an answer of another form: whoever collects must not wait for what follows it
        await inbox.put(RecordUnreadable(f"{subject} cannot be read: {str(error)[:MAX_SAID]}"))


def _made_again(event: Event) -> MadeAgain:
    was_refused = event.body.get("error_type") == ModelServerUnavailable.__name__
    _, _, item, _, agent_id = event.subject.split(".")
    return MadeAgain(item, agent_id, was_refused)


def _wish(status: Event) -> CancelAsked | None:
    return CancelAsked() if status.body.get("cancel_requested") else None
