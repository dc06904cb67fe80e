"""Asking a deliberation to stop, without Prefect: the flag for whoever runs it, the end of one that has not begun."""

from __future__ import annotations

from blocks.record import subjects
from blocks.record.events import Record
from blocks.record.leases import Leases
from tasks.council.models import Status
from tasks.deliberations.finish import end_without_plan
from tasks.deliberations.read import has_ended, status_of
from tasks.deliberations.submit import ask_to_cancel, withdraw

REASON = "cancelled before it began"


async def stop(record: Record, leases: Leases, deliberation_id: str) -> str:
    """Ask it to stop; its status then, which is final where it had ended, or has not begun. Raises RecordError.

    One that has ended gets the flag, too: an evaluation of that id may still make calls beside its council.
    """
    status = await status_of(record, deliberation_id) or {}
    if has_ended(status):
        await record.statuses.merge(deliberation_id, {"cancel_requested": True})
        return str(status["status"])
    await ask_to_cancel(record, deliberation_id)
    lease = await leases.take(deliberation_id)
    if lease is None:  # whoever holds it hears the flag
        return str(status.get("status", Status.PENDING.value))
    try:
        if await record.exists(subjects.plan(deliberation_id)):  # it has begun: whoever takes it up ends it
            return str(status.get("status", Status.PENDING.value))
        finished = await end_without_plan(record, deliberation_id, lease, REASON, Status.CANCELLED)
        await withdraw(record, deliberation_id)
        return finished.status.value
    finally:
        await leases.release(lease)
