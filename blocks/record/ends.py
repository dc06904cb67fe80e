"""The ends of deliberations, one after another, to one of all who take them: a durable consumer of the stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from blocks.exceptions import NewerVersion, RecordError, RecordUnreadable
from blocks.record import subjects
from blocks.record.envelope import Event
from blocks.record.events import Record
from blocks.record.patience import TRANSIENT, words

ACK_WAIT_S = 30.0
TAKE_S = 5.0


async def ends(record: Record, name: str) -> AsyncGenerator[Event, None]:
    """The ends from now on, in their order, each until whoever got it asks for the next one; never ends.

    Where nobody asks for the next one, it comes again, perhaps to somebody else. `name` is that of the consumer.
    Raises RecordError.
    """
    config = ConsumerConfig(
        durable_name=name,
        filter_subject=subjects.finished("*"),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        deliver_policy=DeliverPolicy.NEW,
        max_ack_pending=1,
    )
    try:
        await record.jetstream.add_consumer(subjects.DECISIONS, config)
        taking = await record.jetstream.pull_subscribe_bind(name, subjects.DECISIONS)
        try:
            while True:
                with suppress(nats.errors.TimeoutError):
                    (message,) = await taking.fetch(1, timeout=TAKE_S)
                    event = await _event(record, message)
                    if event is not None:
                        yield event
                    await message.ack_sync(timeout=5)
        finally:
            with suppress(nats.errors.Error, *TRANSIENT):
                await taking.unsubscribe()
    except (NotFoundError, *TRANSIENT) as error:
        raise RecordError(f"the ends of deliberations cannot be taken: {words(error)}") from error


async def _event(record: Record, message: Msg) -> Event | None:
    """The event of a message, None where it cannot be read."""
    try:
        return await record.event_of(message.subject, int(message.metadata.sequence.stream), message)
    except (RecordUnreadable, NewerVersion):
        return None
