"""The NATS JetStream that the record lives in: where it is, how it is entered, and the streams that are made there.

`JetStreamServer` is configuration; `await server.record()` gives the loop's one shared connection as a `Record`
(`events.py`), with streams, key-value buckets and object store created or checked at first use. The Prefect block is
`blocks/jetstream.py`; what must do without Prefect takes this.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, ObjectStoreConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from blocks.connections import Close, shared
from blocks.exceptions import RecordMisconfigured, RecordRefused, RecordUnavailable
from blocks.files import require_regular
from blocks.record import subjects
from blocks.record.bodies import BODIES_BUCKET
from blocks.record.client import Streams
from blocks.record.events import Record
from blocks.record.installation import installation_of
from blocks.record.lease_keys import LEASE_S, LEASES_BUCKET
from blocks.record.patience import TRANSIENT, words

STREAMS: dict[str, tuple[RetentionPolicy, tuple[str, ...]]] = {
    subjects.REQUESTS: (RetentionPolicy.WORK_QUEUE, ("requests.*", "requests.*.batch")),
    subjects.ANSWERS: (RetentionPolicy.LIMITS, ("answers.>", "attempts.>")),
    subjects.DECISIONS: (RetentionPolicy.LIMITS, ("decisions.>", "deliberations.>")),
    subjects.DEAD: (RetentionPolicy.LIMITS, ("dead.>",)),
    subjects.CALLBACKS: (RetentionPolicy.WORK_QUEUE, ("callbacks.*.*",)),
}
_log = logging.getLogger("conclave.jetstream")

CALLBACK_DAYS = 14.0
_AGING_BUCKETS = (f"OBJ_{BODIES_BUCKET}", f"KV_{subjects.CALLBACKS_BUCKET}", f"KV_{subjects.BATCHES_BUCKET}")
"""Streams of buckets whose values are kept for as long as the record's."""

REFUSED = "authorization"
"""What every refusal of nats-server says: of a wrong key, and of none."""


class Retention(NamedTuple):
    """Streams that were given another retention, and those left with a longer one than their block says."""

    changed: list[str]
    longer: list[str]


