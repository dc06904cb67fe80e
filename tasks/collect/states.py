"""What Prefect shows of a deliberation that has ended."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.states import Cancelled, Completed, Failed

from blocks.exceptions import Superseded
from blocks.record import subjects
from blocks.record.events import Body, Record
from tasks.collect.collect import status_of
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, Status
from tasks.council.outcome import Outcome


class TakenOver(Abort):
    """Another worker runs the deliberation under the same flow run, and tells Prefect how it ends."""


def final_state(plan: Deliberation, outcome: Outcome) -> State[Any]:
    """Completed where decided (and says who answered), Cancelled, or Failed with the reason."""
    status = status_of(plan, outcome)
    simulated = "simulated, " if any(result.engine == SIMULATOR for result in outcome.results) else ""
    if len(plan.agenda) == 1:
        line, reason = outcome.lines[0], outcome.results[0].error_message
        message = f"{simulated}{line.headline}" + (f": {reason}" if reason else "")
    else:
        counts = outcome.counts(len(plan.agenda))
        message = simulated + ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if status is Status.COMPLETED:
        degraded = any(line.degraded for line in outcome.lines)
        return Completed(message=message, name="Degraded" if degraded else "Completed")
    if status is Status.CANCELLED:
        return Cancelled(message=message)
    return Failed(message=message, name="Timeout" if status is Status.TIMEOUT else "Failed")


def ended_state(ended: Body) -> State[Any]:
    """What Prefect is to show of a deliberation whose run could not say so itself; `ended` is its status."""
    status = Status(ended["status"])
    message = f"{'simulated, ' if ended.get('engine') == 'simulator' else ''}ended on the record"
    message += f": {ended['error']}" if ended.get("error") else ""
    if status is Status.COMPLETED:
        return Completed(message=message, name="Degraded" if ended.get("degraded") else "Completed")
    if status is Status.CANCELLED:
        return Cancelled(message=message)
    return Failed(message=message, name="Timeout" if status is Status.TIMEOUT else "Failed")


async def left_to(record: Record, deliberation_id: str, error: Superseded, run: str) -> BaseException:
    """How a run ends whose deliberation somebody else runs now: silently where that one tells of the same flow run."""
    begun = error.run
    if begun is None and (event := await record.last(subjects.epoch(deliberation_id))) is not None:
        begun = event.body.get("run")
    return TakenOver(str(error)) if begun == run else error
