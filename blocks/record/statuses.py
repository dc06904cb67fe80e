"""The status of each deliberation and item: a key of a bucket, merged by compare-and-set."""

from __future__ import annotations

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from blocks.record.client import Keys, Streams
from blocks.record.envelope import Body, Event, dump, load, stream_of
from blocks.record.patience import Patience


class Statuses:
    """The bucket of statuses. All methods raise RecordError."""

    def __init__(self, keys: Keys, jetstream: Streams, patience: Patience) -> None:
        self._keys, self._jetstream, self._patience = keys, jetstream, patience

    async def create(self, key: str, body: Body) -> bool:
        """Write a key that must not exist; False if it does."""
        data = dump(body)
        tries = 0

        async def create() -> bool:
            nonlocal tries
            tries += 1
            try:
                await self._keys.create(key, data)
            except KeyWrongLastSequenceError:
                # A repeat after a lost acknowledgement meets its own first try.
                return tries > 1 and (await self._keys.get(key)).value == data
            return True

        return await self._patience.outlast(create)

    async def read(self, key: str) -> Body | None:
        """The value of a key, None if there is none; an empty one where it cannot be read."""

        async def get() -> Body | None:
            try:
                entry = await self._keys.get(key)
            except KeyNotFoundError:
                return None
            return _readable(entry.value)

        return await self._patience.outlast(get)

    async def merge(self, key: str, change: Body) -> bool:
        """Set some fields of a key, compare-and-set so that no other writer's fields are lost.

        A key that is not there is made only by a change that has a status, since nobody could read one without; False
        where nothing was written.
        """

        async def merge() -> bool:
            while True:
                try:
                    entry = await self._keys.get(key)
                    value = dump({**_readable(entry.value), **change})
                    await self._keys.update(key, value, last=entry.revision)
                    return True
                except KeyNotFoundError:
                    if "status" not in change:
                        return False
                    if await self.create(key, change):
                        return True
                except KeyWrongLastSequenceError:
                    continue

        return await self._patience.outlast(merge)

    async def purge(self, event: Event) -> None:
        """Let a key go for good, without a mark in its place, unless it was written again since this event."""
        await self._patience.outlast(
            lambda: self._jetstream.purge_stream(
                stream_of(event.subject), seq=event.sequence + 1, subject=event.subject
            )
        )


def _readable(data: bytes | None) -> Body:
    """The body of a key; empty where it is no JSON, so that whoever has to end the deliberation can."""
    try:
        return load(data)
    except (ValueError, RecursionError):
        return {}
