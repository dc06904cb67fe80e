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

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from blocks.exceptions import RecordError
from blocks.files import read_regular
from blocks.record import Record
from blocks.subscriptions import Incoming, kept, passing, stream_of
from tasks.council.base import Name
from tasks.council.models import InvalidRequest
from tasks.enqueue import Request, enqueue
from tasks.mapping import Mapping, MappingError

NAMESPACE = uuid.UUID("5c0d2a4e-9a2f-5d0e-8a57-0d2f3b5f6c11")
"""Of ids of deliberations that an event asks for without naming one (UUIDv5 of listener and event)."""
MAX_BYTES = 1 << 20
MAX_FILE = 4 << 20
"""Bytes of a file of listeners."""
AGAIN_S = 5.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Subject = Annotated[str, StringConstraints(pattern=r"^[^\s.]+(\.[^\s.]+)*$", max_length=255)]


class ListenersError(ValueError):
    """A file of listeners that cannot be used; the text names the file, the key and what would be right."""


class _Entry(BaseModel):
    """One listener as it stands in the file."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    subject: Subject
    stream: Name | None = None
    when: Any = None
    id: Any = None
    request: dict[str, Any]


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
    """The listeners of a file. Raises ListenersError."""
    try:
        entries = _File.model_validate(yaml.safe_load(read_regular(path, MAX_FILE))).listeners
    except OSError as error:
        raise ListenersError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ListenersError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ListenersError(f"{path}: {where}: {first['msg']}") from error
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ListenersError(f"{path}: listeners: {twice[0]!r} stands there twice; names are theirs alone")
    return [_listener(path, entry) for entry in entries]


def _listener(path: Path, entry: _Entry) -> Listener:
    try:
        mapping = Mapping.read(entry.request, entry.when, entry.id)
    except MappingError as error:
        raise ListenersError(f"{path}: listener {entry.name!r}: {error}") from error
    return Listener(entry.name, entry.subject, entry.stream, mapping)


async def listen(record: Record, listeners: Sequence[Listener], log: Log) -> None:
    """Listen for all of them until cancelled; what goes away is listened to again."""
    async with asyncio.TaskGroup() as group:
        for listener in listeners:
            group.create_task(_listen(record, listener, log))


async def _listen(record: Record, listener: Listener, log: Log) -> None:
    told = None
    while True:
        try:
            async with aclosing(await _events(record, listener, log)) as events:
                async for event in events:
                    told = None
                    await _take(record, listener, event, log)
        except RecordError as error:
            if told != str(error):
                log.warning("listener %s: %s", listener.name, error)
            told = str(error)
        await asyncio.sleep(AGAIN_S)


async def _events(record: Record, listener: Listener, log: Log) -> AsyncGenerator[Incoming, None]:
    stream = listener.stream or await stream_of(record, listener.subject)
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
    try:
        asked = listener.mapping.asked(_body(event))
        if asked is not None:
            one = asked.id or str(uuid.uuid5(NAMESPACE, f"{listener.name}:{event.id}"))
            new = await enqueue(record, Request(id=one, parameters=asked.fields, door="planning"))
            log.info("listener %s: event %s asks for %s%s", listener.name, event.id, one, "" if new else ", again")
    except InvalidRequest as error:
        log.error("listener %s: event %s is no request: %s", listener.name, event.id, error)
        await event.refuse()
    except RecordError as error:
        log.warning("listener %s: event %s waits: %s", listener.name, event.id, error)
        await event.again(AGAIN_S)
    else:
        await event.done()


def _body(event: Incoming) -> Any:
    if len(event.data) > MAX_BYTES:
        raise InvalidRequest("body", f"has {len(event.data):,} bytes; {MAX_BYTES:,} are taken")
    try:
        return json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", "is no JSON") from error
