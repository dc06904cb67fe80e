"""Where the record of every deliberation lives, as a Prefect block: a NATS JetStream (`blocks/record/server.py`)."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.record.server import JetStreamServer


class JetStream(JetStreamServer, Block):
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
