"""Plain calls beside a council: the same questions, put to the same models alone, each on the record once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from prefect_ray.task_runners import PrefectRayFuture

from blocks.documents import open_record
from tasks.collect.agents import AgentKey, watch_agents
from tasks.collect.inbox import INBOX, AgentExited, CancelAsked, wishes
from tasks.council.evaluation.answered import bare_calls
from tasks.deliberations.plan import servers_of
from tasks.deliberations.read import plan_of
from tasks.stages.assignment import Assignment, assign

Agents = Mapping[AgentKey, PrefectRayFuture[Any]]


async def bare_assignments(deliberation_id: str) -> list[Assignment]:
    """What is to be asked: five calls for each question, from the members in turn, each a stage of its own name."""
    record = await open_record()
    plan = await plan_of(record, deliberation_id)
    servers = await servers_of(record, plan, must_exist=False)
    return [
        assign(plan.id, member, stage, servers[member.server], 0, record.installation)
        for member, stage in bare_calls(plan.council)
    ]


async def all_ended(deliberation_id: str, agents: Agents) -> bool:
    """Wait until all have ended, however; False where a cancel is asked for. Raises what ends them all."""
    record, inbox = await open_record(), asyncio.Queue[Any](INBOX)
    at_work = set(agents)
    async with watch_agents(agents, inbox), wishes(record, deliberation_id, inbox):
        while at_work:
            news = await inbox.get()
            if isinstance(news, Exception):
                raise news
            if isinstance(news, CancelAsked):
                return False
            if isinstance(news, AgentExited):
                at_work.discard(AgentKey(news.agent_id, news.stage))
    return True
