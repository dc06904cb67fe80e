"""Asking for a run: every door puts a request into the one queue that the workers take from."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, ValidationError, field_validator

from blocks.exceptions import NewerVersion, RecordError, RecordFull, RecordUnreadable
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.queue import LANES
from blocks.record.subjects import Lane
from tasks.council.base import NAME_PATTERN, Frozen, Name
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, Status
from tasks.council.problems import first_problem
from tasks.deliberations.read import has_ended, planned_digest, status_of, taken

DELIBERATE = "flows.deliberate.deliberate"
"""Entrypoint of the flow; what a request runs is named as in prefect.yaml."""
MAX_REQUEST_IN_STATUS = 64 * 1024
"""Characters of a request that stands in the key of its deliberation; a larger one is stored apart."""
BATCH_FLOWS = ("flows.batch.batch", "flows.batch_files.batch_files")
"""Flows of batches, whose tries count only without progress; workers of version 2 know none of them."""
EXPIRED = "expired"
"""The reason of a deliberation that had not begun in time begins so."""
Door = Literal["prefect", "gateway", "planning", "webhook", "housekeeping"]


class Request(Frozen):
    """Body of `requests.<id>`: a flow to run, once. `run` is its flow run in Prefect, where there is one already."""

    id: Name
    flow: str = DELIBERATE
    parameters: dict[str, Any]
    run: str | None = None
    door: Door
    lane: Lane = "interactive"
    owner: str | None = Field(None, description="Whose token of the gateway asked for it.")
    not_before: AwareDatetime | None = Field(None, description="It is not begun earlier.")
    expires_at: AwareDatetime | None = Field(None, description="Not begun by then, it ends CANCELLED.")

    @field_validator("run")
    @classmethod
    def _is_a_run(cls, value: str | None) -> str | None:
        return None if value is None else str(UUID(value))

    @classmethod
    def of_message(cls, deliberation_id: str, body: Body) -> Self:
        """The request that a message on `requests.<deliberation_id>` brought. Raises InvalidRequest."""
        try:
            request = cls.from_record(body)
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field or "body", problem.text) from None
        if request.id != deliberation_id:
            raise InvalidRequest("id", "is not that of the message's subject")
        return request

    def early_s(self, now: datetime) -> float:
        """Seconds until it may begin; 0 or less from then on."""
        return 0.0 if self.not_before is None else (self.not_before - now).total_seconds()

    def has_expired(self, now: datetime) -> bool:
        """Whether it is not to begin any more."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def asked(self) -> dict[str, Any]:
        """What a council is asked: the parameters without the id."""
        return asked_in(self.parameters)

    @property
    def digest(self) -> str | None:
        """Identity of what is asked, None where no council can be asked that."""
        return digest_of(self.parameters)


