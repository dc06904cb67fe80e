"""Background tasks: each has an owner, who ends it for sure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")
AGAIN_S = 0.1


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, Any]) -> AsyncGenerator[None, None]:
    """Let this work go on beside the block, and end it with the block."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await cancel_and_wait(tasks)


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncGenerator[asyncio.Task[T], None]:
    """Let this work begin now, for whoever awaits it within the block; what nobody has awaited ends with the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await cancel_and_wait([task])


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
