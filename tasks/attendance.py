"""Who is still at work: watches the futures of a stage's agent tasks and sends home whoever is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import State
from prefect_ray.task_runners import PrefectRayFuture

from blocks.background import end
from blocks.warm_runner import WarmFuture, settled

LEAVING_S = 10.0
"""How long an agent task may take to end once its answers are no longer needed."""


@dataclass(frozen=True)
class Left:
    """An agent task has ended; `failure` says why, None where it ran to its end."""

    agent_id: str
    failure: str | None


@asynccontextmanager
async def attendance(
    agents: Mapping[str, PrefectRayFuture[Any]], inbox: asyncio.Queue[Any]
) -> AsyncGenerator[None, None]:
    """Report each agent task that ends to the inbox; on leaving, cancel those that still run and await them."""
    watchers = {asyncio.create_task(_watch(agent_id, future, inbox)): future for agent_id, future in agents.items()}
    try:
        yield
    finally:
        await _send_home(watchers)


async def _watch(agent_id: str, future: PrefectRayFuture[Any], inbox: asyncio.Queue[Any]) -> None:
    state = await settled(future)
    await inbox.put(Left(agent_id, None if state is None or state.is_completed() else _reason(state)))


async def _send_home(watchers: dict[asyncio.Task[None], PrefectRayFuture[Any]]) -> None:
    for watcher, future in watchers.items():
        if not watcher.done() and isinstance(future, WarmFuture):
            future.cancel()
    _, late = await asyncio.wait(watchers, timeout=LEAVING_S)
    await end(late)
    await asyncio.gather(*watchers, return_exceptions=True)


def _reason(state: State[Any]) -> str:
    return f"{state.name}: {state.message or 'no message'}"[:500]
