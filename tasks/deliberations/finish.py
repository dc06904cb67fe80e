"""The end of a deliberation on the record: written here, in one form, under the lease and fence of who ends it."""

from __future__ import annotations

from datetime import UTC, datetime

from blocks.record import subjects
from blocks.record.events import Fence, Record
from blocks.record.leases import Lease
from tasks.council.finished import Finished
from tasks.council.models import Status
from tasks.council.plain import one_line

MAX_REASON = 2_000
"""Characters of a reason; a refusal may repeat what was sent."""
LEGACY_SUBJECTS = {
    Status.COMPLETED: "deliberation.completed",
    Status.FAILED: "deliberation.failed",
    Status.TIMEOUT: "deliberation.timeout",
    Status.CANCELLED: "deliberation.cancelled",
}
IN_STATUS = {"status", "degraded", "engine", "counts", "winner_id", "completed_at", "duration_ms", "error"}


async def begin_epoch(record: Record, deliberation_id: str, lease: Lease, run: str | None) -> Fence:
    """The fence of whoever holds the lease: earlier runs decide nothing any more. Raises Superseded."""
    return await record.fence(deliberation_id, lease.epoch, run, holder=lease.holder.decode(), check=lease.check)


async def write_end(record: Record, finished: Finished, fence: Fence | None) -> Finished:
    """Say on the record, and to whoever listens, that a deliberation has ended; the end that stands.

    The first one stands. Raises Superseded where a later run has begun.
    """
    one = finished.task_id
    body = finished.model_dump(mode="json")
    subject, event_id = subjects.finished(one), f"{one}:finished"
    first = await record.publish_final(subject, event_id, "deliberation.finished", body, fence)
    standing = finished if first is None else Finished.from_record(first.body)
    told = standing.model_dump(mode="json", include=IN_STATUS, exclude_unset=first is not None)
    await record.statuses.merge(one, {name: value for name, value in told.items() if name != "error" or value})
    if first is None:
        await record.announce(LEGACY_SUBJECTS[finished.status], body)
    return standing


async def end_without_plan(
    record: Record,
    deliberation_id: str,
    lease: Lease,
    reason: str,
    status: Status = Status.FAILED,
    run: str | None = None,
) -> Finished:
    """End what can never be run, or could not be, with the reason; nothing is read that may be unreadable.

    Whose it was and what was asked, which a plan would say, the end says.
    """
    fence = await begin_epoch(record, deliberation_id, lease, run)
    key = await record.statuses.read(deliberation_id) or {}
    owner, digest = key.get("owner"), key.get("request_digest")
    finished = Finished(
        task_id=deliberation_id,
        status=status,
        error=one_line(reason, MAX_REASON),
        completed_at=datetime.now(UTC),
        owner=owner if isinstance(owner, str) else None,
        request_digest=digest if isinstance(digest, str) else None,
    )
    return await write_end(record, finished, fence)
