"""The record itself: fenced writes, reads and live following of JSON events on JetStream.

A *final* event is fenced: it is published with `Nats-Expected-Last-Subject-Sequence: 0`, so the first writer
of a subject stands, whenever the second one comes (`Nats-Msg-Id` would forget after its window). That also
makes every write safe to repeat, so an absent server is outlasted for `patience_s`.

Headers follow the NATS Protocol Binding for CloudEvents v1.0.2, binary mode; a body above the server's
`max_payload` goes to an object store and the event carries its `ce-dataref` (CloudEvents "dataref").
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from blocks.exceptions import NewerVersion, RecordError, RecordUnreadable, Superseded
from blocks.record import subjects
from blocks.record.bodies import Bodies
from blocks.record.client import Connection, Follower, Keys, Objects, Streams, Subscription
from blocks.record.envelope import (
    SCHEMA_VERSION,
    STREAM_OF,
    VERSION_HEADER,
    Body,
    Event,
    check_tokens,
    dump,
    event_headers,
    load,
    newer,
    stream_of,
)
from blocks.record.json_keys import JsonKeys
from blocks.record.lease_keys import LeaseKeys
from blocks.record.patience import Patience, Unsettled
from blocks.record.statuses import Statuses

WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a publish that its fence refused (nats-server `errors.json`)."""
HEADER_ROOM = 4096
POLL_S = 5.0
"""How long a follower waits in silence before it asks the stream whether it missed something."""


class Fence(NamedTuple):
    """Where an epoch of a deliberation begins on the record: writes under it are refused once a later one has."""

    subject: str
    sequence: int
    epoch: int
    is_first: bool = False
    """Whether no epoch was before it, so that nothing stands which was written under one."""


