"""The record itself: fenced writes, reads and live following of JSON events on JetStream.

A *final* event is fenced: it is published with `Nats-Expected-Last-Subject-Sequence: 0`, so the first writer
of a subject stands, whenever the second one comes (`Nats-Msg-Id` would forget after its window). That also
makes every write safe to repeat, so an absent server is outlasted for `patience_s`.

Headers follow the NATS Protocol Binding for CloudEvents v1.0.2, binary mode; a body above the server's
`max_payload` goes to an object store and the event carries its `ce-dataref` (CloudEvents "dataref").
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import (
    APIError,
    DigestMismatchError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
    ObjectNotFoundError,
)
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from blocks.exceptions import NewerVersion, RecordError, RecordUnavailable, RecordUnreadable, Superseded
from blocks.record import subjects
from tasks.council.base import NAME_PATTERN, NAME_RULE

T = TypeVar("T")
Body = dict[str, Any]

BODIES_BUCKET = "conclave-bodies"
LEASES_BUCKET = "conclave-leases"
STREAM_OF = {
    "requests": "CONCLAVE_REQUESTS",
    "answers": "CONCLAVE_ANSWERS",
    "attempts": "CONCLAVE_ANSWERS",
    "decisions": "CONCLAVE_DECISIONS",
    "deliberations": "CONCLAVE_DECISIONS",
    "dead": "CONCLAVE_DEAD",
    "$KV": f"KV_{subjects.STATUS_BUCKET}",
}
VERSION_HEADER = "ce-schemaversion"
SCHEMA_VERSION = 1
"""Version of all bodies, in the header `ce-schemaversion`. Readers pass over fields that they do not know, so it grows
only where a reader of today would do the wrong thing without them."""
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a publish that its fence refused (nats-server `errors.json`)."""
HEADER_ROOM = 4096
POLL_S = 5.0
"""How long a follower waits in silence before it asks the stream whether it missed something."""

LEASE_S = 6.0
"""How long a lease lasts that is not renewed: so long the next one waits for a holder that was killed."""

BODY_S = 30.0
"""How long reading a body from the object store may take; nats-py would wait for ever for a lost part."""


class _Unsettled(Exception):
    """The fence refused a publish, but the event that it refused it for cannot be read yet."""


TRANSIENT = (
    _Unsettled,
    nats.errors.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.NoRespondersError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    OSError,
)


@dataclass(frozen=True)
class Event:
    """One event on the record: where it stands, at which sequence of its stream, and its JSON body."""

    subject: str
    sequence: int
    body: Body
    time: datetime | None = None
    """When the server stored it, by the server's clock; None where the server did not say."""


class Fence(NamedTuple):
    """Where an epoch of a deliberation begins on the record: writes under it are refused once a later one has."""

    subject: str
    sequence: int
    epoch: int


