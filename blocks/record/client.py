"""What the record asks of NATS: the part of nats-py's client that everything in this room stands on.

nats-py has no types. These protocols say what is used of it, with nats-py's names; `tests/fakes/memory_nats.py` is
another one that keeps them, and `tests/blocks/record_rules/` holds both to one suite of rules. Errors are nats-py's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, PubAck, RawStreamMsg, StreamConfig, StreamInfo


class Subscription(Protocol):
    """What passes on core NATS."""

    @property
    def messages(self) -> AsyncIterator[Msg]:
        """One after another; never ends."""

    async def unsubscribe(self) -> None:
        """Listen no more."""


class Follower(Protocol):
    """An ordered consumer, which lives in the server's memory."""

    async def next_msg(self, timeout: float) -> Msg:
        """The next message. Raises nats' TimeoutError."""

    async def unsubscribe(self) -> None:
        """Follow no more."""


class Puller(Protocol):
    """Takes the messages of a durable consumer."""

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:
        """The next ones, to be acknowledged. Raises nats' TimeoutError."""

    async def unsubscribe(self) -> None:
        """Take no more."""


class Connection(Protocol):
    """A connection, as nats-py's `Client`."""

    max_payload: int

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send a message, at most once."""

    async def subscribe(
        self,
        subject: str,
        queue: str = "",
        cb: Callable[[Msg], Awaitable[None]] | None = None,
        pending_msgs_limit: int = ...,
    ) -> Subscription:
        """Listen; with a queue one of all in it gets each message."""


class Entry(Protocol):
    """A key's value."""

    value: bytes | None
    revision: int


class Keys(Protocol):
    """A key-value bucket. Raises KeyNotFoundError and KeyWrongLastSequenceError."""

    async def get(self, key: str) -> Entry:
        """The value of a key."""

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist; its revision."""

    async def update(self, key: str, value: bytes, last: int) -> int:
        """Write a key that has this revision; the new one."""

    async def put(self, key: str, value: bytes) -> int:
        """Write a key, whatever stands there; its revision."""

    async def delete(self, key: str, last: int | None = None) -> bool:
        """Remove a key, where it has this revision."""


class Objects(Protocol):
    """An object store. Raises ObjectNotFoundError and DigestMismatchError."""

    async def get_info(self, name: str) -> Any:
        """What is known of an object."""

    async def get(self, name: str) -> Any:
        """An object, whose `data` it is."""

    async def put(self, name: str, data: bytes) -> Any:
        """Keep an object."""


class Streams(Protocol):
    """JetStream, as nats-py's `JetStreamContext`. Raises APIError and NotFoundError."""

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> PubAck:
        """Store a message; where and whether it is a duplicate."""

    async def get_msg(
        self,
        stream_name: str,
        seq: int | None = None,
        subject: str | None = None,
        direct: bool = False,
        next: bool = False,  # noqa: A002  # nats-py has that name
    ) -> RawStreamMsg:
        """A message by sequence, the first of a subject from one on, or the last of a subject."""

    async def subscribe(
        self, subject: str, *, stream: str, ordered_consumer: bool, config: ConsumerConfig, inactive_threshold: float
    ) -> Follower:
        """Follow a subject."""

    async def add_stream(self, config: StreamConfig | None = None, **fields: Any) -> StreamInfo:
        """Make a stream."""

    async def update_stream(self, config: StreamConfig) -> StreamInfo:
        """Change a stream."""

    async def delete_stream(self, name: str) -> bool:
        """Remove a stream."""

    async def purge_stream(self, name: str, seq: int | None = None, subject: str | None = None) -> bool:
        """Delete the messages of a subject below a sequence."""

    async def stream_info(self, name: str, subjects_filter: str | None = None) -> StreamInfo:
        """What a stream is and has."""

    async def find_stream_name_by_subject(self, subject: str) -> str:
        """The stream that keeps a subject."""

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> Any:
        """Make a durable consumer, or change it."""

    async def consumer_info(self, stream: str, consumer: str) -> Any:
        """What waits for a consumer, and what its takers are at."""

    async def pull_subscribe_bind(self, consumer: str, stream: str) -> Puller:
        """Take from a durable consumer."""

    async def key_value(self, bucket: str) -> Keys:
        """A bucket. Raises BucketNotFoundError."""

    async def create_key_value(self, config: Any) -> Keys:
        """Make a bucket."""

    async def object_store(self, bucket: str) -> Objects:
        """An object store. Raises BucketNotFoundError."""

    async def create_object_store(self, bucket: str, config: Any) -> Objects:
        """Make an object store."""
