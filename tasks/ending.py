"""Ending a deliberation from what stands on the record, without asking anybody: cancelled, stuck, or impossible."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from blocks.leases import Lease
from blocks.record import Body, Record
from tasks.collect import SEED_SUBJECTS, finish
from tasks.collecting import Collector
from tasks.council.models import DeliberationRequest, InvalidRequest, Status
from tasks.inbox import INBOX
from tasks.plans import UNKNOWN, Session, begin, convene


async def end(record: Record, deliberation_id: str, lease: Lease, asked: Body) -> None:
    """Decide every item as if its deadline were over; as cancelled where that was asked for.

    `asked` is for one that has no plan yet. FAILED where none can be made of it. Raises RecordError.
    """
    planned = await record.last(f"deliberations.{deliberation_id}.plan")
    try:
        request = DeliberationRequest.read(planned.body["request"] if planned else asked)
        convened = await convene(record, deliberation_id, request)
    except InvalidRequest as error:
        await refuse(record, deliberation_id, str(error))
        return
    session = await begin(record, await _over(record, convened), lease, None)
    outcome = await Collector(session, record, asyncio.Queue(INBOX), over=True).run()
    await finish(record, session, outcome, 0)


async def _over(record: Record, convened: Session) -> Session:
    """The session after its deadline. Model servers that are away now are what they were at the start."""
    servers, begun = convened.servers, await record.last(f"deliberations.{convened.plan.id}.started")
    if begun is not None and convened.engine == UNKNOWN:
        servers = {name: server._replace(engine=begun.body["engine"]) for name, server in servers.items()}
    started = asyncio.get_running_loop().time() - convened.plan.deadline_s
    return replace(convened, servers=servers, started=started)


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
