"""Background tasks: each has an owner, who ends it for sure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

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
    for task in tasks:
        task.add_done_callback(_heard)  # also where whoever waits here is itself cancelled
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


def _heard(task: asyncio.Task[Any]) -> None:
    """Else asyncio tells of it as never retrieved, at whatever moment the garbage is collected."""
    if not task.cancelled():
        task.exception()


async def batches(source: AsyncIterator[T], size: int, gather_s: float) -> AsyncGenerator[list[T], None]:
    """What comes from a source, in lists of at most so many: what came within a while of the first is in one list.

    At most two lists' worth is taken from the source ahead. To be closed before the source is. Raises what that raises.
    """
    waiting: asyncio.Queue[T] = asyncio.Queue(size)

    async def take() -> None:
        async for each in source:
            await waiting.put(each)

    async with background(take()) as (taking,):
        while batch := await _first(waiting, taking):
            await asyncio.sleep(gather_s)
            while len(batch) < size and not waiting.empty():
                batch.append(waiting.get_nowait())
            yield batch


async def beating(source: AsyncIterator[T], interval_s: float) -> AsyncGenerator[T | None, None]:
    """What comes from a source, and None whenever nothing came for a while. Raises what that raises."""
    ended = object()

    async def following() -> Any:
        return await anext(source, ended)

    while True:
        async with background(following()) as (coming,):
            while not coming.done():
                await asyncio.wait((coming,), timeout=interval_s)
                if not coming.done():
                    yield None
            if coming.result() is ended:
                return
            yield coming.result()


async def _first(waiting: asyncio.Queue[T], taking: asyncio.Task[None]) -> list[T]:
    """The first that comes, and nothing where the source has ended. Raises what ended it."""
    async with background(waiting.get()) as (getting,):
        await asyncio.wait((getting, taking), return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return [getting.result()]
    if waiting.empty():
        await taking
        return []
    return [waiting.get_nowait()]
