"""Ending a deliberation from what stands on the record, without asking anybody: cancelled, stuck, or impossible."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from blocks.leases import Lease
from blocks.record import Record
from tasks.collect import SEED_SUBJECTS, finish
from tasks.collecting import Collector
from tasks.council.models import DeliberationRequest, InvalidRequest, Status
from tasks.inbox import INBOX
from tasks.plans import Server, Session, begin, convene, plan_of


async def end_from_record(
    record: Record, deliberation_id: str, lease: Lease, request: DeliberationRequest | None = None
) -> None:
    """Decide every item as if its deadline were over; as cancelled where that was asked for.

    `request` is for one that has not begun. Raises InvalidRequest where there is no plan and none can be made.
    """
    servers: dict[str, Server] = {}  # what they are stands in the last event, too: a rehearsal stays one
    if request is not None:
        convened = await convene(record, deliberation_id, request)
        plan, servers = convened.plan, convened.servers
    else:
        plan = await plan_of(record, deliberation_id)
    now = asyncio.get_running_loop().time()
    session = await begin(record, Session(plan, servers, now - plan.deadline_s), lease, None)
    collector = Collector(session, record, asyncio.Queue(INBOX), over=True)
    outcome = await collector.run()
    await finish(record, session, outcome, 0)


async def refuse(record: Record, deliberation_id: str, reason: str) -> None:
    """End as FAILED what can never begin, with the reason. Raises RecordError."""
    now = datetime.now(UTC).isoformat()
    body = {
        "task_id": deliberation_id,
        "status": Status.FAILED.value,
        "degraded": False,
        "error": reason,
        "completed_at": now,
    }
    subject, event_id = f"deliberations.{deliberation_id}.finished", f"{deliberation_id}:finished"
    if await record.publish_final(subject, event_id, "deliberation.finished", body) is None:
        await record.merge_status(deliberation_id, {"status": body["status"], "error": reason, "completed_at": now})
        await record.announce(SEED_SUBJECTS[Status.FAILED], body)


async def end(record: Record, deliberation_id: str, lease: Lease, request: DeliberationRequest | None = None) -> None:
    """End from the record, or as FAILED where nothing of it stands there that could be decided."""
    try:
        await end_from_record(record, deliberation_id, lease, request)
    except InvalidRequest as error:
        await refuse(record, deliberation_id, str(error))
