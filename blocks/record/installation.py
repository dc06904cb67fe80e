"""What an installation keeps about itself in its JetStream: its id, made once, and small notes of its housekeeping.

Notes carry the time at which the server stored them, so that ages are measured by one clock and not between hosts.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError

from blocks.exceptions import RecordUnavailable
from blocks.record.client import Streams
from blocks.record.key_names import key_names

if TYPE_CHECKING:
    from blocks.record.events import Record

BUCKET = "conclave-installation"
ID = "id"
POOLS = "pool."
"""Keys of the work pools that this installation's workers take from."""


async def installation_of(jetstream: Streams, replicas: int) -> str:
    """The id that this JetStream keeps, made where there is none; the same for all who ask at once."""
    try:
        bucket = await jetstream.key_value(BUCKET)
    except BucketNotFoundError:
        config = KeyValueConfig(bucket=BUCKET, storage=StorageType.FILE, replicas=replicas)
        bucket = await jetstream.create_key_value(config)
    try:
        return _text((await bucket.get(ID)).value)
    except KeyNotFoundError:
        pass
    try:
        made = str(uuid.uuid4())
        await bucket.create(ID, made.encode())
        return made
    except KeyWrongLastSequenceError:
        return _text((await bucket.get(ID)).value)


async def read_again(record: Record) -> str:
    """The id that the record's JetStream keeps now, which may have been made anew meanwhile. Raises RecordError."""
    record.installation = await read_note(record, ID) or record.installation
    return record.installation


async def note(record: Record, key: str, value: str) -> datetime:
    """Keep a note; when the server stored it, by its clock. Raises RecordError."""
    async with _named():
        bucket = await record.jetstream.key_value(BUCKET)
        await bucket.put(key, value.encode())
        # The newest, which may be another one's of just now: the bucket keeps no earlier one.
        stored = await record.jetstream.get_msg(f"KV_{BUCKET}", subject=f"$KV.{BUCKET}.{key}")
        return stored.time or datetime.now(UTC)


async def read_note(record: Record, key: str) -> str | None:
    """A note, None where there is none. Raises RecordError."""
    async with _named():
        try:
            return _text((await (await record.jetstream.key_value(BUCKET)).get(key)).value)
        except KeyNotFoundError:
            return None


async def server_time(record: Record) -> datetime:
    """Now, by the clock of the NATS server. Raises RecordError."""
    return await note(record, "clock", "")


async def note_pool(record: Record, pool: str) -> None:
    """Note that a worker of this installation takes from a work pool. Raises RecordError."""
    await note(record, POOLS + hashlib.sha256(pool.encode()).hexdigest()[:16], pool)


async def pools(record: Record) -> set[str]:
    """Work pools that workers of this installation take, or took, from. Raises RecordError."""
    async with _named():
        keys = await key_names(record.jetstream, BUCKET, POOLS)
    found = [await read_note(record, key) for key in keys]
    return {pool for pool in found if pool}


@asynccontextmanager
async def _named() -> AsyncGenerator[None, None]:
    """Raise RecordUnavailable in place of what nats-py raises."""
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise RecordUnavailable(f"the bucket {BUCKET} does not answer: {str(error) or type(error).__name__}") from error


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
