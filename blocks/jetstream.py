"""Where the record of every deliberation lives: a Prefect block for a NATS JetStream, and its streams.

`JetStream` is configuration; `await block.record()` gives the loop's one shared connection as a `Record`
(`blocks/record.py`), with streams, key-value bucket and object store created or checked at first use.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, ObjectStoreConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError
from prefect.blocks.core import Block
from prefect.logging import get_logger
from pydantic import Field, SecretStr

from blocks.connections import Close, shared
from blocks.exceptions import RecordMisconfigured, RecordUnavailable
from blocks.record import BODIES_BUCKET, STATUS_BUCKET, Record

STREAMS: dict[str, tuple[RetentionPolicy, tuple[str, ...]]] = {
    "CONCLAVE_REQUESTS": (RetentionPolicy.WORK_QUEUE, ("requests.*",)),
    "CONCLAVE_ANSWERS": (RetentionPolicy.LIMITS, ("answers.>", "attempts.>")),
    "CONCLAVE_DECISIONS": (RetentionPolicy.LIMITS, ("decisions.>", "deliberations.>")),
}


class JetStream(Block):
    """The NATS JetStream that keeps proposals, decisions and the status of deliberations.

    Example:
        ```python
        from blocks.connections import connections
        from blocks.jetstream import JetStream

        jetstream = JetStream.load("BLOCK_NAME")
        async with connections():
            record = await jetstream.record()
        ```
    """

    _block_type_name = "Conclave JetStream"
    _block_type_slug = "conclave-jetstream"
    _description = "The NATS JetStream that keeps answers, decisions and the status of deliberations."
    _documentation_url = "https://docs.nats.io/nats-concepts/jetstream"  # type: ignore[assignment]  # Prefect declares HttpUrl and validates a str

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
    retention_days: float = Field(30.0, gt=0, description="Days that answers and decisions are kept.")
    replicas: int = Field(1, ge=1, le=5, description="Copies of each stream; 3 survive the loss of a server.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds to connect.")
    patience_s: float = Field(60.0, gt=0, description="Seconds that a write or read outlasts an absent server.")

    async def record(self) -> Record:
        """The loop's shared connection. Raises RecordUnavailable or RecordMisconfigured."""
        return await shared(("jetstream", *self.servers, self.user, str(self.credentials_file)), self._connect)

    async def _connect(self) -> tuple[Record, Close]:
        try:
            client = await nats.connect(**self._options())
        except (OSError, nats.errors.Error, TimeoutError) as error:
            shown = ", ".join(self.servers)
            raise RecordUnavailable(f"no NATS server answers at {shown}: {error or type(error).__name__}") from error
        try:
            jetstream = client.jetstream(timeout=self.connect_timeout_s)
            await self._prepare(jetstream)
            record = Record(
                client,
                jetstream,
                await jetstream.key_value(STATUS_BUCKET),
                await jetstream.object_store(BODIES_BUCKET),
                self.patience_s,
            )
        except BaseException:
            await client.close()
            raise
        return record, client.close

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "servers": self.servers,
            "name": "conclave",
            "connect_timeout": self.connect_timeout_s,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "error_cb": _log_error,
            "user": self.user,
            "password": self.password.get_secret_value() if self.password else None,
            "token": self.token.get_secret_value() if self.token else None,
            "user_credentials": str(self.credentials_file) if self.credentials_file else None,
            "tls": self._tls(),
        }
        return {key: value for key, value in options.items() if value is not None}

    def _tls(self) -> ssl.SSLContext | None:
        if not (self.tls_ca_file or self.tls_cert_file):
            return None
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_cert_file:
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return context

    async def _prepare(self, jetstream: JetStreamContext) -> None:
        """Create what is missing; refuse a stream of that name that keeps something else."""
        for name, (retention, subjects) in STREAMS.items():
            await self._ensure_stream(jetstream, name, retention, subjects)
        try:
            await jetstream.key_value(STATUS_BUCKET)
        except BucketNotFoundError:
            await jetstream.create_key_value(
                KeyValueConfig(bucket=STATUS_BUCKET, history=1, storage=StorageType.FILE, replicas=self.replicas)
            )
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

    async def _ensure_stream(
        self, jetstream: JetStreamContext, name: str, retention: RetentionPolicy, subjects: tuple[str, ...]
    ) -> None:
        try:
            found = (await jetstream.stream_info(name)).config
        except NotFoundError:
            await self._create_stream(jetstream, name, retention, subjects)
            return
        if set(found.subjects or ()) != set(subjects) or found.retention != retention:
            raise RecordMisconfigured(
                f"stream {name} has subjects {sorted(found.subjects or ())} and retention {found.retention}; "
                f"Conclave needs {sorted(subjects)} and {retention}: rename or remove the stream"
            )

    async def _create_stream(
        self, jetstream: JetStreamContext, name: str, retention: RetentionPolicy, subjects: tuple[str, ...]
    ) -> None:
        config = StreamConfig(
            name=name,
            subjects=list(subjects),
            retention=retention,
            max_age=self.retention_days * 86_400,
            storage=StorageType.FILE,
            num_replicas=self.replicas,
            allow_direct=True,
        )
        try:
            await jetstream.add_stream(config)
        except APIError as error:
            raise RecordMisconfigured(f"stream {name} cannot be created: {error.description}") from error


async def _log_error(error: Exception) -> None:
    get_logger("conclave.jetstream").debug("NATS connection: %s", error or type(error).__name__)
