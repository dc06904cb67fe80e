"""The first stage: each member writes its own proposal for every item."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.connections import connections
from blocks.loading import load, open_record
from blocks.vllm_server import VLLM
from tasks.answering import Desk
from tasks.council.prompts import propose_messages
from tasks.plans import plan_of

STAGE = "propose-0"


@task(task_run_name="propose {agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def propose(
    deliberation_id: str, agent_id: str, server_version: str | None = None, engine: str = "unknown"
) -> dict[str, int]:
    """One member's agent task: propose for every item; how many ended in which status.

    Its inputs are names only: the plan is read from the record and the server from its block, so no prompt and
    no secret is among them. `engine` is what the server was found to be; an answer says so where there is one.
    """
    async with connections():
        record = await open_record()
        plan = await plan_of(record, deliberation_id)
        member = plan.member(agent_id)
        server = await load(VLLM, member.server, server_version)
        desk = Desk(plan, member, STAGE, propose_messages, record, server, engine)
        return await desk.answer_all()
