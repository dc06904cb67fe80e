"""Asking for a batch: its rows first, agenda by agenda, then the batch, which goes into the workers' queue."""

from __future__ import annotations

from blocks.record.events import Record
from tasks.batch.asked import BatchRequest
from tasks.batch.store import put_batch, read_batch
from tasks.deliberations.submit import BATCH_FLOWS, Door, Request, enqueue


async def submit_batch(record: Record, batch_id: str, request: BatchRequest, owner: str | None, door: Door) -> bool:
    """Put a batch into the queue whose agendas stand on the record; False where it is there already.

    Whoever repeats what was broken off in between completes it. Raises InvalidRequest, RecordFull and RecordError.
    """
    new = await put_batch(record, batch_id, request, owner)
    standing = None if new else await read_batch(record, batch_id)
    if standing is not None and standing.has_ended:
        return False
    asked = {"id": batch_id, "flow": BATCH_FLOWS[0], "parameters": {"batch_id": batch_id}}
    await enqueue(record, Request(**asked, door=door, lane="batch", owner=owner))
    return new
