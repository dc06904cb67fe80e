"""A member's desk, set up from names: the plan from the record, the model server from its block."""

from __future__ import annotations

from collections.abc import Callable

from blocks.connections import connections
from blocks.documents import load, open_record
from blocks.ownership import check_same
from blocks.vllm_server import VLLM
from tasks.deliberations.plan import plan_of
from tasks.stages.member_stage import Craft, Desk
from tasks.stages.stage_gate import Closings


async def desk_of(
    deliberation_id: str, agent_id: str, stage: str, server_version: str | None, engine: str, installation: str
) -> Desk:
    """The desk of a member in a stage; needs an open `connections()` scope.

    Raises OtherInstallation where the driver, of that installation, works on another record than this host.
    """
    record = await open_record()
    await check_same(record, installation)
    plan = await plan_of(record, deliberation_id)
    member = plan.asked(agent_id, stage)
    return Desk(plan, member, stage, record, await load(VLLM, member.server, server_version), engine)


async def answer_after(
    craft: Callable[[Desk, Closings], Craft],
    deliberation_id: str,
    agent_id: str,
    stage: str,
    epoch: int,
    server_version: str | None,
    engine: str,
    installation: str,
) -> dict[str, int]:
    """Answer every item of a later stage, each once the stage before is closed; how many ended in which status."""
    async with connections():
        desk = await desk_of(deliberation_id, agent_id, stage, server_version, engine, installation)
        closings = Closings(desk.record, desk.plan, stage, epoch)
        async with closings.heard():
            return await desk.answer_all(craft(desk, closings))