class JetStreamServer(BaseModel):
    """A NATS JetStream by its servers and credentials, and how long it keeps what."""

    model_config = ConfigDict(hide_input_in_errors=True)  # what is refused may hold a password

    servers: list[str] = Field(
        default_factory=lambda: ["nats://127.0.0.1:4222"], min_length=1, description="URLs of the servers."
    )
    user: str | None = Field(None, description="User name, with a password.")
    password: SecretStr | None = Field(None, description="Password of the user.")
    token: SecretStr | None = Field(None, description="Token, in place of a user.")
    credentials_file: Path | None = Field(None, description="File with a JWT and its NKey, in place of a user.")
    tls_ca_file: Path | None = Field(None, description="Certificate authority that signed the servers' certificates.")
    tls_cert_file: Path | None = Field(None, description="Client certificate, for mutual TLS.")
    tls_key_file: Path | None = Field(None, description="Key of the client certificate.")
    retention_days: float = Field(30.0, ge=1, description="Days that answers and decisions are kept; at least 1.")
    request_days: float = Field(
        365.0, ge=1, description="Days that a request waits for a worker at most; what ran leaves the queue by itself."
    )
    replicas: int = Field(1, ge=1, le=5, description="Copies of each stream; 3 survive the loss of a server.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds to connect.")
    patience_s: float = Field(60.0, gt=0, description="Seconds that a write or read outlasts an absent server.")

    @model_validator(mode="after")
    def _no_credentials_in_urls(self) -> Self:
        """Move credentials from the URLs to the fields that Prefect keeps secret; a field that is set wins."""
        for index, url in enumerate(self.servers):
            parts = urlsplit(url)
            if parts.username is None:
                continue
            self.servers[index] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            if parts.password is None:
                self.token = self.token or SecretStr(unquote(parts.username))
            else:
                self.user = self.user or unquote(parts.username)
                self.password = self.password or SecretStr(unquote(parts.password))
        return self

    def at(self, servers: list[str]) -> Self:
        """The same block for other servers; credentials in their URLs take the place of the block's own."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        if any("@" in url for url in servers):
            kept |= {"user": None, "password": None, "token": None}
        return type(self).model_validate({**kept, "servers": list(servers)})

    async def record(self) -> Record:
        """The loop's shared connection. Raises RecordUnavailable, RecordRefused or RecordMisconfigured."""
        return await shared(("jetstream", *self.servers, *self._credentials), self._connect)

    @property
    def _credentials(self) -> tuple[str, ...]:
        """All that decides who this is to the servers: who differs in any of it shares no connection."""
        names = ("user", "password", "token", "credentials_file", "tls_ca_file", "tls_cert_file", "tls_key_file")
        return tuple(f"{name}={_in_the_open(getattr(self, name))}" for name in names)

    async def _connect(self) -> tuple[Record, Close]:
        self._require_files()
        client = Client()
        try:
            await self._reach(client)
            jetstream = client.jetstream(timeout=self.connect_timeout_s)
            await self._prepare(jetstream)
            record = Record(
                client,
                jetstream,
                await jetstream.key_value(subjects.STATUS_BUCKET),
                await jetstream.object_store(BODIES_BUCKET),
                await jetstream.key_value(LEASES_BUCKET),
                await jetstream.key_value(subjects.ACCESS_BUCKET),
                await jetstream.key_value(subjects.COUNCILS_BUCKET),
                await jetstream.key_value(subjects.CALLBACKS_BUCKET),
                await jetstream.key_value(subjects.BATCHES_BUCKET),
                self.patience_s,
                await installation_of(jetstream, self.replicas),
            )
        except TRANSIENT as error:
            await _close(client)
            raise RecordUnavailable(f"no JetStream answers at {self._where}; is it enabled? {words(error)}") from error
        except nats.errors.Error as error:
            await _close(client)
            raise RecordMisconfigured(f"the JetStream at {self._where} cannot be set up: {words(error)}") from error
        except BaseException:
            await _close(client)
            raise
        return record, partial(_close, client)

    async def _reach(self, client: Client) -> None:
        """Connect, and later reconnect for ever; the first time only once to each server.

        nats-py has one setting for both, so the first time is ended from its error callback, with an error
        that it does not catch.
        """
        failures: list[Exception] | None = []

        async def failed(error: Exception) -> None:
            _log.debug("NATS connection: %s", words(error))
            if failures is None:
                return
            failures.append(error)
            if len(failures) >= len(self.servers):
                told = "; ".join(dict.fromkeys(words(failure) for failure in failures))
                if REFUSED in told.lower():
                    raise RecordRefused(f"NATS at {self._where} refuses our credentials: {told}")
                raise RecordUnavailable(f"no NATS server answers at {self._where}: {told}")

        try:
            async with asyncio.timeout(self.connect_timeout_s * len(self.servers)):
                await client.connect(**self._options(), error_cb=failed)
        except (OSError, nats.errors.Error) as error:
            raise RecordUnavailable(f"no NATS server answers at {self._where}: {words(error)}") from error
        failures = None

    @property
    def _where(self) -> str:
        return ", ".join(self.servers)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "servers": self.servers,
            "name": "conclave",
            "connect_timeout": self.connect_timeout_s,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "user": self.user,
            "password": self.password.get_secret_value() if self.password else None,
            "token": self.token.get_secret_value() if self.token else None,
            "user_credentials": str(self.credentials_file) if self.credentials_file else None,
            "tls": self._tls(),
        }
        return {key: value for key, value in options.items() if value is not None}

    def _require_files(self) -> None:
        """Raise RecordMisconfigured for a file that is none: a FIFO would block whoever opens it, and its loop."""
        for name in ("credentials_file", "tls_ca_file", "tls_cert_file", "tls_key_file"):
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            try:
                require_regular(path)
            except OSError as error:
                raise RecordMisconfigured(f"JetStream.{name}: {path} cannot be read: {error.strerror}") from error

    def _tls(self) -> ssl.SSLContext | None:
        if not (self.tls_ca_file or self.tls_cert_file):
            return None
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_cert_file:
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return context

    async def _prepare(self, jetstream: Streams) -> None:
        """Create what is missing; refuse a stream of that name that keeps something else."""
        for name, (retention, kept) in STREAMS.items():
            await self._ensure_stream(jetstream, name, retention, kept)
        for bucket in (subjects.STATUS_BUCKET, subjects.ACCESS_BUCKET, subjects.COUNCILS_BUCKET):
            await self._ensure_bucket(jetstream, KeyValueConfig(bucket=bucket, storage=StorageType.FILE))
        for bucket, kept_s in (
            (LEASES_BUCKET, LEASE_S),
            (subjects.CALLBACKS_BUCKET, self._age_of(f"KV_{subjects.CALLBACKS_BUCKET}")),
            (subjects.BATCHES_BUCKET, self._age_of(f"KV_{subjects.BATCHES_BUCKET}")),
        ):
            await self._ensure_bucket(jetstream, KeyValueConfig(bucket=bucket, storage=StorageType.FILE, ttl=kept_s))
        try:
            await jetstream.object_store(BODIES_BUCKET)
        except (BucketNotFoundError, NotFoundError):
            await jetstream.create_object_store(
                BODIES_BUCKET,
                config=ObjectStoreConfig(
                    bucket=BODIES_BUCKET,
                    ttl=self.retention_days * 86_400,
                    storage=StorageType.FILE,
                    replicas=self.replicas,
                ),
            )

    async def apply_retention(self, shorten: bool = False) -> Retention:
        """Give the streams that exist the retention of this block; a shorter one, which deletes, only if told to.

        Raises RecordError.
        """
        jetstream, applied = (await self.record()).jetstream, Retention([], [])
        try:
            for name in (*STREAMS, *_AGING_BUCKETS):
                config = (await jetstream.stream_info(name)).config
                wanted, present = self._age_of(name), config.max_age or math.inf  # 0: for ever
                if abs(present - wanted) <= 1:
                    continue
                if present > wanted and not shorten:
                    applied.longer.append(name)
                    continue
                config.max_age = wanted
                await jetstream.update_stream(config)
                applied.changed.append(name)
        except TRANSIENT as error:
            raise RecordUnavailable(f"the streams' retention cannot be changed: {words(error)}") from error
        except nats.errors.Error as error:
            raise RecordMisconfigured(f"the streams' retention cannot be changed: {words(error)}") from error
        return applied

    def _age_of(self, stream: str) -> float:
        """Seconds that a stream keeps its messages: requests have a limit of their own, since they wait to be run.

        Callbacks outlast the delay that a request may ask for and the schedule of their tries. One whose request waits
        longer than that for a worker is told to nobody.
        """
        days = self.retention_days
        if stream == subjects.REQUESTS:
            days = self.request_days
        elif stream in (subjects.CALLBACKS, f"KV_{subjects.CALLBACKS_BUCKET}"):
            days = max(days, CALLBACK_DAYS)
        return days * 86_400

    async def _ensure_bucket(self, jetstream: Streams, config: KeyValueConfig) -> None:
        try:
            await jetstream.key_value(config.bucket)
        except BucketNotFoundError:
            config.replicas = self.replicas
            await jetstream.create_key_value(config)

    async def _ensure_stream(
        self, jetstream: Streams, name: str, retention: RetentionPolicy, subjects: tuple[str, ...]
    ) -> None:
        try:
            found = (await jetstream.stream_info(name)).config
        except NotFoundError:
            await self._create_stream(jetstream, name, retention, subjects)
            return
        if set(found.subjects or ()) != set(subjects) or found.retention != retention or not found.allow_direct:
            raise RecordMisconfigured(
                f"stream {name} has subjects {sorted(found.subjects or ())}, retention {found.retention} and "
                f"allow_direct {found.allow_direct}; Conclave needs {sorted(subjects)}, {retention.value} and True: "
                "rename or remove the stream"
            )

    async def _create_stream(
        self, jetstream: Streams, name: str, retention: RetentionPolicy, subjects: tuple[str, ...]
    ) -> None:
        config = StreamConfig(
            name=name,
            subjects=list(subjects),
            retention=retention,
            max_age=self._age_of(name),
            storage=StorageType.FILE,
            num_replicas=self.replicas,
            allow_direct=True,
        )
        try:
            await jetstream.add_stream(config)
        except APIError as error:
            raise RecordMisconfigured(f"stream {name} cannot be created: {error.description}") from error


def _in_the_open(value: SecretStr | Path | str | None) -> str:
    """A field as text, a secret one too; empty where it is not set."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value or "")


async def _close(client: Client) -> None:
    """Close, whatever is left to close: a server that has gone makes nats-py raise half-way."""
    with suppress(OSError, nats.errors.Error):
        await client.close()
