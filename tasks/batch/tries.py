"""Which batch a flow run is at, and how often it was tried: tries count only without progress between them.

A night's batch outlives any number of workers that are replaced or killed, as long as rows are decided meanwhile. The
key `run.<flow run>` of the batches' bucket has both.
"""

from __future__ import annotations

from datetime import UTC, datetime

from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.batch.store import note, read_batch
from tasks.council.models import Status
from tasks.council.plain import SHOWN_ERROR, one_line

RUN = "run"


async def note_batch_of(record: Record, run: str, batch_id: str) -> None:
    """Say which batch a flow run is at. Raises RecordError."""
    await record.batches.change(f"{RUN}.{run}", lambda standing: {**(standing or {}), "batch": batch_id})


async def batch_of(record: Record, run: str) -> str | None:
    """The batch that a flow run is at; None where it is at none. Raises RecordError."""
    batch = (await record.batches.read(f"{RUN}.{run}") or {}).get("batch")
    return batch if isinstance(batch, str) else None


async def host_of(record: Record, run: str, host: str) -> str:
    """The host whose files a flow run names: this one where none is noted yet. Raises RecordError."""
    noted = host

    def bound(standing: Body | None) -> Body | None:
        nonlocal noted
        noted = str((standing or {}).get("host") or host)
        return {**(standing or {}), "host": noted}

    await record.batches.change(f"{RUN}.{run}", bound)
    return noted


async def goes_on(record: Record, run: str) -> bool:
    """Whether a flow run that failed has a batch that has not ended. Raises RecordError."""
    batch_id = await batch_of(record, run)
    batch = None if batch_id is None else await read_batch(record, batch_id)
    return batch is not None and not batch.has_ended


async def count_try(record: Record, run: str) -> int:
    """Count a try of a flow run; how many there were since rows were decided last. Raises RecordError."""
    batch_id = await batch_of(record, run)
    batch = None if batch_id is None else await read_batch(record, batch_id)
    progress = [batch_id, (batch.body.get("counts") or {}).get("decided", 0) if batch else 0]
    tries = 0

    def counted(standing: Body | None) -> Body:
        nonlocal tries
        body = standing or {}
        tries = 1 + (int(body.get("tries") or 0) if body.get("progress") == progress else 0)
        return {**body, "progress": progress, "tries": tries}

    await record.batches.change(f"{RUN}.{run}", counted)
    return tries


async def fail_batch(record: Record, run: str | None, named: object, reason: str) -> None:
    """End a batch FAILED that nobody will run any more: that of a flow run, or the one that its request names.

    What is decided stays so. Raises RecordError.
    """
    batch_id = named if isinstance(named, str) else None
    if batch_id is None and run is not None:
        batch_id = await batch_of(record, run)
    batch = None if batch_id is None else await read_batch(record, batch_id)
    if batch is None or batch.has_ended:
        return
    ended = {"status": Status.FAILED.value, "error": one_line(reason, SHOWN_ERROR), "in_flight": 0}
    await note(record, batch.id, {**ended, "finished_at": datetime.now(UTC).isoformat()})


async def take_back_try(record: Record, run: str) -> None:
    """Let the last try not count: the worker is replaced. Raises RecordError."""

    def taken(standing: Body | None) -> Body | None:
        return {**standing, "tries": int(standing["tries"]) - 1} if standing and standing.get("tries") else None

    await record.batches.change(f"{RUN}.{run}", taken)
