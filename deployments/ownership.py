"""Whose installation a command or a worker is: that of the NATS in its settings, else that of the block in Prefect."""

from __future__ import annotations

from blocks.documents import fresh
from blocks.exceptions import BlockMissing
from blocks.jetstream import JetStream
from blocks.prefect_api import prefect_named
from blocks.record.events import Record
from deployments.settings import Settings


async def own_record(settings: Settings) -> Record:
    """The record of this installation; needs an open `connections()` scope.

    A block in a Prefect that is shared may point at somebody else's, so a NATS that the settings name comes first.
    Raises RecordError, BlockMissing and PrefectUnavailable.
    """
    with prefect_named():
        try:
            block = await fresh(JetStream)
        except BlockMissing:
            if settings.nats_url is None:
                raise
            block = JetStream()
    return await (block.at(settings.nats_url.split(",")) if settings.nats_url else block).record()