class Record:
    """The shared connection to JetStream; made by `JetStream.record()`."""

    def __init__(
        self,
        client: Client,
        jetstream: JetStreamContext,
        status: KeyValue,
        bodies: ObjectStore,
        leases: KeyValue,
        patience_s: float,
        installation: str,
    ) -> None:
        self.client = client
        self.jetstream = jetstream
        self._status = status
        self._bodies = bodies
        self.leases = leases
        self._patience_s = patience_s
        self.installation = installation

    # --- events -----------------------------------------------------------------------------------

    async def publish_final(
        self, subject: str, event_id: str, kind: str, body: Body, fence: Fence | None = None
    ) -> Event | None:
        """Write a final event; None if it stands, else the event of the writer who came first.

        With a fence it is refused once a later epoch has begun: then Superseded is raised, whose `run` says who is at
        work now. Only the holder of the epoch writes under its fence, so reading first is enough to be first.
        Raises RecordUnavailable when JetStream does not answer within `patience_s`.
        """
        data, headers = await self._packed(subject, event_id, kind, body)
        if fence is not None:
            return await self.outlast(lambda: self._write_fenced(subject, data, headers, body, fence))
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
                raise _Unsettled(f"{subject} is taken by an event that cannot be read")
            # A repeat after a lost acknowledgement meets its own first try.
            return None if _dump(first.body) == _dump(body) else first

        return await self.outlast(write)

    async def _write_fenced(
        self, subject: str, data: bytes, headers: dict[str, str], body: Body, fence: Fence
    ) -> Event | None:
        first = await self.last(subject, direct=False)
        if first is not None:
            return None if _dump(first.body) == _dump(body) else first
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

    async def publish(self, subject: str, event_id: str, kind: str, body: Body) -> None:
        """Write an event that may be followed by others on its subject."""
        data, headers = await self._packed(subject, event_id, kind, body)
        headers["Nats-Msg-Id"] = uuid.uuid4().hex  # of this call: a repeat after a lost acknowledgement is dropped
        await self.outlast(lambda: self.jetstream.publish(subject, data, headers=headers))

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Write bytes as they are, with headers that say what they are; `Nats-Msg-Id` makes it safe to repeat."""
        _check_tokens(subject)
        await self.outlast(lambda: self.jetstream.publish(subject, data, headers=headers))

    async def messages(self, stream: str) -> int:
        """How many messages a stream keeps."""

        async def ask() -> int:
            return int((await self.jetstream.stream_info(stream)).state.messages)

        return await self.outlast(ask)

    async def announce(self, subject: str, body: Body) -> None:
        """Tell whoever listens on core NATS, at most once; nothing depends on it."""
        data = _dump(body)
        if len(data) <= self.client.max_payload:
            with suppress(nats.errors.Error):
                await self.client.publish(subject, data)

    async def last(self, subject: str, direct: bool = True) -> Event | None:
        """The newest event on a subject; `direct=False` asks the stream's leader."""

        async def get() -> Event | None:
            try:
                message = await self.jetstream.get_msg(_stream(subject), subject=subject, direct=direct)
            except NotFoundError:
                return None
            return await self.event_of(message.subject or subject, message.seq or 0, message)

        return await self.outlast(get)

    async def exists(self, subject: str) -> bool:
        """Whether anything stands on a subject, as its leader has it; the body is not looked at."""

        async def get() -> bool:
            try:
                await self.jetstream.get_msg(_stream(subject), subject=subject)
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
                    _stream(pattern), seq=after + 1, subject=pattern, direct=direct, next=True
                )
            except NotFoundError:
                return None
            try:
                return await self.event_of(message.subject or pattern, message.seq or 0, message)
            except (RecordUnreadable, NewerVersion):
                if not lenient:
                    raise
                return Event(message.subject or pattern, message.seq or 0, {}, message.time)

        return await self.outlast(get)

    async def stored(self, pattern: str, direct: bool = True) -> AsyncGenerator[Event, None]:
        """The events that stand on subjects of `pattern`, in their order; `direct=False` asks the leader."""
        after = 0
        while (event := await self.next(pattern, after, direct)) is not None:
            yield event
            after = event.sequence

    async def follow(self, pattern: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """Every event on subjects of `pattern`, stored ones first, then as they come; never ends.

        The consumer lives in the server's memory. When it falls silent the stream is asked whether anything
        was missed. Then, and when its count of messages has a gap or begins again, it is made anew where the
        last event left off, so a restart loses nothing and brings nothing twice.
        """
        while True:
            subscription = await self.outlast(lambda: self._consume(pattern, after))  # noqa: B023  # awaited here
            count = 0
            try:
                while True:
                    try:
                        message = await subscription.next_msg(timeout=POLL_S)
                    except nats.errors.TimeoutError:
                        if await self.next(pattern, after) is not None:
                            break
                        continue
                    count += 1
                    if message.metadata.sequence.consumer != count:
                        break
                    after = message.metadata.sequence.stream
                    yield await self.event_of(message.subject, after, message)
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

    async def listen(self, pattern: str, heard: Callable[[str], None]) -> Subscription:
        """Call `heard` with the subject of each event on core NATS as it passes; unsubscribe when done."""

        async def on_message(message: Any) -> None:
            heard(message.subject)

        return await self.outlast(lambda: self.client.subscribe(pattern, cb=on_message))

    # --- status -----------------------------------------------------------------------------------

    async def create_status(self, key: str, body: Body) -> bool:
        """Write a key that must not exist; False if it does."""
        data = _dump(body)
        tries = 0

        async def create() -> bool:
            nonlocal tries
            tries += 1
            try:
                await self._status.create(key, data)
            except KeyWrongLastSequenceError:
                # A repeat after a lost acknowledgement meets its own first try.
                return tries > 1 and (await self._status.get(key)).value == data
            return True

        return await self.outlast(create)

    async def read_status(self, key: str) -> Body | None:
        """The value of a key, None if there is none; an empty one where it cannot be read."""

        async def get() -> Body | None:
            try:
                entry = await self._status.get(key)
            except KeyNotFoundError:
                return None
            return _readable(entry.value)

        return await self.outlast(get)

    async def merge_status(self, key: str, change: Body) -> bool:
        """Set some fields of a key, compare-and-set so that no other writer's fields are lost.

        A key that is not there is made only by a change that has a status, since nobody could read one without; False
        where nothing was written.
        """

        async def merge() -> bool:
            while True:
                try:
                    entry = await self._status.get(key)
                    value = _dump({**_readable(entry.value), **change})
                    await self._status.update(key, value, last=entry.revision)
                    return True
                except KeyNotFoundError:
                    if "status" not in change:
                        return False
                    if await self.create_status(key, change):
                        return True
                except KeyWrongLastSequenceError:
                    continue

        return await self.outlast(merge)

    async def purge_status(self, event: Event) -> None:
        """Let a key go for good, without a mark in its place, unless it was written again since this event."""
        await self.outlast(
            lambda: self.jetstream.purge_stream(_stream(event.subject), seq=event.sequence + 1, subject=event.subject)
        )

    def follow_status(self, key: str) -> AsyncGenerator[Event, None]:
        """Every change of a key from its present value on; never ends."""
        return self.follow(subjects.status(key))

    # --- leases -----------------------------------------------------------------------------------

    async def held(self, key: str) -> bool:
        """Whether anybody holds the lease now."""

        async def get() -> bool:
            try:
                await self.leases.get(key)
            except KeyNotFoundError:
                return False
            return True

        return await self.outlast(get)

    async def create_lease(self, key: str, holder: bytes) -> int | None:
        """Take a lease that nobody holds: the revision of its key, None if somebody holds it."""

        async def create() -> int | None:
            try:
                return await self.leases.create(key, holder)
            except KeyWrongLastSequenceError:
                pass
            try:  # a repeat after a lost acknowledgement meets its own first try
                entry = await self.leases.get(key)
            except KeyNotFoundError:
                return None
            return entry.revision if entry.value == holder else None

        return await self.outlast(create)

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
                return Fence(subject, (await self.jetstream.publish(subject, data, headers=headers)).seq, number)
            except APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
                raise _Unsettled(f"the epoch of {deliberation_id} has changed just now") from error

        return await self.outlast(begin)

    async def tell(self, subject: str, data: bytes) -> None:
        """Send a plain message, such as an acknowledgement."""
        await self.client.publish(subject, data)

    # --- inside -----------------------------------------------------------------------------------

    async def _consume(self, pattern: str, after: int) -> JetStreamContext.PushSubscription:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
        return await self.jetstream.subscribe(
            pattern, stream=_stream(pattern), ordered_consumer=True, config=config, inactive_threshold=60.0
        )

    async def outlast(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat an attempt while the server is away, up to `patience_s`. Raises RecordError."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return await attempt()
            except TRANSIENT as error:
                if time.monotonic() > until:
                    told = f"JetStream did not answer for {self._patience_s:g} s: {words(error)}"
                    raise RecordUnavailable(told) from error
                await asyncio.sleep(0.25)
            except nats.errors.Error as error:
                raise RecordError(f"JetStream refused: {words(error)}") from error

    async def _packed(self, subject: str, event_id: str, kind: str, body: Body) -> tuple[bytes, dict[str, str]]:
        _check_tokens(subject)
        data, headers = _dump(body), event_headers(subject, event_id, kind)
        if len(data) > self.client.max_payload - HEADER_ROOM:
            headers["ce-dataref"] = await self.keep_reference(subject, data)
            data = b"{}"
        return data, headers

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
            data = await self.read_body(reference.rpartition("/")[2])
        try:
            return Event(subject, sequence, _load(data), getattr(message, "time", None))
        except (ValueError, RecursionError) as error:
            raise RecordUnreadable(f"the body of {subject} is no JSON") from error

    async def keep_body(self, owner: str, data: bytes) -> str:
        """Put a body into the object store, for as long as answers are kept; its name, a digest of it and its owner.

        The owner is the subject or id that it belongs to: a body of two would go when the first one's time is over.
        """
        name = hashlib.sha256(owner.encode() + b"\0" + data).hexdigest()
        await self.outlast(lambda: self._keep_body(name, data))
        return name

    async def keep_reference(self, owner: str, data: bytes) -> str:
        """Put a body into the object store; what a `ce-dataref` says of it."""
        return f"nats-object://{BODIES_BUCKET}/{await self.keep_body(owner, data)}"

    async def read_body(self, name: str) -> bytes:
        """A body from the object store. Raises RecordError where it is not there."""
        return await self.outlast(lambda: self._read_body(name))

    async def _keep_body(self, name: str, data: bytes) -> None:
        """Put a body under its digest, unless it is there: putting again would purge it under a reader."""
        try:
            await self._bodies.get_info(name)
        except ObjectNotFoundError:
            await self._bodies.put(name, data)

    async def _read_body(self, name: str) -> bytes:
        try:
            async with asyncio.timeout(BODY_S):
                return (await self._bodies.get(name)).data or b""
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
        info = await self._bodies.get_info(name)
        subject = f"$O.{BODIES_BUCKET}.C.{info.nuid}"
        stream = await self.jetstream.stream_info(f"OBJ_{BODIES_BUCKET}", subjects_filter=subject)
        return not stream.state.subjects and bool(info.chunks)


def event_headers(subject: str, event_id: str, kind: str) -> dict[str, str]:
    """CloudEvents attributes as NATS headers; the trace is the deliberation's, the span the event's."""
    deliberation = subject.split(".")[1]
    trace = hashlib.sha256(deliberation.encode()).hexdigest()[:32]
    span = hashlib.sha256(event_id.encode()).hexdigest()[:16]
    return {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": f"conclave.{kind}",
        "ce-source": f"/conclave/deliberations/{deliberation}",
        "ce-time": datetime.now(UTC).isoformat(),
        VERSION_HEADER: str(SCHEMA_VERSION),
        "ce-traceparent": f"00-{trace}-{span}-01",
        "content-type": "application/json",
    }


def newer(headers: Mapping[str, str]) -> bool:
    """Whether a later version of Conclave wrote what these headers stand before."""
    version = headers.get(VERSION_HEADER, "")
    return version.isdecimal() and (len(version) > 9 or int(version) > SCHEMA_VERSION)


def words(error: BaseException) -> str:
    """What an error says; the name of its class where it says nothing."""
    return str(error) or type(error).__name__


def _stream(pattern: str) -> str:
    first = pattern.partition(".")[0]
    if first not in STREAM_OF:
        raise ValueError(f"{pattern!r} belongs to no stream; subjects begin with {', '.join(STREAM_OF)}")
    return STREAM_OF[first]


def _check_tokens(subject: str) -> None:
    """An event has a stream and an id, and every token of its subject is a name. Raises ValueError."""
    _stream(subject)
    tokens = subject.split(".")
    wrong = [token for token in tokens if re.fullmatch(NAME_PATTERN, token) is None]
    if wrong or len(tokens) < 2:
        raise ValueError(f"{subject!r} is no subject of an event: each token is {NAME_RULE}")


def _epoch_of(standing: Event | None) -> int:
    epoch = standing.body.get("epoch") if standing else 0
    return epoch if isinstance(epoch, int) else 0


def _same_epoch(standing: Event, epoch: int, run: str | None, holder: str | None) -> bool:
    """Whether the standing epoch was begun by the same holder for the same run."""
    body = standing.body
    mine = body.get("holder") == holder if holder else body.get("epoch") == epoch
    return mine and body.get("run") == run


def _dump(body: Body) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _readable(data: bytes | None) -> Body:
    """The body of a key; empty where it is no JSON, so that whoever has to end the deliberation can."""
    try:
        return _load(data)
    except (ValueError, RecursionError):
        return {}


def _load(data: bytes | None) -> Body:
    body = json.loads(data or b"{}")
    return body if isinstance(body, dict) else {"value": body}
