"""Connections that are shared by everything on one event loop, with one owner that closes them.

A socket belongs to the loop that opened it, and opening one for each call is what made the seed slow. So a
block asks here for its connection, and the outermost `connections()` scope of the loop (a worker, an agent
host, the command line, or a lone task) closes all of them when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx

from blocks.background import cancel_and_wait
from blocks.exceptions import PrefectRefused, PrefectUnavailable
from blocks.urls import without_credentials

PREFECT_S = 20.0
"""How long Prefect's server may take to answer the first question of a process."""

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


@asynccontextmanager
async def prefect_clients() -> AsyncGenerator[None, None]:
    """Keep one Prefect API client of each kind open: without, every flow run builds its own, 0.1 s each.

    Raises PrefectUnavailable where no server answers within `PREFECT_S`, and PrefectRefused.
    """
    from prefect.context import AsyncClientContext, SyncClientContext

    async with AsyncExitStack() as clients:
        with prefect_named():
            async with asyncio.timeout(PREFECT_S):
                await clients.enter_async_context(AsyncClientContext.get_or_create())
            clients.enter_context(SyncClientContext.get_or_create())
        yield


@contextmanager
def prefect_named() -> Generator[None, None, None]:
    """Raise PrefectUnavailable or PrefectRefused, which say where Prefect is, in place of what its client raises."""
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        where = without_credentials(PREFECT_API_URL.value() or "")
        raise PrefectRefused(
            f"Prefect's server at {where} refuses our key (PREFECT_API_AUTH_STRING): {error.response.status_code}"
        ) from error
    except (httpx.TransportError, TimeoutError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, httpx.TransportError):
            raise
        url = without_credentials(PREFECT_API_URL.value() or "")
        raise PrefectUnavailable(f"Prefect's server at {url} (PREFECT_API_URL) does not answer") from error


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
    return await asyncio.shield(task)
