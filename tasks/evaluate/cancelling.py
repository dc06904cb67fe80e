"""Cancelling an evaluation: one flag for all its parts, on the status of the deliberation whose id it has.

Its council hears the flag itself, and has ended when the plain calls and the waves begin: they are asked to stop here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from blocks.background import background
from blocks.documents import open_record
from blocks.record import subjects
from tasks.deliberations.submit import ask_to_cancel


async def forget_past_cancel(deliberation_id: str) -> None:
    """Take back what an earlier run was asked once its council had ended. Raises RecordError."""
    record = await open_record()
    if await record.last(subjects.finished(deliberation_id)) is not None:
        await record.statuses.merge(deliberation_id, {"cancel_requested": False})


async def is_to_stop(deliberation_id: str) -> bool:
    """Whether the cancel was asked for. Raises RecordError."""
    status = await (await open_record()).statuses.read(deliberation_id) or {}
    return bool(status.get("cancel_requested"))


@asynccontextmanager
async def cancelled_with(deliberation_id: str, waves_id: str) -> AsyncGenerator[None, None]:
    """Ask the deliberation in waves to stop, too, once the cancel of the evaluation is asked for in the block."""
    record = await open_record()

    async def listen() -> None:
        async for status in record.follow(subjects.status(deliberation_id)):
            if status.body.get("cancel_requested"):
                await ask_to_cancel(record, waves_id)
                return

    async with background(listen()):
        yield
