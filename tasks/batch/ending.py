"""The two ends of a batch's run: its council as it is asked throughout, and what the rows came to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.artifacts.keys import artifact_key
from tasks.artifacts.optional import optional_artifact
from tasks.batch.asked import agenda_id
from tasks.batch.output.folder import Finished
from tasks.batch.running import CANCELLED, BatchRun, end_begun
from tasks.batch.store import Batch, note, read_batch
from tasks.batch.tries import batch_of, note_batch_of
from tasks.council.council import CouncilSpec
from tasks.council.engines import SIMULATOR
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, ItemRequest, Status
from tasks.deliberations.plan import council_spec


class BegunBatch(NamedTuple):
    """A batch that runs, its council as the first run found it, and the model servers that are asked."""

    batch: Batch
    council: CouncilSpec
    servers: tuple[str, ...]
    elapsed_s: float
    """Seconds since its first run began."""


async def begin_batch(record: Record, batch_id: str, run: str) -> BegunBatch:
    """The batch of this id, which runs from now on under this flow run. Raises InvalidRequest and RecordError.

    Its council is that of its first run, whatever its block has become since.
    """
    batch = await read_batch(record, batch_id)
    if batch is None:
        raise InvalidRequest("batch_id", f"no batch {batch_id!r} is on the record")
    if "council" in batch.body:
        council = CouncilSpec.from_record(batch.body["council"])
    else:
        council = await council_spec(batch.request.council)
    plan = Deliberation.plan("batch", batch.request.of_items([ItemRequest(task="a row")]), council)
    begun = {"status": Status.IN_PROGRESS.value, "run": run, "council": council.model_dump(mode="json")}
    now = datetime.now(UTC)
    started = batch.body.get("started_at") or now.isoformat()
    await note_batch_of(record, run, batch_id)
    body = await note(record, batch_id, {**begun, "started_at": started})
    elapsed_s = max(0.0, (now - datetime.fromisoformat(started)).total_seconds())
    return BegunBatch(batch._replace(body=body), council, plan.servers, elapsed_s)


async def end_batch(record: Record, run: BatchRun) -> Body:
    """Say on the record, and in Prefect, what a batch came to; its body."""
    status, reason = Status.COMPLETED, run.admission.stopped
    if run.is_cancelled:
        status, reason = Status.CANCELLED, CANCELLED
    ended = {"status": status.value, "error": reason, "finished_at": datetime.now(UTC).isoformat(), "in_flight": 0}
    body = await note(record, run.batch.id, {**run.told(), **ended})
    with optional_artifact("the counts"):
        key = artifact_key("batch", run.batch.id)
        await acreate_markdown_artifact(_report(body), key=key, description=f"Batch {run.batch.id}")
    return body


async def end_cancelled(record: Record, run: str, named: object) -> None:
    """End a batch CANCELLED that nobody is at any more, with the agendas that it had begun.

    It is that of a flow run, or the one that its request names. Raises RecordError.
    """
    batch_id = named if isinstance(named, str) else await batch_of(record, run)
    batch = None if batch_id is None else await read_batch(record, batch_id)
    if batch is None or batch.has_ended:
        return
    for number in range(1, batch.agendas + 1):
        await end_begun(record, agenda_id(batch.id, number))
    ended = {"status": Status.CANCELLED.value, "error": CANCELLED, "in_flight": 0}
    await note(record, batch.id, {**ended, "finished_at": datetime.now(UTC).isoformat()})


def batch_state(body: Body) -> State[Any]:
    """What Prefect shows of a batch that has ended: Completed, Degraded where rows are missing, or Cancelled."""
    counts = dict(body.get("counts") or {})
    message = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing was asked"
    if body.get("error"):
        message = f"{body['error']}; {message}"
    if body.get("engine") == SIMULATOR:
        message = f"simulated, {message}"
    if body["status"] == Status.CANCELLED.value:
        return Cancelled(message=message)
    whole = counts.get(Status.COMPLETED.value, 0) == body.get("rows") and not counts.get("degraded")
    if not counts.get(Status.COMPLETED.value):
        return Failed(message=message)
    return Completed(message=message, name="Completed" if whole else "Degraded")


async def file_state(run: str, came_to: tuple[Finished, str, str | None]) -> State[Any]:
    """Show in Prefect what the rows of a file came to: the report, and how the run ends."""
    finished, report, reason = came_to
    with optional_artifact("the report"):  # OUTPUT is made: another try would find it there, and ask all again
        await acreate_markdown_artifact(report, key=artifact_key("batch", run), description=f"Batch to {finished.path}")
    summary = finished.summary
    message = f"{summary.decided:,} of {summary.rows:,} rows decided, in {finished.path}"
    if reason is not None:
        message = f"{reason}; {message}"
    if summary.simulated:
        message = f"simulated, {message}"
    if reason == CANCELLED:
        return Cancelled(message=message)
    if not summary.decided:
        return Failed(message=message)
    whole = summary.decided == summary.rows and not summary.degraded
    return Completed(message=message, name="Completed" if whole else "Degraded")


def _report(body: Body) -> str:
    rows = "\n".join(f"| {name} | {count} |" for name, count in (body.get("counts") or {}).items())
    simulated = "**SIMULATED: the answers are made up.**\n\n" if body.get("engine") == SIMULATOR else ""
    return f"{simulated}| rows | |\n| --- | --- |\n{rows}\n"
