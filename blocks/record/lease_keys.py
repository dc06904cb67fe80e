"""The bucket of leases: keys that the server forgets `LEASE_S` after they were last renewed."""

from __future__ import annotations

import asyncio

import nats.errors
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from blocks.exceptions import RecordError
from blocks.record.client import Keys, Streams
from blocks.record.key_names import key_names
from blocks.record.patience import TRANSIENT, Patience, words

LEASES_BUCKET = "conclave-leases"
LEASE_S = 6.0
"""How long a lease lasts that is not renewed: so long the next one waits for a holder that was killed."""


class LeaseKeys:
    """Who holds which lease, as the server knows it. Methods raise RecordError, those of `bucket` nats-py's errors."""

    def __init__(self, bucket: Keys, jetstream: Streams, patience: Patience) -> None:
        self.bucket, self._jetstream, self._patience = bucket, jetstream, patience

    async def held(self, key: str) -> bool:
        """Whether anybody holds the lease now."""

        async def get() -> bool:
            try:
                await self.bucket.get(key)
            except KeyNotFoundError:
                return False
            return True

        return await self._patience.outlast(get)

    async def abandoned(self, key: str, interval_s: float) -> None:
        """Wait until nobody holds the lease at two looks in a row, one each interval."""
        missed = 0
        while missed < 2:
            await asyncio.sleep(interval_s)
            missed = 0 if await self.held(key) else missed + 1

    async def create(self, key: str, holder: bytes) -> int | None:
        """Take a lease that nobody holds: the revision of its key, None if somebody holds it."""

        async def create() -> int | None:
            try:
                return await self.bucket.create(key, holder)
            except KeyWrongLastSequenceError:
                pass
            try:  # a repeat after a lost acknowledgement meets its own first try
                entry = await self.bucket.get(key)
            except KeyNotFoundError:
                return None
            return entry.revision if entry.value == holder else None

        return await self._patience.outlast(create)

    async def names(self, begin: str) -> list[str]:
        """The keys that are held now and begin so; `begin` ends with a dot."""
        try:
            return await key_names(self._jetstream, LEASES_BUCKET, begin)
        except (nats.errors.Error, *TRANSIENT) as error:
            raise RecordError(f"the leases cannot be listed: {words(error)}") from error
