"""Ending a deliberation from what stands on the record, without asking anybody: cancelled, stuck, or impossible."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.leases import Lease
from tasks.collect.collect import finish
from tasks.collect.collector import Collector
from tasks.collect.inbox import INBOX
from tasks.council.engines import UNKNOWN
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, Status
from tasks.deliberations.finish import end_without_plan
from tasks.deliberations.plan import Session, begin, convene, resume


async def end(record: Record, deliberation_id: str, lease: Lease, asked: Body) -> None:
    """Decide every item as if its deadline were over; as cancelled where that was asked for.

    `asked` is for one that has no plan yet. Where none can be made of it, it ends CANCELLED or FAILED with the reason.
    Raises RecordError.
    """
    try:
        convened = await resume(record, deliberation_id)
        if convened is None:
            convened = await convene(record, deliberation_id, DeliberationRequest.read(asked))
    except InvalidRequest as error:
        cancelled = bool((await record.statuses.read(deliberation_id) or {}).get("cancel_requested"))
        reason = "cancelled before it began" if cancelled else str(error)
        status = Status.CANCELLED if cancelled else Status.FAILED
        await end_without_plan(record, deliberation_id, lease, reason, status)
        return
    session = await begin(record, await _over(record, convened), lease, None)
    outcome = await Collector(session, record, asyncio.Queue(INBOX), over=True).run()
    await finish(record, session, outcome, 0)


async def refuse(
    record: Record, deliberation_id: str, lease: Lease, reason: str, digest: str | None, run: str | None = None
) -> bool:
    """End as FAILED a request that can never begin, with the reason; False where its id is another request's.

    `digest` is the request's own, None where it cannot be read. Raises RecordError.
    """
    if await record.last(subjects.plan(deliberation_id), direct=False) is not None:
        return False
    status = await record.statuses.read(deliberation_id) or {}
    standing = status.get("request_digest", digest)
    if standing != digest or (digest is None and status.get("run", run) != run):
        return False
    await end_without_plan(record, deliberation_id, lease, reason, run=run)
    return True


async def _over(record: Record, convened: Session) -> Session:
    """The session after its deadline. Model servers that are away now are what they were at the start."""
    servers, begun = convened.servers, await record.last(subjects.started(convened.plan.id))
    if begun is not None and convened.engine == UNKNOWN:
        servers = {name: server._replace(engine=begun.body["engine"]) for name, server in servers.items()}
    started = asyncio.get_running_loop().time() - convened.plan.deadline_s
    return replace(convened, servers=servers, started=started)
