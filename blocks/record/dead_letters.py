"""Dead letters: messages that could not be dealt with, kept as they came, each with the reason.

They stand on `dead.requests.<id>` in the stream `CONCLAVE_DEAD`: the bytes of the message unread, since nobody could
use them, and what is known of them in headers. One without a usable id stands under `UNUSABLE`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from blocks.record import subjects
from blocks.record.events import HEADER_ROOM, Record
from tasks.council.base import NAME_PATTERN

STREAM = subjects.DEAD
SUBJECTS = "dead.requests.>"
UNUSABLE = "_unusable"
"""In place of an id, where the message has none that can be a token of a subject."""
MAX_REASON = 1_000
REASON, SUBJECT, DELIVERIES = "Conclave-Reason", "Conclave-Subject", "Conclave-Deliveries"
KEPT_HEADERS = ("ce-id", "ce-dataref", "ce-schemaversion", "ce-time", "content-type")
MAX_HEADER = 200


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be dealt with. `sequence` is its number among the dead letters, `died` ISO 8601."""

    sequence: int
    id: str
    subject: str
    reason: str
    deliveries: int
    died: str
    data: bytes
    headers: dict[str, str]


async def bury(record: Record, subject: str, name: str, deliveries: int, reason: str, message: Msg) -> None:
    """Keep a message with the reason, once under this name. Raises RecordError."""
    tokens = subject.split(".")
    named = tokens[1] if len(tokens) > 1 and re.fullmatch(NAME_PATTERN, tokens[1]) else UNUSABLE
    kept = {key: _line(value, MAX_HEADER) for key, value in (message.headers or {}).items() if key in KEPT_HEADERS}
    headers = kept | {
        REASON: _line(reason, MAX_REASON),
        SUBJECT: _line(subject, MAX_HEADER),
        DELIVERIES: str(deliveries),
        "Nats-Msg-Id": name,
    }
    data = message.data or b""
    if len(data) > record.client.max_payload - HEADER_ROOM:
        headers["ce-dataref"] = await record.bodies.keep_reference(f"dead.{name}", data)
        data = b""
    await record.store(f"dead.requests.{named}", data, headers)


async def dead_letters(record: Record) -> AsyncIterator[DeadLetter]:
    """All dead letters, oldest first. Raises RecordError."""
    after = 0
    while (message := await _next(record, after)) is not None:
        after = message.seq or after + 1
        yield _letter(message)


async def dead_letter(record: Record, sequence: int) -> DeadLetter | None:
    """One of them by its number, None where there is none. Raises RecordError."""
    message = await _next(record, sequence - 1)
    return _letter(message) if message is not None and message.seq == sequence else None


async def count(record: Record) -> int:
    """How many there are. Raises RecordError."""
    return await record.messages(STREAM)


async def _next(record: Record, after: int) -> RawStreamMsg | None:
    async def get() -> RawStreamMsg | None:
        try:
            return await record.jetstream.get_msg(STREAM, seq=after + 1, subject=SUBJECTS, next=True)
        except NotFoundError:
            return None

    return await record.outlast(get)


def _letter(message: RawStreamMsg) -> DeadLetter:
    headers = message.headers or {}
    deliveries = headers.get(DELIVERIES, "")
    return DeadLetter(
        sequence=message.seq or 0,
        id=(message.subject or "").rpartition(".")[2],
        subject=headers.get(SUBJECT, ""),
        reason=headers.get(REASON, ""),
        deliveries=int(deliveries) if deliveries.isdecimal() else 0,
        died=message.time.isoformat() if message.time else "",
        data=message.data or b"",
        headers=headers,
    )


def _line(text: str, most: int) -> str:
    """The text as the value of a header: one line of printable ASCII."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return re.sub(r"[^\x20-\x7e]+", " ", plain).strip()[:most]
