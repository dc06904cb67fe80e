"""Who is still at work: watches the futures of the agent tasks and sends home whoever is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from prefect.client.schemas.objects import State
from prefect_ray.task_runners import PrefectRayFuture

from blocks.background import cancel_and_wait
from blocks.exceptions import AgentsUnavailable, OtherInstallation
from blocks.ray_agents import settled
from blocks.warm.runner import WarmFuture
from tasks.collect.inbox import AgentExited

NOTICE_S = 1.0
"""How long an agent task may take to end by itself after the last decision, which it hears too."""
LEAVING_S = 10.0
"""How long it may take to end once it is cancelled."""

Work = asyncio.Task[State[Any] | None]


class AgentKey(NamedTuple):
    """A member's place in a stage."""

    agent_id: str
    stage: str


@asynccontextmanager
async def watch_agents(
    agents: Mapping[AgentKey, PrefectRayFuture[Any]], inbox: asyncio.Queue[Any]
) -> AsyncGenerator[None, None]:
    """Report each agent task that ends, or what ends all, to the inbox; on leaving, send home whoever stays."""
    works = {post: asyncio.create_task(settled(future)) for post, future in agents.items()}
    reports = [asyncio.create_task(_report(post, work, inbox)) for post, work in works.items()]
    notice = 0.0
    try:
        yield
        notice = NOTICE_S
    finally:
        await cancel_and_wait(reports)
        await _end_late({work: agents[post] for post, work in works.items()}, notice)


async def _report(post: AgentKey, work: Work, inbox: asyncio.Queue[Any]) -> None:
    try:
        state = await asyncio.shield(work)
    except AgentsUnavailable as error:
        await inbox.put(error)
        return
    if state is not None and state.is_failed():
        failure = await state.aresult(raise_on_failure=False)
        if isinstance(failure, OtherInstallation):  # no member's failure: the deliberation stays open for its own
            await inbox.put(failure)
            return
    await inbox.put(AgentExited(*post, None if state is None or state.is_completed() else _reason(state)))


async def _end_late(works: Mapping[Work, PrefectRayFuture[Any]], notice: float) -> None:
    if not works:
        return
    _, staying = await asyncio.wait(works, timeout=notice)
    for work in staying:
        future = works[work]
        if isinstance(future, WarmFuture):
            future.cancel()
    _, late = await asyncio.wait(works, timeout=LEAVING_S)
    await cancel_and_wait(late)
    await asyncio.gather(*works, return_exceptions=True)


def _reason(state: State[Any]) -> str:
    return f"{state.name}: {state.message or 'no message'}"[:500]
