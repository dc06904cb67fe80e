"""Bodies above the server's `max_payload`: kept in an object store, and named where they would stand ("dataref")."""

from __future__ import annotations

import asyncio
import hashlib

from nats.js.errors import DigestMismatchError, ObjectNotFoundError

from blocks.exceptions import RecordUnreadable
from blocks.record.client import Objects, Streams
from blocks.record.patience import Patience

BODIES_BUCKET = "conclave-bodies"
BODY_S = 30.0
"""How long reading a body from the object store may take; nats-py would wait for ever for a lost part."""


class Bodies:
    """The object store of bodies that are too large for a message. All methods raise RecordError."""

    def __init__(self, objects: Objects, jetstream: Streams, patience: Patience) -> None:
        self._objects, self._jetstream, self._patience = objects, jetstream, patience

    async def keep(self, owner: str, data: bytes) -> str:
        """Keep a body for as long as answers are kept; its name, a digest of it and its owner.

        The owner is the subject or id that it belongs to: a body of two would go when the first one's time is over.
        """
        name = hashlib.sha256(owner.encode() + b"\0" + data).hexdigest()
        await self._patience.outlast(lambda: self._keep(name, data))
        return name

    async def keep_reference(self, owner: str, data: bytes) -> str:
        """Keep a body; what a `ce-dataref` says of it."""
        return f"nats-object://{BODIES_BUCKET}/{await self.keep(owner, data)}"

    async def read(self, name: str) -> bytes:
        """A body by its name. Raises RecordUnreadable where it is not there."""
        return await self._patience.outlast(lambda: self._read(name))

    async def _keep(self, name: str, data: bytes) -> None:
        """Put a body under its digest, unless it is there: putting again would purge it under a reader."""
        try:
            await self._objects.get_info(name)
        except ObjectNotFoundError:
            await self._objects.put(name, data)

    async def _read(self, name: str) -> bytes:
        try:
            async with asyncio.timeout(BODY_S):
                return (await self._objects.get(name)).data or b""
        except ObjectNotFoundError as error:
            raise RecordUnreadable("the body is not in the object store any more") from error
        except DigestMismatchError as error:
            raise RecordUnreadable("a part of the body is not in the object store any more") from error
        except TimeoutError as error:
            if await self._has_no_chunk(name):
                raise RecordUnreadable("the body is not in the object store any more") from error
            raise

    async def _has_no_chunk(self, name: str) -> bool:
        """Whether nothing of a body is stored but its metadata: nats-py waits for the first chunk."""
        info = await self._objects.get_info(name)
        subject = f"$O.{BODIES_BUCKET}.C.{info.nuid}"
        stream = await self._jetstream.stream_info(f"OBJ_{BODIES_BUCKET}", subjects_filter=subject)
        return not stream.state.subjects and bool(info.chunks)
