"""Background tasks: each has an owner, who ends it for sure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

AGAIN_S = 0.1


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, Any]) -> AsyncGenerator[list[asyncio.Task[Any]], None]:
    """Let this work go on beside the block, and end it with the block; its results can be awaited inside."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        await cancel_and_wait(tasks)


async def cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raised is theirs.

    A cancel can get lost: `asyncio.wait_for` of Python 3.11 swallows one that arrives together with its result
    (CPython issue 86296), and nats-py waits with it. So it is repeated until the task has ended.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
