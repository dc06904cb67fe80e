"""Reading what stands on the record."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from blocks.record import subjects
from blocks.record.envelope import Body, Event
from blocks.record.events import Record
from tasks.council.answer import Answer
from tasks.council.exceptions import InvalidRequest
from tasks.council.finished import Finished
from tasks.council.models import Deliberation, Status
from tasks.council.progress.stage_end import Closing

KEPT_PLANS = 64
KEPT_BYTES = 128 << 20
"""Of all plans that a process keeps, as JSON; the newest is kept whatever it weighs."""
OF_START = ("council", "copies", "started_at", "flow_run_url")


_plans: OrderedDict[str, tuple[Deliberation, int]] = OrderedDict()


async def plan_of(record: Record, deliberation_id: str) -> Deliberation:
    """The plan that stands on the record. Plans never change, so the last few are kept."""
    if deliberation_id not in _plans:
        event = await record.last(subjects.plan(deliberation_id), direct=False)
        if event is None:
            raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
        keep_plan(Deliberation.from_record(event.body["plan"]))
    return _plans[deliberation_id][0]


def keep_plan(plan: Deliberation) -> None:
    """Let `plan_of` find it without asking the record; plans never change."""
    _plans[plan.id] = plan, len(plan.model_dump_json())
    while len(_plans) > 1 and (len(_plans) > KEPT_PLANS or sum(size for _, size in _plans.values()) > KEPT_BYTES):
        _plans.popitem(last=False)


class OtherRequest(InvalidRequest):
    """An id is another request's."""


def answer_in(event: Event) -> Answer:
    """The answer that an event brings. Raises ValueError where it is none, or not the one that its subject says."""
    answer = Answer.from_record(event.body)
    if event.subject != subjects.answer(answer.task_id, answer.item, answer.stage, answer.agent_id):
        raise ValueError("it is not the answer that its subject names")
    return answer


async def answers_of(record: Record, deliberation_id: str, item_id: str) -> dict[str, dict[str, Answer]]:
    """The final answers to an item, by stage and member, as the leader has them. Raises RecordError."""
    found: dict[str, dict[str, Answer]] = {}
    async for event in record.stored(subjects.answers(deliberation_id, item_id), direct=False):
        answer = answer_in(event)
        found.setdefault(answer.stage, {})[answer.agent_id] = answer
    return found


async def closings_of(record: Record, deliberation_id: str, item_id: str) -> dict[str, Closing]:
    """The closings of an item, by the stage that each one ends, as the leader has them. Raises RecordError."""
    events = record.stored(subjects.closed(deliberation_id, item_id, "*"), direct=False)
    closings = [Closing.from_record(event.body) async for event in events]
    return {closing.stage: closing for closing in closings}


async def status_of(record: Record, deliberation_id: str) -> Body | None:
    """The status of a deliberation: its key, or what the streams say of one whose key was let go after its end.

    Its `status` is always one of `Status`: a key that has none, as older versions could leave behind, is PENDING unless
    the streams know better. None for an id that is unknown. Raises RecordError.
    """
    key = await record.statuses.read(deliberation_id)
    if key is not None and status_in(key) is not None:
        return key
    finished = await record.last(subjects.finished(deliberation_id))
    if finished is None:
        return None if key is None else {"id": deliberation_id, **key, "status": Status.PENDING.value}
    ended = Finished.from_record(finished.body).model_dump(mode="json", exclude_unset=True)
    plan = await record.last(subjects.plan(deliberation_id))
    started = await record.last(subjects.started(deliberation_id))
    begun = {name: started.body[name] for name in OF_START if name in started.body} if started else {}
    planned = {"request_digest": plan.body["plan"]["request_digest"], "owner": plan.body.get("owner")} if plan else {}
    return {**(key or {}), "id": deliberation_id, **begun, **ended, **planned}


def requested_at_in(body: Body) -> datetime | None:
    """When the request of a status came; None where it does not say."""
    text = body.get("requested_at")
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def status_in(body: Body) -> Status | None:
    """The status that a body has; None where it has none that there is."""
    text = body.get("status")
    return Status(text) if isinstance(text, str) and text in set(Status) else None


def has_ended(body: Body) -> bool:
    """Whether a body has a final status."""
    status = status_in(body)
    return status is not None and status.final


async def require_same(record: Record, deliberation_id: str, digest: str | None, status: Body | None) -> None:
    """Raise InvalidRequest where the id is another request's: its key, or else its plan, has another digest."""
    standing = (status or {}).get("request_digest") or await planned_digest(record, deliberation_id)
    if standing not in (None, digest):
        raise taken(deliberation_id)


async def planned_digest(record: Record, deliberation_id: str) -> str | None:
    """Identity of what the plan on the record was asked, None where there is no plan. Raises RecordError."""
    plan = await record.last(subjects.plan(deliberation_id), direct=False)
    return None if plan is None else str(plan.body["plan"]["request_digest"])


def taken(deliberation_id: str, field: str = "id") -> OtherRequest:
    """What is said where an id is another request's."""
    return OtherRequest(field, f"{deliberation_id!r} was already asked with another request")
