"""The work queue of callbacks: JetStream's `CONCLAVE_CALLBACKS`, from which gateways take what is to be told to others.

A message on `callbacks.<id>.<n>` says that a delivery is due, and nothing else: what it is, and what became of it,
stands in the bucket `conclave-callbacks` under `<id>.<n>`. One that is not acknowledged comes again after `ACK_WAIT_S`.
"""

from __future__ import annotations

from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from blocks.record import subjects
from blocks.record.events import Record
from blocks.record.patience import TRANSIENT
from blocks.record.pulling import Pulling

CONSUMER = "gateway-callbacks"
ACK_WAIT_S = 30.0
"""So long a delivery of a killed gateway waits for the next one; more than a try takes."""
ALL = -1
"""How many may be under way: without end, since those that wait for their next try count, too."""


class Due:
    """A delivery that is due: to be acknowledged, or put off."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        _, self.deliberation, number = message.subject.split(".")
        self.number = int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 0

    async def done(self) -> None:
        """Nothing is left to do. Where that cannot be told now it comes again."""
        with suppress(nats.errors.Error, *TRANSIENT):
            await self._message.ack_sync(timeout=5)

    async def again(self, delay_s: float) -> None:
        """Let it come again after the delay, to whoever asks first."""
        with suppress(nats.errors.Error, *TRANSIENT):
            await self._message.nak(delay=delay_s)


class CallbackQueue:
    """The queue, on the record's connection."""

    def __init__(self, record: Record) -> None:
        config = ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=ALL,
        )
        self._pulling = Pulling(record, subjects.CALLBACKS, config)

    async def take(self, wait_s: float) -> Due | None:
        """The next that is due, None where none is within `wait_s`. Raises RecordError; then ask again later."""
        message = await self._pulling.take(wait_s)
        return None if message is None else Due(message)

    async def close(self) -> None:
        """Take no more."""
        await self._pulling.close()


async def put(record: Record, deliberation: str, number: int) -> None:
    """Say that a delivery is due, unless that is said already. Raises RecordError."""
    event_id = f"{deliberation}:callback:{number}"
    await record.publish(subjects.callback(deliberation, number), event_id, "callback.due", {}, alone=True)


async def put_now(record: Record, deliberation: str, number: int) -> None:
    """Say that a delivery is due now, though it may wait for its next try. Raises RecordError."""
    await record.purge(subjects.callback(deliberation, number))
    await put(record, deliberation, number)
