"""Subjects of others: what is published there, one message at a time, to be acknowledged where the server keeps it.

Where a stream has the subject, a durable consumer brings each message until it is acknowledged, to one of all who
listen under that name. Elsewhere it is plain NATS, at most once, to one of the group.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from blocks.exceptions import RecordError, RecordMisconfigured
from blocks.record.client import Puller
from blocks.record.events import Record
from blocks.record.patience import TRANSIENT, words

ACK_WAIT_S = 30.0
MAX_DELIVER = -1
"""Without end: what can never be used is refused, and what waits for JetStream is to wait as long as that is away."""
TAKE_S = 5.0
PENDING = 1_000
"""Messages of plain NATS that wait here; beyond, the client drops."""
EVENT_ID = ("ce-id", "Nats-Msg-Id")


@dataclass(frozen=True)
class Incoming:
    """A message that came; `id` is the same whenever it is delivered again."""

    subject: str
    data: bytes
    id: str
    _message: Msg
    _kept: bool

    async def done(self) -> None:
        """It need not come again."""
        if self._kept:
            with suppress(nats.errors.Error, *TRANSIENT):
                await self._message.ack_sync(timeout=5)

    async def again(self, delay_s: float) -> None:
        """It is to come again, a few times at most."""
        if self._kept:
            with suppress(nats.errors.Error, *TRANSIENT):
                await self._message.nak(delay=delay_s)

    async def refuse(self) -> None:
        """It can never be used."""
        if self._kept:
            with suppress(nats.errors.Error, *TRANSIENT):
                await self._message.term()


async def stream_with(record: Record, subject: str) -> str | None:
    """The stream that keeps a subject, None if none does. Raises RecordError."""
    try:
        return str(await record.jetstream.find_stream_name_by_subject(subject))
    except NotFoundError:
        return None
    except (nats.errors.Error, *TRANSIENT) as error:
        raise RecordError(f"no stream can be looked for: {words(error)}") from error


async def kept(record: Record, name: str, subject: str, stream: str) -> AsyncGenerator[Incoming, None]:
    """What is published from the first time on that somebody listens under this name; never ends.

    Raises RecordMisconfigured where there is no such stream, and RecordError; then listen again.
    """
    subscription = await _consumer(record, name, subject, stream)
    try:
        while True:
            started = time.monotonic()
            try:
                (message,) = await subscription.fetch(1, timeout=TAKE_S)
            except nats.errors.TimeoutError as error:
                if time.monotonic() - started < TAKE_S / 2:  # nobody answered: the consumer may be gone
                    raise RecordError(f"nothing comes from {stream}: {words(error)}") from error
                continue
            except (nats.errors.Error, *TRANSIENT) as error:
                raise RecordError(f"nothing comes from {stream}: {words(error)}") from error
            sequence = message.metadata.sequence.stream
            yield Incoming(message.subject, message.data, _id(message, f"{stream}:{sequence}"), message, True)
    finally:
        with suppress(nats.errors.Error, *TRANSIENT):
            await subscription.unsubscribe()
            await record.jetstream.stream_info(stream)  # answered: the server knows that nobody is here


async def passing(record: Record, name: str, subject: str) -> AsyncGenerator[Incoming, None]:
    """What passes on plain NATS, at most once, to one of all who listen under this name; never ends."""
    subscription = await record.client.subscribe(subject, queue=f"conclave-{name}", pending_msgs_limit=PENDING)
    try:
        async for message in subscription.messages:
            yield Incoming(message.subject, message.data, _id(message, uuid.uuid4().hex), message, False)
    finally:
        with suppress(nats.errors.Error, *TRANSIENT):
            await subscription.unsubscribe()


async def _consumer(record: Record, name: str, subject: str, stream: str) -> Puller:
    durable = f"conclave-{name}"
    config = ConsumerConfig(
        durable_name=durable,
        filter_subject=subject,
        deliver_policy=DeliverPolicy.NEW,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=MAX_DELIVER,
    )
    try:
        try:
            found = (await record.jetstream.consumer_info(stream, durable)).config
        except NotFoundError:
            await record.jetstream.add_consumer(stream, config)
        else:
            if found.filter_subject == subject and found.max_deliver != MAX_DELIVER:
                await record.jetstream.add_consumer(stream, found.evolve(max_deliver=MAX_DELIVER))
            if found.filter_subject != subject:
                raise RecordMisconfigured(
                    f"consumer {durable} of {stream} listens to {found.filter_subject!r}, and not to {subject!r}: "
                    "give the listener another name, or remove the consumer"
                )
        return await record.jetstream.pull_subscribe_bind(durable, stream)
    except NotFoundError as error:
        raise RecordMisconfigured(f"there is no stream {stream}") from error
    except (nats.errors.Error, *TRANSIENT) as error:
        raise RecordError(f"no consumer on {stream}: {words(error)}") from error


def _id(message: Msg, otherwise: str) -> str:
    headers = message.headers or {}
    return next((headers[name] for name in EVENT_ID if headers.get(name)), otherwise)
