"""Asking for a run: every door puts a request into the one queue that the workers take from."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from blocks.record import Body, Record
from blocks.work_queue import LANES, Lane, request_subject
from tasks.council.base import NAME_PATTERN, Frozen, Name
from tasks.council.models import DeliberationRequest, InvalidRequest, Status
from tasks.plans import MAX_REQUEST_IN_STATUS
from tasks.reading import status_of

DELIBERATE = "flows.deliberate.deliberate"
"""Entrypoint of the flow; what a request runs is named as in prefect.yaml."""
Door = Literal["prefect", "gateway", "planning", "webhook", "housekeeping"]


class Request(Frozen):
    """Body of `requests.<id>`: a flow to run, once. `run` is its flow run in Prefect, where there is one already."""

    id: Name
    flow: str = DELIBERATE
    parameters: dict[str, Any]
    run: str | None = None
    door: Door
    lane: Lane = "interactive"

    @property
    def asked(self) -> dict[str, Any]:
        """What a council is asked: the parameters without the id."""
        return {name: value for name, value in self.parameters.items() if name != "deliberation_id"}


def id_of(parameters: dict[str, Any], run: str) -> str:
    """The id that a flow run deliberates under: the one that it was given, else its own."""
    given = parameters.get("deliberation_id")
    return given if isinstance(given, str) and re.fullmatch(NAME_PATTERN, given) else run


async def enqueue(record: Record, request: Request, again: bool = False) -> bool:
    """Put a request into the queue; False where its deliberation has ended, or waits there already.

    `again`: it was accepted before, and its run was lost.

    First its key of the status bucket is made, with the request, then the message is published: what is left between
    the two, housekeeping finds. Raises InvalidRequest where the id was asked with another request, and RecordError.
    """
    if request.flow == DELIBERATE and not again and not await _accepted(record, request):
        return False
    body = request.model_dump(mode="json")
    await record.publish(request_subject(request.id, request.lane), f"{request.id}:request", "request", body)
    return True


async def queued_request(record: Record, deliberation_id: str) -> Request | None:
    """The request that waits in the queue, or is being worked on. Raises RecordError."""
    for lane in LANES:
        event = await record.last(request_subject(deliberation_id, lane), direct=False)
        if event is not None:
            return Request.model_validate(event.body)
    return None


async def queued(record: Record, deliberation_id: str, lane: Lane = "interactive") -> bool:
    """Whether a request waits in the queue, or is being worked on. Raises RecordError."""
    return await record.last(request_subject(deliberation_id, lane), direct=False) is not None


async def _accepted(record: Record, request: Request) -> bool:
    fields = request.asked
    digest = DeliberationRequest.read(fields).digest if request.run is None else None
    status: Body = {
        "id": request.id,
        "status": Status.PENDING.value,
        "request_digest": digest,
        "door": request.door,
        "lane": request.lane,
        "run": request.run,
        "requested_at": datetime.now(UTC).isoformat(),
    }
    if len(str(fields)) <= MAX_REQUEST_IN_STATUS:
        status["request"] = {name: value for name, value in fields.items() if value is not None}
    ended = await record.read_status(request.id) is None and await status_of(record, request.id)
    if not ended and await record.create_status(request.id, status):
        return True
    if request.run is not None:
        return True
    standing = ended or await record.read_status(request.id) or {}
    if digest != standing.get("request_digest", digest):
        raise InvalidRequest("id", f"{request.id!r} was already asked with another request")
    return not Status(standing["status"]).final and not await queued(record, request.id, request.lane)
