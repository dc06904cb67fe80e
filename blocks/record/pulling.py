"""Taking the messages of a durable consumer, one at a time, by however many takers."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from blocks.exceptions import RecordError
from blocks.record.client import Puller
from blocks.record.events import Record
from blocks.record.patience import TRANSIENT, words

ANSWER_S = 5.0
"""How long the server may take to answer, once nothing came."""


class Pulling:
    """What a consumer of a stream brings, made where it is not there yet."""

    def __init__(self, record: Record, stream: str, config: ConsumerConfig) -> None:
        self._record, self._stream, self._config = record, stream, config
        self._name = str(config.durable_name)
        self._subscription: Puller | None = None

    async def take(self, wait_s: float) -> Msg | None:
        """The next message, None where none comes within `wait_s`. Raises RecordError; then ask again later."""
        started = time.monotonic()
        try:
            if self._subscription is None:
                self._subscription = await self._subscribe()
            (message,) = await self._subscription.fetch(1, timeout=wait_s)
        except nats.errors.TimeoutError as error:
            if time.monotonic() - started > wait_s / 2 and await self._answers():
                return None
            await self.close()  # nobody answered: the consumer may be gone
            raise RecordError(f"nothing can be taken from {self._stream}: {words(error)}") from error
        except (NotFoundError, *TRANSIENT) as error:  # a consumer that is gone is made again
            await self.close()
            raise RecordError(f"nothing can be taken from {self._stream}: {words(error)}") from error
        return message

    async def depth(self) -> tuple[int, int]:
        """Messages that wait, and messages that takers are at."""
        info = await self._record.jetstream.consumer_info(self._stream, self._name)
        return info.num_pending or 0, info.num_ack_pending or 0

    async def close(self) -> None:
        """Take no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(nats.errors.Error, *TRANSIENT):
                await subscription.unsubscribe()

    async def _answers(self) -> bool:
        """Whether the server is there: one that stands still brings nothing either.

        nats-py's `flush` would be a ping, but a late answer to one that timed out ends its reading task.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._record.jetstream.consumer_info(self._stream, self._name)
        except (nats.errors.Error, *TRANSIENT):
            return False
        return True

    async def _subscribe(self) -> Puller:
        await self._record.jetstream.add_consumer(self._stream, self._config)
        return await self._record.jetstream.pull_subscribe_bind(self._name, self._stream)
