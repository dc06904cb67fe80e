"""Listening: an event on a subject of somebody else's becomes a deliberation.

A file names the listeners (`CONCLAVE_LISTENERS`, docs/examples/listeners.yaml); every worker listens, and each event
comes to one of them. An event that comes again asks for the same deliberation again, and is one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from blocks.exceptions import RecordError, RecordUnavailable
from blocks.record.events import Record
from blocks.record.subscriptions import Incoming, kept, passing, stream_with
from deployments.event_files import MAX_BYTES, MappedEntry, asked_by, mapping_of, read_event_file, require_own_names
from tasks.council.base import Name
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_INPUT, error_line, shortened
from tasks.deliberations.event_mapping import Mapping
from tasks.deliberations.submit import Request, enqueue

NAMESPACE = uuid.UUID("5c0d2a4e-9a2f-5d0e-8a57-0d2f3b5f6c11")
"""Of ids of deliberations that an event asks for without naming one (UUIDv5 of listener and event)."""
AGAIN_S = 5.0
WAIT_S = 20.0
"""How long an event is held while JetStream is away, before it goes back to its stream, if it has one."""

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Subject = Annotated[str, StringConstraints(pattern=r"^[^\s.]+(\.[^\s.]+)*$", max_length=255)]


class _Entry(MappedEntry):
    """One listener as it stands in the file."""

    subject: Subject
    stream: Name | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    listeners: tuple[_Entry, ...] = Field(min_length=1, max_length=100)


@dataclass(frozen=True)
class Listener:
    """A subject, and how its events become requests."""

    name: str
    subject: str
    stream: str | None
    mapping: Mapping


def read_listeners(path: Path) -> list[Listener]:
    """The listeners of a file. Raises EventFileError."""
    entries = read_event_file(path, _File).listeners
    require_own_names(path, "listeners", entries)
    return [Listener(entry.name, entry.subject, entry.stream, mapping_of(path, "listener", entry)) for entry in entries]


async def listen(record: Record, listeners: Sequence[Listener], log: Log) -> None:
    """Listen for all of them until cancelled; what goes away is listened to again."""
    await asyncio.gather(*(_listen(record, listener, log) for listener in listeners))


async def _listen(record: Record, listener: Listener, log: Log) -> None:
    """Listen for one; whatever ends it ends no other, and it begins again."""
    told = None
    while True:
        try:
            async with aclosing(await _events(record, listener, log)) as events:
                async for event in events:
                    told = None
                    await _take(record, listener, event, log)
        except Exception as error:  # noqa: BLE001  # the others go on
            said = str(error) if isinstance(error, RecordError) else error_line(error, SHOWN_INPUT)
            if told != said:
                log.warning("listener %s: %s", listener.name, said)
            told = said
        await asyncio.sleep(AGAIN_S)


async def _events(record: Record, listener: Listener, log: Log) -> AsyncGenerator[Incoming, None]:
    stream = listener.stream or await stream_with(record, listener.subject)
    if stream is not None:
        return kept(record, listener.name, listener.subject, stream)
    log.warning(
        "listener %s: no stream keeps %s, so an event that comes while no worker is there is lost",
        listener.name,
        listener.subject,
    )
    return passing(record, listener.name, listener.subject)


async def _take(record: Record, listener: Listener, event: Incoming, log: Log) -> None:
    """Put what an event asks for into the queue; what can never be a request is said, and let go."""
    name, event_id = listener.name, shortened(event.id, SHOWN_INPUT)
    try:
        asked = await asked_by(listener.mapping, lambda: _body(event))
        if asked is not None:
            one = asked.id or str(uuid.uuid5(NAMESPACE, f"{name}:{event.id}"))
            new = await _enqueued(record, Request(id=one, parameters=asked.fields, door="planning"))
            log.info("listener %s: event %s asks for %s%s", name, event_id, one, "" if new else ", again")
    except InvalidRequest as error:
        log.error("listener %s: event %s is no request: %s", name, event_id, error)
        await event.refuse()
    except RecordError as error:
        log.warning("listener %s: event %s waits: %s", name, event_id, error)
        await event.again(WAIT_S)
    except Exception as error:  # noqa: BLE001  # the next events go on
        log.error("listener %s: event %s cannot be taken: %s", name, event_id, error_line(error, SHOWN_INPUT))
        await event.refuse()
    else:
        await event.done()


async def _enqueued(record: Record, request: Request) -> bool:
    """`enqueue`, tried again for a while where JetStream does not answer: plain NATS brings no event twice."""
    away: RecordError | None = None
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return (await enqueue(record, request)).queued
                except RecordError as error:
                    away = error
                await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        raise away or RecordUnavailable(f"JetStream did not answer for {WAIT_S:g} s") from None


def _body(event: Incoming) -> Any:
    if len(event.data) > MAX_BYTES:
        raise InvalidRequest("body", f"has {len(event.data):,} bytes; {MAX_BYTES:,} are taken")
    try:
        return json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", "is no JSON") from error
