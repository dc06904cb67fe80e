"""Keeps the mirror of Prefect's councils on the record, from which the gateway knows them."""

from __future__ import annotations

import asyncio
import logging

import httpx

from blocks.exceptions import ConclaveError
from blocks.record.events import Record
from tasks.operate.mirror import mirror_councils

EVERY_S = 5.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


async def keep_mirror(record: Record, log: Log) -> None:
    """Write the councils as Prefect holds them, again and again; never ends."""
    while True:
        try:
            await mirror_councils(record)
        except (httpx.HTTPError, ConclaveError) as error:
            log.debug("the councils are not mirrored just now: %s", error)
        await asyncio.sleep(EVERY_S)
