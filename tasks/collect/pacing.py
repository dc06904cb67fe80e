"""The pace of agendas: one window a model server, which follows what the server's metrics tell, where it has any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress

from blocks.background import background
from blocks.documents import load
from blocks.exceptions import ConclaveError
from blocks.refreshed import Refreshed
from blocks.vllm_server import VLLM
from tasks.collect.admission import Admission
from tasks.council.budget import Ledger
from tasks.council.models import Budget, Deliberation
from tasks.council.window import FIRST, Window

FIRST_LOOKS_S = (0.15, 0.15, 0.2, 0.25, 0.25)
"""Pauses before the first looks, when a window may be far from what a server can do; then one each `LOOK_S`."""
LOOK_S = 0.5
UNTOLD_S = 30.0
"""How long a server is left alone that has no metrics, or does not answer."""


def pace_of(plan: Deliberation) -> AbstractAsyncContextManager[Admission | None]:
    """What lets the items of a deliberation begin; nothing where there is one item and no budget."""
    if len(plan.agenda) == 1 and plan.budget is None:
        return nullcontext()
    return paced(plan.servers, plan.budget)


@asynccontextmanager
async def paced(
    servers: Iterable[str], budget: Budget | None, first: int | None = None, elapsed_s: float = 0.0
) -> AsyncGenerator[Admission, None]:
    """What lets items begin that share these servers and a budget, kept up with the servers while the block runs.

    `elapsed_s` is what of the budget's time is over.
    """
    clock = asyncio.get_running_loop().time
    windows = {server: Window(float(first or FIRST)) for server in servers}
    admission = Admission(windows, Ledger(budget, clock() - elapsed_s), clock)
    async with AsyncExitStack() as looking:
        for server, window in windows.items():
            await looking.enter_async_context(background(_follow(server, window, admission)))
        yield admission


async def _follow(server: str, window: Window, admission: Admission) -> None:
    """Let a window follow its server; never ends."""
    looks, kept = 0, Refreshed(lambda: load(VLLM, server), UNTOLD_S)
    while True:
        await asyncio.sleep(FIRST_LOOKS_S[looks] if looks < len(FIRST_LOOKS_S) else LOOK_S)
        if window.in_flight == 0:
            continue
        looks += 1
        told = None
        with suppress(ConclaveError):
            told = await (await kept.get()).server_load()
        if told is None:
            await asyncio.sleep(UNTOLD_S)
            continue
        window.looked(told.running, told.waiting, asyncio.get_running_loop().time())
        admission.wake()
