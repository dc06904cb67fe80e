"""What Prefect shows of a deliberation that has ended."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.states import Cancelled, Completed, Failed

from blocks.exceptions import Superseded
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.collect.collect import overall_status
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, Status
from tasks.council.outcome import Outcome


class TakenOver(Abort):
    """Another worker runs the deliberation under the same flow run, and tells Prefect how it ends."""


def final_state(plan: Deliberation, outcome: Outcome) -> State[Any]:
    """Completed where decided (and says who answered), Cancelled, or Failed with the reason."""
    if len(plan.agenda) == 1:
        message = _with_reason(outcome.lines[0].headline, outcome.results[0].error_message)
    else:
        counts = outcome.counts(len(plan.agenda))
        message = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return _state(
        overall_status(plan, outcome),
        message,
        degraded=any(line.degraded for line in outcome.lines),
        simulated=any(result.engine == SIMULATOR for result in outcome.results),
    )


def ended_state(ended: Body) -> State[Any]:
    """What Prefect is to show of a deliberation whose run could not say so itself; `ended` is its status."""
    return _state(
        Status(ended["status"]),
        _with_reason("ended on the record", ended.get("error")),
        degraded=bool(ended.get("degraded")),
        simulated=ended.get("engine") == SIMULATOR,
    )


def _with_reason(message: str, reason: str | None) -> str:
    return f"{message}: {reason}" if reason else message


def _state(status: Status, message: str, *, degraded: bool, simulated: bool) -> State[Any]:
    """The state of Prefect's that stands for a final status."""
    if simulated:
        message = f"simulated, {message}"
    if status is Status.COMPLETED:
        return Completed(message=message, name="Degraded" if degraded else "Completed")
    if status is Status.CANCELLED:
        return Cancelled(message=message)
    return Failed(message=message, name="Timeout" if status is Status.TIMEOUT else "Failed")


def wants_end(state: State[Any] | None) -> bool:
    """Whether Prefect was told to stop a run, be it that it has stopped."""
    return state is not None and (state.is_cancelling() or state.is_cancelled())


async def left_to(record: Record, deliberation_id: str, error: Superseded, run: str) -> BaseException:
    """How a run ends whose deliberation somebody else runs now: silently where that one tells of the same flow run."""
    begun = error.run
    if begun is None and (event := await record.last(subjects.epoch(deliberation_id))) is not None:
        begun = event.body.get("run")
    return TakenOver(str(error)) if begun == run else error