class Record:
    """The shared connection to JetStream; made by `JetStream.record()`."""

    def __init__(
        self,
        client: Connection,
        jetstream: Streams,
        statuses: Keys,
        bodies: Objects,
        leases: Keys,
        access: Keys,
        councils: Keys,
        callbacks: Keys,
        batches: Keys,
        patience_s: float,
        installation: str,
    ) -> None:
        patience = Patience(patience_s)
        self.client, self.jetstream = client, jetstream
        self.outlast = patience.outlast
        self.statuses = Statuses(statuses, jetstream, subjects.STATUS_BUCKET, patience)
        self.bodies = Bodies(bodies, jetstream, patience)
        self.leases = LeaseKeys(leases, jetstream, patience)
        self.access = JsonKeys(access, jetstream, subjects.ACCESS_BUCKET, patience)
        self.councils = JsonKeys(councils, jetstream, subjects.COUNCILS_BUCKET, patience)
        self.callbacks = JsonKeys(callbacks, jetstream, subjects.CALLBACKS_BUCKET, patience)
        self.batches = JsonKeys(batches, jetstream, subjects.BATCHES_BUCKET, patience)
        self.installation = installation

    # --- events -----------------------------------------------------------------------------------

    async def publish_final(
        self,
        subject: str,
        event_id: str,
        kind: str,
        body: Body,
        fence: Fence | None = None,
        version: int = 1,
        is_first: bool = False,
    ) -> Event | None:
        """Write a final event; None if it stands, else the event of the writer who came first.

        `version` is what a reader has to know (`envelope.py`).

        With a fence it is refused once a later epoch has begun: then Superseded is raised, whose `run` says who is at
        work now. Only the holder of the epoch writes under its fence, so reading first is enough to be first, and
        needless where it is known that nothing stands there (`is_first`).
        Raises RecordUnavailable when JetStream does not answer within `patience_s`.
        """
        data, headers = await self._packed(subject, event_id, kind, body, version)
        if fence is not None:
            return await self.outlast(lambda: self._write_fenced(subject, data, headers, body, fence, is_first))
        headers["Nats-Expected-Last-Subject-Sequence"] = "0"

        async def write() -> Event | None:
            try:
                await self.jetstream.publish(subject, data, headers=headers)
            except APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
            else:
                return None
            first = await self.last(subject, direct=False)
            if first is None:
                raise Unsettled(f"{subject} is taken by an event that cannot be read")
            # A repeat after a lost acknowledgement meets its own first try.
            return None if dump(first.body) == dump(body) else first

        return await self.outlast(write)

    async def _write_fenced(
        self, subject: str, data: bytes, headers: dict[str, str], body: Body, fence: Fence, is_first: bool
    ) -> Event | None:
        first = None if is_first else await self.last(subject, direct=False)
        if first is not None:
            return None if dump(first.body) == dump(body) else first
        expected = {
            "Nats-Expected-Last-Subject-Sequence": str(fence.sequence),
            "Nats-Expected-Last-Subject-Sequence-Subject": fence.subject,
            "Nats-Msg-Id": f"{headers['ce-id']}:{fence.sequence}",  # a repeat after a lost acknowledgement is dropped
        }
        try:
            await self.jetstream.publish(subject, data, headers=headers | expected)
        except APIError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            begun = await self.last(fence.subject, direct=False)
            run = begun.body.get("run") if begun else None
            raise Superseded(f"{subject} is refused: another run has begun", run) from error
        return None

    async def publish(
        self, subject: str, event_id: str, kind: str, body: Body, version: int = 1, alone: bool = False
    ) -> None:
        """Write an event that may be followed by others on its subject; `alone`: unless one stands there."""
        data, headers = await self._packed(subject, event_id, kind, body, version)
        headers["Nats-Msg-Id"] = uuid.uuid4().hex  # of this call: a repeat after a lost acknowledgement is dropped
        if alone:
            headers["Nats-Expected-Last-Subject-Sequence"] = "0"

        async def write() -> None:
            try:
                await self.jetstream.publish(subject, data, headers=headers)
            except APIError as error:
                if not alone or error.err_code != WRONG_LAST_SEQUENCE:
                    raise

        await self.outlast(write)

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Write bytes as they are, with headers that say what they are; `Nats-Msg-Id` makes it safe to repeat."""
        check_tokens(subject)
        await self.outlast(lambda: self.jetstream.publish(subject, data, headers=headers))

    async def purge(self, subject: str) -> None:
        """Let whatever stands on a subject go for good."""
        await self.outlast(lambda: self.jetstream.purge_stream(stream_of(subject), subject=subject))

    async def messages(self, stream: str) -> int:
        """How many messages a stream keeps."""

        async def ask() -> int:
            return int((await self.jetstream.stream_info(stream)).state.messages)

        return await self.outlast(ask)

    async def announce(self, subject: str, body: Body) -> None:
        """Tell whoever listens on core NATS, at most once; nothing depends on it."""
        data = dump(body)
        if len(data) <= self.client.max_payload:
            with suppress(nats.errors.Error):
                await self.client.publish(subject, data)

    async def last(self, subject: str, direct: bool = True) -> Event | None:
        """The newest event on a subject; `direct=False` asks the stream's leader."""

        async def get() -> Event | None:
            try:
                message = await self.jetstream.get_msg(stream_of(subject), subject=subject, direct=direct)
            except NotFoundError:
                return None
            return await self.event_of(message.subject or subject, message.seq or 0, message)

        return await self.outlast(get)

    async def exists(self, subject: str) -> bool:
        """Whether anything stands on a subject, as its leader has it; the body is not looked at."""

        async def get() -> bool:
            try:
                await self.jetstream.get_msg(stream_of(subject), subject=subject)
            except NotFoundError:
                return False
            return True

        return await self.outlast(get)

    async def next(self, pattern: str, after: int, direct: bool = True, lenient: bool = False) -> Event | None:
        """The first event on subjects of `pattern` with a sequence above `after`; `direct=False` asks the leader.

        `lenient`: a body that cannot be read counts as an empty one, so that whoever goes through all gets past it.
        """

        direct = direct and not pattern.startswith("$KV.")  # nats-py makes its buckets without direct access

        async def get() -> Event | None:
            try:
                message = await self.jetstream.get_msg(
                    stream_of(pattern), seq=after + 1, subject=pattern, direct=direct, next=True
                )
            except NotFoundError:
                return None
            return await self._event_of(message.subject or pattern, message.seq or 0, message, lenient)

        return await self.outlast(get)

    async def last_sequence(self, pattern: str) -> int:
        """The sequence of the newest event in the stream that has subjects of this pattern; 0 where it is empty."""

        async def ask() -> int:
            return int((await self.jetstream.stream_info(stream_of(pattern))).state.last_seq)

        return await self.outlast(ask)

    async def standing(self, pattern: str) -> set[str]:
        """The subjects of `pattern` that have an event, as the leader has them."""

        async def ask() -> set[str]:
            info = await self.jetstream.stream_info(stream_of(pattern), subjects_filter=pattern)
            return set(info.state.subjects or ())

        return await self.outlast(ask)

    async def newest(self, pattern: str) -> int:
        """The sequence of the newest event on subjects of `pattern`, as the leader has it; 0 where there is none."""

        async def ask() -> int:
            try:
                return (await self.jetstream.get_msg(stream_of(pattern), subject=pattern)).seq or 0
            except NotFoundError:
                return 0

        return await self.outlast(ask)

    async def stored(self, pattern: str, direct: bool = True) -> AsyncGenerator[Event, None]:
        """The events that stand on subjects of `pattern`, in their order; `direct=False` asks the leader."""
        after = 0
        while (event := await self.next(pattern, after, direct)) is not None:
            yield event
            after = event.sequence

    async def follow(
        self, pattern: str, after: int = 0, lenient: bool = False, headers_only: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Every event on subjects of `pattern`, stored ones first, then as they come; never ends.

        `lenient` is as in `next`; with `headers_only` the server sends no bodies, and all are empty.

        The consumer lives in the server's memory. When it falls silent the stream is asked whether anything
        was missed. Then, and when its count of messages has a gap or begins again, it is made anew where the
        last event left off, so a restart loses nothing and brings nothing twice.
        """
        while True:
            begin = partial(self._consume, pattern, after, headers_only)
            subscription = await self.outlast(begin)
            count = 0
            try:
                while True:
                    try:
                        message = await subscription.next_msg(timeout=POLL_S)
                    except nats.errors.TimeoutError:
                        if await self.next(pattern, after, lenient=lenient or headers_only) is not None:
                            break
                        continue
                    count += 1
                    if message.metadata.sequence.consumer != count:
                        break
                    after = message.metadata.sequence.stream
                    if headers_only:
                        yield Event(message.subject, after, {}, _time_of(message))
                    else:
                        yield await self._event_of(message.subject, after, message, lenient)
            finally:
                with suppress(nats.errors.Error, asyncio.CancelledError):
                    await subscription.unsubscribe()

    async def check(self) -> int:
        """Store a message on disk and read it back, in a stream of its own that goes again; messages on record."""
        name = f"CONCLAVE_CHECK_{uuid.uuid4().hex[:8]}"

        async def store() -> None:
            await self.jetstream.add_stream(name=name, subjects=[f"check.{name}"], max_msgs=1)
            try:
                acknowledged = await self.jetstream.publish(f"check.{name}", b"ready")
                if (await self.jetstream.get_msg(name, acknowledged.seq)).data != b"ready":
                    raise RecordError("JetStream gave back something else than what was stored")
            finally:
                await self.jetstream.delete_stream(name)

        await self.outlast(store)
        streams = [await self.jetstream.stream_info(stream) for stream in sorted(set(STREAM_OF.values()))]
        return sum(info.state.messages for info in streams)

    async def say(self, subject: str) -> None:
        """Pass a subject without a body on core NATS, at most once, to whoever listens to it."""
        with suppress(nats.errors.Error):
            await self.client.publish(subject, b"")

    async def listen(self, pattern: str, heard: Callable[[str], None]) -> Subscription:
        """Call `heard` with the subject of each event on core NATS as it passes; unsubscribe when done."""

        async def on_message(message: Any) -> None:
            heard(message.subject)

        return await self.outlast(lambda: self.client.subscribe(pattern, cb=on_message))

    # --- epochs -----------------------------------------------------------------------------------

    async def fence(
        self,
        deliberation_id: str,
        epoch: int = 1,
        run: str | None = None,
        holder: str | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> Fence:
        """Begin an epoch on the record: from now on every fenced write of an earlier one is refused.

        `run` names the flow run, `holder` the lease that it runs under; `check` raises Superseded where that is lost.
        Who holds the lease begins an epoch above every earlier one, whatever their numbers are: those of a lease begin
        anew with its bucket. Without a lease `epoch` has to be above the standing one. Raises Superseded.
        """
        subject = subjects.epoch(deliberation_id)

        async def begin() -> Fence:
            if check is not None:
                await check()
            standing = await self.last(subject, direct=False)
            reached = _epoch_of(standing)
            if standing is not None and _same_epoch(standing, epoch, run, holder):  # a repeat, or begun before
                return Fence(subject, standing.sequence, reached)
            if standing is not None and check is None and reached >= epoch:
                raise Superseded(f"another run of {deliberation_id} has begun", standing.body.get("run"))
            number = max(epoch, reached + 1)
            body = {"task_id": deliberation_id, "epoch": number, "run": run, "holder": holder}
            data, headers = await self._packed(subject, f"{deliberation_id}:epoch:{number}", "epoch", body)
            headers["Nats-Expected-Last-Subject-Sequence"] = str(standing.sequence if standing else 0)
            try:
                acknowledged = await self.jetstream.publish(subject, data, headers=headers)
                return Fence(subject, acknowledged.seq, number, is_first=standing is None)
            except APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
                raise Unsettled(f"the epoch of {deliberation_id} has changed just now") from error

        return await self.outlast(begin)

    async def tell(self, subject: str, data: bytes) -> None:
        """Send a plain message, such as an acknowledgement."""
        await self.client.publish(subject, data)

    # --- inside -----------------------------------------------------------------------------------

    async def _consume(self, pattern: str, after: int, headers_only: bool = False) -> Follower:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1, headers_only=headers_only or None
        )
        return await self.jetstream.subscribe(
            pattern, stream=stream_of(pattern), ordered_consumer=True, config=config, inactive_threshold=60.0
        )

    async def _packed(
        self, subject: str, event_id: str, kind: str, body: Body, version: int = 1
    ) -> tuple[bytes, dict[str, str]]:
        check_tokens(subject)
        data, headers = dump(body), event_headers(subject, event_id, kind, version)
        if len(data) > self.client.max_payload - HEADER_ROOM:
            headers["ce-dataref"] = await self.bodies.keep_reference(subject, data)
            data = b"{}"
        return data, headers

    async def _event_of(self, subject: str, sequence: int, message: Any, lenient: bool) -> Event:
        """The event that a message brought; an empty one where it cannot be read and that is allowed."""
        try:
            return await self.event_of(subject, sequence, message)
        except (RecordUnreadable, NewerVersion):
            if not lenient:
                raise
            return Event(subject, sequence, {}, _time_of(message))

    async def event_of(self, subject: str, sequence: int, message: Any) -> Event:
        """The event that a message brought.

        Raises RecordError where its body cannot be read, NewerVersion where a later version of Conclave wrote it.
        """
        headers = message.headers or {}
        if newer(headers):
            raise NewerVersion(f"{subject} has version {headers[VERSION_HEADER]:.20}; {SCHEMA_VERSION} is known here")
        reference = headers.get("ce-dataref", "")
        data = message.data or b"{}"
        if reference:
            data = await self.bodies.read(reference.rpartition("/")[2])
        try:
            return Event(subject, sequence, load(data), _time_of(message))
        except (ValueError, RecursionError) as error:
            raise RecordUnreadable(f"the body of {subject} is no JSON") from error


def _time_of(message: Any) -> datetime | None:
    """When a message was stored, whether it was read or delivered; None where the server did not say."""
    if isinstance(message, Msg):
        return message.metadata.timestamp if message.reply else None
    return getattr(message, "time", None)


def _epoch_of(standing: Event | None) -> int:
    epoch = standing.body.get("epoch") if standing else 0
    return epoch if isinstance(epoch, int) else 0


def _same_epoch(standing: Event, epoch: int, run: str | None, holder: str | None) -> bool:
    """Whether the standing epoch was begun by the same holder for the same run."""
    body = standing.body
    mine = body.get("holder") == holder if holder else body.get("epoch") == epoch
    return mine and body.get("run") == run
