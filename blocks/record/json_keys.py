"""A bucket whose keys have JSON bodies, changed by compare-and-set so that no other writer's change is lost."""

from __future__ import annotations

from collections.abc import Callable

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from blocks.record.client import Keys, Streams
from blocks.record.envelope import Body, dump, load
from blocks.record.key_names import key_names
from blocks.record.patience import Patience

Change = Callable[[Body | None], Body | None]
"""What becomes of a body, None of a key that is not there; None leaves it as it is."""


class JsonKeys:
    """The keys of a bucket. All methods raise RecordError."""

    def __init__(self, keys: Keys, jetstream: Streams, bucket: str, patience: Patience) -> None:
        self._keys, self._jetstream, self._bucket, self._patience = keys, jetstream, bucket, patience

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
            return readable(entry.value)

        return await self._patience.outlast(get)

    async def change(self, key: str, change: Change) -> bool:
        """Give a key the body that `change` makes of its present one; False where it leaves that as it is.

        It is called again where somebody else wrote meanwhile.
        """

        async def write() -> bool:
            while True:
                try:
                    entry = await self._keys.get(key)
                except KeyNotFoundError:
                    body = change(None)
                    if body is None:
                        return False
                    if await self.create(key, body):
                        return True
                    continue
                body = change(readable(entry.value))
                if body is None:
                    return False
                try:
                    await self._keys.update(key, dump(body), last=entry.revision)
                except KeyWrongLastSequenceError:
                    continue
                return True

        return await self._patience.outlast(write)

    async def put(self, key: str, body: Body) -> None:
        """Write a key, whatever stands there."""
        await self._patience.outlast(lambda: self._keys.put(key, dump(body)))

    async def delete(self, key: str) -> None:
        """Let a key go, where there is one."""
        await self._patience.outlast(lambda: self._keys.delete(key))

    async def names(self, begin: str = "") -> list[str]:
        """The keys that begin so, in order; `begin` ends with a dot, or is empty."""
        return await self._patience.outlast(lambda: key_names(self._jetstream, self._bucket, begin))


def readable(data: bytes | None) -> Body:
    """The body of a key; empty where it is no JSON, so that whoever has to deal with it can."""
    try:
        return load(data)
    except (ValueError, RecursionError):
        return {}
