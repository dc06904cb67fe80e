"""Taking what was asked for, whatever door it came in by: rights and bounds first, then its key, then the queue."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Literal

from blocks.exceptions import RecordError, RecordFull
from blocks.public_http import REFUSED, is_allowed
from blocks.record.envelope import Body
from deployments.gateway.problems import RETRY_S, Problem, forbidden, invalid, later, unknown
from deployments.gateway.quotas import FULL_S
from deployments.gateway.service import Service
from tasks.access.signing import secrets_of
from tasks.access.tokens import Token
from tasks.batch.store import is_of_batches
from tasks.callbacks import deliveries
from tasks.callbacks.targets import Target, UrlTarget, address_in
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, check_id
from tasks.deliberations.read import OtherRequest, status_of
from tasks.deliberations.submission import id_for, key_in
from tasks.deliberations.submit import Request, Submitted, enqueue

IdBy = Literal["body", "key", "delivery", "chance"]
"""Where the id of a deliberation comes from: the body names it, a key or a delivery stands for it, or it was drawn."""
_audit = logging.getLogger("conclave.audit")


def id_by(service: Service, token: Token, given: str | None, keys: Sequence[str]) -> tuple[str, IdBy]:
    """The id of what is asked for, of what the body and the idempotency keys say. Raises Problem and InvalidRequest."""
    if len(keys) > 1:
        raise invalid("Idempotency-Key", "Idempotency-Key: it stands there twice")
    if given is not None:
        return given, "body"
    if keys:
        return id_for(service.record.installation, token.owner, key_in(keys[0])), "key"
    return str(uuid.uuid4()), "chance"


async def accept(
    service: Service,
    token: Token,
    request: Request,
    asked: DeliberationRequest,
    by: IdBy,
    told: Sequence[Target] = (),
) -> Submitted:
    """Take what somebody with this token asks for; its end will be told to these.

    Whoever repeats a request that was broken off in between completes it. Raises Problem, InvalidRequest, and
    RecordError before anything is stored.
    """
    if not token.may_ask(asked.council):
        raise forbidden(f"council: this token may not ask {asked.council!r}", "council")
    if by == "body" and await is_of_batches(service.record, request.id):
        raise _reused(request.id, by)
    place = await _admit(service, token, asked, request.id)
    submitted = await _enqueued(service, token, request, by, place)
    if told:
        if not submitted.new and not may_change(token, await _owner(service, request.id)):
            raise forbidden(
                "callback_url: it is another owner's deliberation; the scope admin may add one", "callback_url"
            )
        try:
            await deliveries.ask(service.record, request.id, told)
        except RecordError:
            raise _unknown(request.id) from None
    _audit.info("%s submit %s new=%s", token.id, request.id, submitted.new)
    return submitted


async def told_to(service: Service, token: Token, url: str | None) -> list[Target]:
    """Whom the end is told to by this callback URL. Raises InvalidRequest where nothing can be sent there."""
    if url is None:
        return []
    address = address_in(url)
    if address is not None and not is_allowed(address, service.callbacks.networks):
        told = f"{address} {REFUSED}; CONCLAVE_CALLBACK_NETWORKS names further networks"
        raise InvalidRequest("callback_url", told)
    if not await secrets_of(service.record, token.owner):
        told = f"there is no secret to sign with yet; `conclave secrets create {token.owner}` makes one"
        raise InvalidRequest("callback_url", told)
    return [UrlTarget(url=url, secrets_of=token.owner)]


async def shown_status(service: Service, token: Token, deliberation_id: str) -> Body:
    """The status of a deliberation. Raises Problem where there is none that is shown to whoever has this token."""
    try:
        check_id(deliberation_id)
    except InvalidRequest:
        raise unknown(deliberation_id) from None
    status = await status_of(service.record, deliberation_id)
    if status is None or not may_see(token, status.get("owner")):
        raise unknown(deliberation_id)
    return status


def may_see(token: Token, owner: object) -> bool:
    """Whether a deliberation of this owner is shown to whoever has this token."""
    return token.sees_all or owner == token.owner


def may_change(token: Token, owner: object) -> bool:
    """Whether whoever has this token may stop a deliberation of this owner, or tell others again of its end."""
    return token.may("admin") or owner == token.owner


async def _admit(service: Service, token: Token, asked: DeliberationRequest, deliberation_id: str) -> bool:
    """Raise Problem where no more may be asked for; whether a place was taken for it.

    What was accepted before is asked for again without regard to what has changed since.
    """
    try:
        await service.councils.check(asked)
        return await service.quotas.check(token, deliberation_id)
    except (InvalidRequest, Problem):
        if await status_of(service.record, deliberation_id) is None:
            raise
    return False


async def _enqueued(service: Service, token: Token, request: Request, by: IdBy, place: bool) -> Submitted:
    """What became of it. Raises Problem, which says whether it may run all the same."""
    try:
        submitted = await enqueue(service.record, request, drawn=by == "chance")
        if submitted.new or may_see(token, await _owner(service, request.id)):
            return submitted
        problem = _reused(request.id, by)
    except OtherRequest:
        problem = _reused(request.id, by)
    except RecordFull:
        told = "the queue takes no more; the same key or id attaches if it was accepted"
        problem = later(429, "queue-full", told, FULL_S, id=request.id, accepted="unknown")
    except RecordError:
        raise _unknown(request.id) from None
    if place:
        await service.quotas.give_back(token, request.id)
    raise problem


def _unknown(deliberation_id: str) -> Problem:
    told = "the record does not answer; the same key or id attaches if it was accepted"
    return later(503, "record-unavailable", told, RETRY_S, id=deliberation_id, accepted="unknown")


async def _owner(service: Service, deliberation_id: str) -> object:
    return (await status_of(service.record, deliberation_id) or {}).get("owner")


def _reused(deliberation_id: str, by: IdBy) -> Problem:
    """An id that stands for something else; whose that is, is not told."""
    if by == "key":
        told = "Idempotency-Key: it was used with another request"
        return Problem(422, "idempotency-key-reused", told, field="Idempotency-Key", id=deliberation_id)
    if by == "delivery":
        told = "webhook-id: this delivery came before, and asked for something else"
        return Problem(422, "idempotency-key-reused", told, field="webhook-id", id=deliberation_id)
    told = "id: it was used already, with another request or by somebody else"
    return Problem(422, "id-reused", told, field="id", id=deliberation_id)
