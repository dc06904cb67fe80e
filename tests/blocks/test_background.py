"""What background tasks raise, and who hears of it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from blocks.background import AGAIN_S, cancel_and_wait

pytestmark = pytest.mark.unit


async def test_what_a_cancelled_task_raises_is_heard_also_where_the_wait_is_cut_off() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(AGAIN_S / 2)
            finally:
                raise ConnectionError("closed") from None

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait([task]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting, task], timeout=10)
    assert waiting.cancelled() and task.done()
    del task, waiting
    gc.collect()
    await asyncio.sleep(0)
    assert told == []
