"""The work queue of requests: JetStream's `CONCLAVE_REQUESTS`, from which workers take what is to be run.

A request waits on `requests.<id>`, one of a batch on `requests.<id>.batch`. Each lane has one durable consumer that
all workers share, so that people do not wait behind a batch. A request that its worker does not acknowledge is
delivered again after `ACK_WAIT_S`. One that cannot be dealt with becomes a dead letter (`dead_letters.py`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.dead_letters import bury
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.patience import TRANSIENT, words
from blocks.record.pulling import Pulling
from blocks.record.subjects import Lane

LANES: tuple[Lane, ...] = ("interactive", "batch")
STREAM = subjects.REQUESTS
ACK_WAIT_S = 60.0
"""So long a request of a killed worker waits for the next one."""
MAX_IN_WORK = 10_000


class Delivery:
    """A request that was taken: to be acknowledged, handed back or refused. `deliveries` counts from 1."""

    def __init__(self, record: Record, lane: Lane, message: Msg) -> None:
        self._record, self._message = record, message
        self.lane: Lane = lane
        self.subject = message.subject
        self.sequence = int(message.metadata.sequence.stream)
        self.deliveries = int(message.metadata.num_delivered)

    @property
    def id(self) -> str:
        """The second token of its subject: the id that the request should have."""
        return self.subject.split(".")[1]

    @property
    def reply(self) -> str:
        """Where its acknowledgement goes."""
        return self._message.reply

    async def body(self) -> Body:
        """What is asked for. Raises RecordError: RecordUnreadable and NewerVersion where trying again does not help."""
        return (await self._record.event_of(self.subject, self.sequence, self._message)).body

    async def done(self) -> None:
        """It is finished, and leaves the queue. One that cannot be told so now comes again."""
        with suppress(nats.errors.Error, *TRANSIENT):
            await self._message.ack_sync(timeout=5)

    async def hand_back(self, delay_s: float = 0.0) -> None:
        """Let it be delivered again, to whoever asks first, after the delay."""
        with suppress(nats.errors.Error, *TRANSIENT):
            await self._message.nak(delay=delay_s or None)

    async def bury(self, reason: str) -> None:
        """Keep it as a dead letter with the reason, as it is and without reading it; then it leaves the queue.

        Raises RecordError; then it stays in the queue.
        """
        name = f"{STREAM}:{self.sequence}"
        await bury(self._record, self.subject, name, self.deliveries, reason, self._message)
        with suppress(nats.errors.Error, *TRANSIENT):
            await self._message.term()


class WorkQueue:
    """One lane of the queue, on the record's connection."""

    def __init__(self, record: Record, lane: Lane, ack_wait_s: float = ACK_WAIT_S) -> None:
        config = ConsumerConfig(
            durable_name=_durable(lane),
            filter_subject=subjects.request("*", lane),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=MAX_IN_WORK,
        )
        self._record, self._lane = record, lane
        self._pulling = Pulling(record, STREAM, config)

    async def take(self, wait_s: float) -> Delivery | None:
        """The next request, None where none comes within `wait_s`. Raises RecordError; then ask again later."""
        message = await self._pulling.take(wait_s)
        return None if message is None else Delivery(self._record, self._lane, message)

    async def depth(self) -> tuple[int, int]:
        """Requests that wait, and requests that workers are at."""
        return await self._pulling.depth()

    async def close(self) -> None:
        """Take no more."""
        await self._pulling.close()


PRESENCE = "worker."
"""Leases under this prefix say which workers are there; ids of deliberations have no dot."""


async def workers(record: Record) -> int:
    """How many workers take from the queue now; one that was killed counts for some seconds. Raises RecordError."""
    return len(await record.leases.names(PRESENCE))


class Backlog(NamedTuple):
    """Requests of both lanes: waiting ones, those that workers are at, and of these those delivered more than once."""

    waiting: int = 0
    in_work: int = 0
    again: int = 0


async def backlog(record: Record) -> Backlog:
    """What stands in the queue. Raises RecordError."""
    found = Backlog()
    for lane in LANES:
        try:
            info = await record.jetstream.consumer_info(STREAM, _durable(lane))
        except NotFoundError:  # nobody has taken from it yet
            continue
        except (nats.errors.Error, *TRANSIENT) as error:
            raise RecordError(f"the requests cannot be counted: {words(error)}") from error
        counts = (info.num_pending or 0, info.num_ack_pending or 0, info.num_redelivered or 0)
        found = Backlog(*map(sum, zip(found, counts, strict=True)))
    return found


def _durable(lane: Lane) -> str:
    """The consumer that all workers share for a lane."""
    return f"workers-{lane}"
