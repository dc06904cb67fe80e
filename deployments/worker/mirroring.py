"""Keeps the mirror of Prefect's councils on the record, from which the gateway knows them."""

from __future__ import annotations

import asyncio
import logging

import httpx

from blocks.documents import all_councils
from blocks.exceptions import ConclaveError
from blocks.record.events import Record
from tasks.deliberations.councils import write_mirror

EVERY_S = 5.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


async def mirror_councils(record: Record, log: Log) -> None:
    """Write the councils as Prefect holds them, again and again; never ends."""
    while True:
        try:
            councils = await all_councils()
            await write_mirror(record, {name: council.spec(name) for name, council in councils.items()})
        except (httpx.HTTPError, ConclaveError) as error:
            log.debug("the councils are not mirrored just now: %s", error)
        await asyncio.sleep(EVERY_S)
