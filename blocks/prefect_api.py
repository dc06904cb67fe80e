"""Prefect's API as a process uses it: clients that stay open, and errors that say where its server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import httpx

from blocks.exceptions import PrefectRefused, PrefectUnavailable
from blocks.urls import without_credentials

PREFECT_S = 20.0
"""How long Prefect's server may take to answer the first question of a process."""


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