def asked_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What parameters of the flow ask a council: all but the id."""
    return {name: value for name, value in parameters.items() if name != "deliberation_id"}


def digest_of(parameters: dict[str, Any]) -> str | None:
    """Identity of what parameters ask, None where no council can be asked that."""
    try:
        return DeliberationRequest.read(asked_in(parameters)).digest
    except InvalidRequest:
        return None


def id_of(parameters: dict[str, Any], run: str) -> str:
    """The id that a flow run deliberates under: the one that it was given, else its own."""
    given = parameters.get("deliberation_id")
    return given if isinstance(given, str) and re.fullmatch(NAME_PATTERN, given) else run


def version_of(request: Request) -> int:
    """Which version of bodies a worker has to know to run this (`blocks/record/envelope.py`).

    One that knows no times would begin it too early, or after it has expired; one that knows no budget spends more.
    """
    if request.parameters.get("budget") is not None or request.flow in BATCH_FLOWS:
        return 3
    timed = request.not_before is not None or request.expires_at is not None
    return 2 if timed or request.parameters.get("strategy") == "escalate" else 1


class Submitted(NamedTuple):
    """What became of a request: `new` where nobody had asked for it before, `queued` where it went into the queue."""

    new: bool
    queued: bool


async def enqueue(record: Record, request: Request, again: bool = False, drawn: bool = False) -> Submitted:
    """Put a request into the queue, unless its deliberation has ended, or waits there already.

    `again`: it was accepted before, and its run was lost. `drawn`: its id was drawn at random for it just now, so that
    nothing can stand under it yet, and nobody need look.

    First its key of the status bucket is made, which says what was asked, then the message is published: what is left
    between the two, housekeeping finds. Raises InvalidRequest where the id was asked with another request, RecordFull
    where the queue takes no more, which leaves no new key behind, and RecordError.
    """
    accepted = Submitted(new=False, queued=True)
    if request.flow == DELIBERATE and not again:
        accepted = await _accepted(record, request, drawn)
    if accepted.queued:
        await _publish(record, request, accepted.new, again)
    return accepted


async def _publish(record: Record, request: Request, new: bool, again: bool) -> None:
    body = request.model_dump(mode="json", exclude_none=True)
    subject, version = subjects.request(request.id, request.lane), version_of(request)
    alone = request.run is None and not again  # else whoever takes it has another flow run to tell of it
    try:
        await record.publish(subject, f"{request.id}:request", "request", body, version, alone)
    except RecordFull:
        if new:  # else somebody would run what its sender was told is not taken
            await record.statuses.delete(request.id)
        raise


async def ask_to_cancel(record: Record, deliberation_id: str) -> None:
    """Set the flag that whoever runs it hears; it is kept for one that has not begun, too. Raises RecordError."""
    asked = {"cancel_requested": True}
    if not await record.statuses.merge(deliberation_id, asked):
        await record.statuses.merge(deliberation_id, {"id": deliberation_id, "status": Status.PENDING.value, **asked})


async def queued_request(record: Record, deliberation_id: str) -> Request | None:
    """The request that waits in the queue, or is being worked on; None where there is none that can be read.

    Raises RecordError.
    """
    for lane in LANES:
        try:
            event = await record.last(subjects.request(deliberation_id, lane), direct=False)
            if event is not None:
                return Request.of_message(deliberation_id, event.body)
        except (InvalidRequest, RecordUnreadable, NewerVersion):  # whoever takes it from the queue sees to it
            continue
    return None


async def withdraw(record: Record, deliberation_id: str) -> None:
    """Take a request out of the queue whose deliberation has ended, unless a flow run is to be told of the end.

    Raises RecordError.
    """
    request, status = await queued_request(record, deliberation_id), await record.statuses.read(deliberation_id) or {}
    if request is not None and request.run is None and not status.get("run"):
        await record.purge(subjects.request(deliberation_id, request.lane))


async def queued(record: Record, deliberation_id: str, lane: Lane = "interactive") -> bool:
    """Whether a request waits in the queue, or is being worked on. Raises RecordError."""
    try:
        return await record.last(subjects.request(deliberation_id, lane), direct=False) is not None
    except (RecordUnreadable, NewerVersion):
        return True


async def is_accepted(record: Record, deliberation_id: str) -> bool:
    """Whether a deliberation has a plan or a key, so that somebody waits for its end. Raises RecordError."""
    if await record.exists(subjects.plan(deliberation_id)):
        return True
    return await record.exists(subjects.status(deliberation_id))


async def asked_of(record: Record, status: Body) -> Body | None:
    """What was asked, as the key of the deliberation says it; None where it does not. Raises RecordError."""
    asked = status.get("request")
    if isinstance(asked, dict):
        return asked
    reference = status.get(REQUEST_BODY)
    if not isinstance(reference, str):
        return None
    try:
        asked = json.loads(await record.bodies.read(reference))
    except ValueError as error:
        raise RecordError("what was asked cannot be read") from error
    return asked if isinstance(asked, dict) else None


REQUEST_BODY = "request_body"
"""Name in the object store of a request that is too large for its key."""


async def _accepted(record: Record, request: Request, drawn: bool) -> Submitted:
    """Whether a request is new and is to go into the queue, once its key says what was asked.

    Raises InvalidRequest where the id was asked with another request, and RecordError.
    """
    asked = _without_nulls(request.asked)
    digest = _digest_to_accept(request, asked)
    standing, planned = (None, None) if drawn else await _known_of(record, request.id)
    if standing is None:
        _require(request, planned, digest)
        if await record.statuses.create(request.id, await _new_key(record, request, asked, digest)):
            return Submitted(new=True, queued=True)
        standing = await status_of(record, request.id) or {}  # somebody made it just now
    _require(request, standing.get("request_digest") or planned, digest)
    if _was_made_by_a_cancel(standing):
        key = await _new_key(record, request, asked, digest)
        await record.statuses.merge(request.id, {name: key[name] for name in key if name not in standing})
    return Submitted(new=_was_made_by_a_cancel(standing), queued=await _is_to_wait(record, request, standing))


async def _known_of(record: Record, deliberation_id: str) -> tuple[Body | None, str | None]:
    """The status of an id and the digest of its plan, as far as there are any.

    All are asked for at once, since almost every request is new and its sender waits.
    """
    key, finished, planned = await asyncio.gather(
        record.statuses.read(deliberation_id),
        record.exists(subjects.finished(deliberation_id)),
        planned_digest(record, deliberation_id),
    )
    is_new = key is None and not finished
    return None if is_new else await status_of(record, deliberation_id), planned


def _require(request: Request, standing: str | None, digest: str | None) -> None:
    """Raise InvalidRequest where what stands under the id was asked something else."""
    if standing not in (None, digest):
        raise taken(request.id)


async def _is_to_wait(record: Record, request: Request, standing: Body) -> bool:
    """Whether a request goes into the queue whose id has a key already."""
    if request.run is not None:  # whoever takes it tells this flow run how its deliberation ended
        return True
    return not has_ended(standing) and not await _queued_anywhere(record, request.id)


async def _queued_anywhere(record: Record, deliberation_id: str) -> bool:
    """Whether a request waits in any lane: it may be sent again with another priority."""
    for lane in LANES:
        if await queued(record, deliberation_id, lane):
            return True
    return False


def _without_nulls(asked: Body) -> Body:
    return {name: value for name, value in asked.items() if value is not None}


def _digest_to_accept(request: Request, asked: Body) -> str | None:
    """Identity of what is asked. Raises InvalidRequest where that is unsound, unless a flow run can end with that."""
    return DeliberationRequest.read(asked).digest if request.run is None else request.digest


def _was_made_by_a_cancel(standing: Body) -> bool:
    """Whether a key stands since a cancel came before its request, which nobody has seen to yet."""
    return "request_digest" not in standing and not has_ended(standing)


async def _new_key(record: Record, request: Request, asked: Body, digest: str | None) -> Body:
    """The first value of the key of a deliberation that waits."""
    return {
        "id": request.id,
        "status": Status.PENDING.value,
        "council": asked.get("council") or DeliberationRequest.model_fields["council"].default,
        "request_digest": digest,
        "door": request.door,
        "lane": request.lane,
        "run": request.run,
        **request.model_dump(mode="json", include={"owner", "not_before", "expires_at"}, exclude_none=True),
        "requested_at": datetime.now(UTC).isoformat(),
        **await _noted(record, request.id, asked),
    }


async def _noted(record: Record, deliberation_id: str, asked: Body) -> Body:
    """What was asked, for the key; where it is too large for that it is stored first, and the key says where."""
    text = json.dumps(asked, ensure_ascii=False)
    if len(text) <= MAX_REQUEST_IN_STATUS:
        return {"request": asked}
    return {REQUEST_BODY: await record.bodies.keep(deliberation_id, text.encode())}
