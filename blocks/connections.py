"""Connections that are shared by everything on one event loop, with one owner that closes them.

A socket belongs to the loop that opened it, and opening one for each call is what made the seed slow. So a
block asks here for its connection, and the outermost `connections()` scope of the loop (a worker, an agent
host, the command line, or a lone task) closes all of them when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from blocks.background import cancel_and_wait

T = TypeVar("T")

Close = Callable[[], Awaitable[None]]


class _Pool:
    """The open connections of one loop."""

    def __init__(self) -> None:
        self.scopes = 0
        self.opened: dict[Hashable, asyncio.Task[Any]] = {}
        self.closing = AsyncExitStack()

    async def close(self) -> None:
        await cancel_and_wait(self.opened.values())
        self.opened.clear()
        await self.closing.aclose()


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()


@asynccontextmanager
async def connections() -> AsyncGenerator[None, None]:
    """Keep this loop's connections open; the last scope to end closes them."""
    pool = _pools.setdefault(asyncio.get_running_loop(), _Pool())
    pool.scopes += 1
    try:
        yield
    finally:
        pool.scopes -= 1
        if pool.scopes == 0:
            _pools.pop(asyncio.get_running_loop(), None)
            await pool.close()


async def shared(key: Hashable, connect: Callable[[], Awaitable[tuple[T, Close]]]) -> T:
    """The loop's connection under `key`, opened by `connect` at first use, by one caller only.

    `connect` returns the connection and what closes it. A failed attempt is not kept.
    Raises RuntimeError outside of a `connections()` scope, since nobody would close it.
    """
    pool = _pools.get(asyncio.get_running_loop())
    if pool is None:
        raise RuntimeError("no connections() scope is open on this event loop")

    async def opening() -> T:
        connection, close = await connect()
        pool.closing.push_async_callback(close)
        return connection

    task: asyncio.Task[T] | None = pool.opened.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        task = pool.opened[key] = asyncio.get_running_loop().create_task(opening())
    return task.result() if task.done() else await asyncio.shield(task)
