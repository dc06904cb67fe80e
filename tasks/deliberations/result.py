"""The result of a deliberation, read from the record: what `result --json` prints."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from blocks.record import subjects
from blocks.record.envelope import Body, Event
from blocks.record.events import Record
from tasks.council.base import NAME_PATTERN
from tasks.council.engines import UNKNOWN
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, Item, Status, check_id
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ItemProgress
from tasks.council.progress.result import item_result
from tasks.council.voting.tally import Tally, tally
from tasks.deliberations.read import answers_of, closings_of, plan_of, status_of

STATUS_FIELDS = (
    *("id", "status", "degraded", "council", "copies", "engine", "counts"),
    *("started_at", "completed_at", "duration_ms"),
)


async def result_of(record: Record, deliberation_id: str) -> Body | None:
    """The result so far, None if the id is unknown; the item's own fields where the agenda has one."""
    status = await status_of(record, deliberation_id)
    return None if status is None else await result_with(record, deliberation_id, status)


async def result_with(record: Record, deliberation_id: str, status: Body) -> Body:
    """The result so far of a deliberation whose status was read just now."""
    finished, decision = await asyncio.gather(
        record.last(subjects.finished(deliberation_id)), _sole_decision(record, deliberation_id, status)
    )
    if finished is not None and decision is None:  # both may have been stored between the two answers
        decision = await _sole_decision(record, deliberation_id, status)
    ended = {} if finished is None else finished.body
    told = {**status, **ended}  # the key says a moment later that it has ended
    known = {name: told[name] for name in STATUS_FIELDS if name in told}
    result: Body = {"id": deliberation_id, "degraded": False, "engine": UNKNOWN, "counts": {}, **known}
    if _has_one_item(status):
        body = decision.body if decision else await _so_far(record, deliberation_id, status)
        result |= body | {"counts": result["counts"]}
    else:
        result["items"] = await _items(record, deliberation_id)
        result |= {"usage": ended.get("usage"), "error_message": ended.get("error")}
    return result | {"links": links_of(deliberation_id, status)}


async def _sole_decision(record: Record, deliberation_id: str, status: Body) -> Event | None:
    """The decision of the only item, where there is one item and it is decided."""
    return await record.next(subjects.decision(deliberation_id, "*"), 0) if _has_one_item(status) else None


def _has_one_item(status: Body) -> bool:
    return (status.get("counts") or {}).get("items") == 1


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
    return await _item_so_far(record, plan, plan.agenda[0], status)


async def _item_so_far(record: Record, plan: Deliberation, item: Item, status: dict[str, Any]) -> Body:
    progress = await progress_of(record, plan, item)
    began = status.get("started_at")
    started = datetime.fromisoformat(began) if began else datetime.now(UTC)
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


def links_of(deliberation_id: str, status: Body | None = None) -> dict[str, str]:
    """Where to go on with a deliberation: paths of the gateway, and its run in Prefect's UI where there is one."""
    own = f"/v1/deliberations/{deliberation_id}"
    run = (status or {}).get("flow_run_url")
    shown = {"prefect_run": run} if run else {}
    return {"self": own, "events": f"{own}/events", "wait": f"{own}/wait", **shown}


async def item_of(record: Record, deliberation_id: str, item_id: str) -> Body | None:
    """An item's result, or what is known of it so far; None where the agenda has no such item. Raises RecordError."""
    if re.fullmatch(NAME_PATTERN, item_id) is None:
        return None
    decision = await record.last(subjects.decision(deliberation_id, item_id))
    if decision is not None:
        return decision.body
    status, planned = await status_of(record, deliberation_id), await record.exists(subjects.plan(deliberation_id))
    if status is None or not planned:
        return None
    plan = await plan_of(record, deliberation_id)
    item = next((one for one in plan.agenda if one.id == item_id), None)
    return None if item is None else await _item_so_far(record, plan, item, status)
