"""A member's desk, set up from names: the plan from the record, the model server from its block."""

from __future__ import annotations

from blocks.loading import load, open_record
from blocks.vllm_server import VLLM
from tasks.answering import Desk
from tasks.plans import plan_of


async def desk_of(deliberation_id: str, agent_id: str, stage: str, server_version: str | None, engine: str) -> Desk:
    """The desk of a member in a stage; needs an open `connections()` scope."""
    record = await open_record()
    plan = await plan_of(record, deliberation_id)
    member = plan.asked(agent_id, stage)
    return Desk(plan, member, stage, record, await load(VLLM, member.server, server_version), engine)
