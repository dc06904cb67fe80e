"""The result of a deliberation, read from the record: what `result --json` prints."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import chain
from typing import Any

from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.council.engines import UNKNOWN
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, Item, Status, check_id
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ItemProgress
from tasks.council.progress.result import item_result
from tasks.council.voting.tally import Tally, tally
from tasks.deliberations.plan import plan_of
from tasks.deliberations.read import answers_of, closings_of, status_of

STATUS_FIELDS = (
    *("id", "status", "degraded", "council", "copies", "engine", "counts"),
    *("started_at", "completed_at", "duration_ms"),
)


async def result_of(record: Record, deliberation_id: str) -> Body | None:
    """The result so far, None if the id is unknown; the item's own fields where the agenda has one."""
    status = await status_of(record, deliberation_id)
    if status is None:
        return None
    known = {name: status[name] for name in STATUS_FIELDS if name in status}
    result: Body = {"id": deliberation_id, "degraded": False, "engine": UNKNOWN, "counts": {}, **known}
    finished = await record.last(subjects.finished(deliberation_id))
    if (status.get("counts") or {}).get("items") == 1:
        decision = await record.next(subjects.decision(deliberation_id, "*"), 0)
        body = decision.body if decision else await _so_far(record, deliberation_id, status)
        result |= body | {"counts": result.get("counts", {})}
    else:
        result["items"] = await _items(record, deliberation_id)
        result["usage"] = finished.body.get("usage") if finished else None
        result["error_message"] = finished.body.get("error") if finished else None
    result["links"] = _links(status)
    return result


async def retallied(record: Record, deliberation_id: str, rule: str) -> dict[str, Tally]:
    """The ballots on record tallied by a rule, by item, without a model call; items without a ballot are left out.

    Raises InvalidRequest for an unknown id, and for a deliberation without ballots.
    """
    plan = await plan_of(record, check_id(deliberation_id))
    tallies = {}
    for item in plan.agenda:
        progress = await progress_of(record, plan, item)
        if ballots := progress.ballots():
            tallies[item.id] = tally(progress.candidates(), ballots, rule)
    if not tallies:
        raise InvalidRequest("id", f"{deliberation_id!r} has no ballots: its strategy is {plan.strategy}")
    return tallies


async def progress_of(record: Record, plan: Deliberation, item: Item) -> ItemProgress:
    """How far an item is, by the answers of those who were called. Raises RecordError."""
    answers, closings = await asyncio.gather(
        answers_of(record, plan.id, item.id), closings_of(record, plan.id, item.id)
    )
    return ItemProgress.read(plan, item, answers, closings)


async def _so_far(record: Record, deliberation_id: str, status: dict[str, Any]) -> Body:
    """What came of a deliberation of one item that is not decided; its duration is up to the last answer."""
    plan = await plan_of(record, deliberation_id)
    item = plan.agenda[0]
    progress = await progress_of(record, plan, item)
    started = datetime.fromisoformat(status["started_at"])
    given = chain.from_iterable(stage.values() for stage in progress.answers.values())
    last = max((answer.timestamp for answer in given), default=started)
    took_ms = int((last - started).total_seconds() * 1000)
    return item_result(progress, Verdict(Status(status["status"])), took_ms, None).model_dump(mode="json")


async def _items(record: Record, deliberation_id: str) -> list[Body]:
    """One line for each decided item."""
    lines: list[Body] = []
    async for event in record.stored(subjects.decision(deliberation_id, "*")):
        body = event.body
        lines.append({name: body.get(name) for name in ("item", "status", "degraded", "winner_id", "duration_ms")})
    return lines


def _links(status: dict[str, Any]) -> dict[str, str]:
    run = status.get("flow_run_url")
    return {"prefect_run": run} if run else {}
