"""What became of messages that could not be dealt with: told, and asked for again under a new id."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import ValidationError

from blocks.exceptions import NewerVersion, RecordUnreadable
from blocks.record.dead_letters import DeadLetter, dead_letter
from blocks.record.events import Record
from tasks.council.exceptions import InvalidRequest
from tasks.deliberations.submit import DELIBERATE, Request, enqueue

MAX_SHOWN = 200_000
"""Characters of a message that are shown."""


async def letter_of(record: Record, number: int) -> DeadLetter:
    """A dead letter by its number. Raises InvalidRequest and RecordError."""
    letter = await dead_letter(record, number)
    if letter is None:
        raise InvalidRequest("number", f"there is no dead letter {number}; `conclave dead list` shows them")
    return letter


async def content_of(record: Record, letter: DeadLetter) -> Any:
    """The JSON of a dead letter, else its text as far as it is one. Raises RecordError where it is not there."""
    try:
        return (await record.event_of(letter.subject, letter.sequence, letter)).body
    except (RecordUnreadable, NewerVersion):
        return letter.data.decode(errors="replace")[:MAX_SHOWN]


async def replay(record: Record, number: int) -> str:
    """Ask for the deliberation of a dead letter again; its new id. Raises InvalidRequest and RecordError."""
    letter = await letter_of(record, number)
    try:
        body = (await record.event_of(letter.subject, letter.sequence, letter)).body
        request = Request.from_record({**body, "id": str(uuid.uuid4()), "run": None})
    except (RecordUnreadable, NewerVersion, ValidationError) as error:
        problem = f"dead letter {number} is no request that can be run: {letter.reason}"
        raise InvalidRequest("number", problem) from error
    if request.flow != DELIBERATE:
        raise InvalidRequest(
            "number",
            f"dead letter {number} asks for {request.flow}; only a deliberation can be asked for again",
        )
    await enqueue(record, request.model_copy(update={"parameters": request.asked}))
    return request.id
