"""Deliberations: asked for, read, waited for, listed, and asked to stop."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import web

from blocks.record.envelope import Body
from deployments.gateway.acceptance import accept, id_by, may_change, told_to
from deployments.gateway.bodies import beside, json_of
from deployments.gateway.handlers.answers import asked_about, document, filter_of, number, only, whole_number
from deployments.gateway.problems import Problem, forbidden, invalid, later, unknown
from deployments.gateway.routes import Call
from tasks.council.models import Status
from tasks.deliberations.cancel import stop
from tasks.deliberations.read import has_ended, status_of
from tasks.deliberations.result import item_of, links_of, result_of, result_with
from tasks.deliberations.submission import read_submission, request_of
from tasks.deliberations.submit import Request, Submitted

MAX_WAIT_S = 60.0
MAX_CANCELLED = 1_000
AT_ONCE = 32
"""Cancels under way at a time."""
CATCH_UP_S = 5.0
LIST_S = 0.5
"""How long a page of the list waits for what was stored just before; then it shows what is known."""
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})(?![0-9])", re.IGNORECASE)
_audit = logging.getLogger("conclave.audit")


async def submit(call: Call) -> web.StreamResponse:
    """Take a deliberation that a client asks for."""
    only(call)
    body, size = await json_of(call.request)
    terms, asked = await beside(size, lambda: read_submission(body))
    deliberation_id, by = id_by(call.service, call.token, terms.id, call.request.headers.getall("Idempotency-Key", []))
    told = await told_to(call.service, call.token, terms.callback_url)
    now, owner = datetime.now(UTC), call.token.owner
    request = await beside(size, lambda: request_of(terms, asked, deliberation_id, "gateway", now, owner))
    submitted = await accept(call.service, call.token, request, asked, by, told)
    preferred = _WAIT.search(call.request.headers.get("Prefer", ""))
    if preferred is None:
        return await receipt(call, request, submitted)
    seconds = min(float(preferred[1]), MAX_WAIT_S)
    headers = {**_about(request, submitted), "Preference-Applied": f"wait={seconds:g}"}
    return await _waited(call, request.id, seconds, **headers)


async def receipt(call: Call, request: Request, submitted: Submitted) -> web.StreamResponse:
    """What is told of it at once: its id, and where to go on."""
    status = Status.PENDING.value
    if not submitted.new:
        status = (await status_of(call.service.record, request.id) or {}).get("status", status)
    told = {"id": request.id, "status": status, "links": links_of(request.id)}
    return document(call, told, 202, **_about(request, submitted))


async def read(call: Call) -> web.StreamResponse:
    """A deliberation so far."""
    only(call)
    deliberation_id, status = await asked_about(call)
    return document(call, await result_with(call.service.record, deliberation_id, status))


async def wait(call: Call) -> web.StreamResponse:
    """The result once it has ended, or after a while what is known so far."""
    only(call, "timeout_s")
    seconds = number(call, "timeout_s", 30.0, 0.0, MAX_WAIT_S)
    deliberation_id, _ = await asked_about(call)
    return await _waited(call, deliberation_id, seconds)


async def item(call: Call) -> web.StreamResponse:
    """An item of an agenda so far."""
    only(call)
    deliberation_id, _ = await asked_about(call)
    found = await item_of(call.service.record, deliberation_id, call.request.match_info["item"])
    if found is None:
        raise Problem(404, "unknown-item", f"{deliberation_id!r} has no item {call.request.match_info['item']!r}")
    return document(call, found)


async def listed(call: Call) -> web.StreamResponse:
    """A page of the list, which a moment is given to come up to now."""
    only(call, "status", "council", "limit", "cursor", "metadata.")
    limit = whole_number(call, "limit", 50, 1, 200)
    with suppress(TimeoutError):
        await call.service.projection.catch_up(LIST_S)
    page = await call.service.projection.page(filter_of(call), limit, call.request.query.get("cursor"))
    return document(call, {"deliberations": page.deliberations, "cursor": page.cursor})


async def cancel(call: Call) -> web.StreamResponse:
    """Ask one to stop; what waits in the queue ends at once."""
    only(call)
    deliberation_id, status = await asked_about(call)
    _require_may_stop(call, status)
    after = await stop(call.service.record, call.service.leases, deliberation_id)
    _audit.info("%s cancel %s", call.token.id, deliberation_id)
    return document(call, {"id": deliberation_id, "status": after}, 200 if Status(after).final else 202)


async def cancel_many(call: Call) -> web.StreamResponse:
    """Ask all to stop that match, up to a number; the list is first brought up to now."""
    only(call, "status", "council", "metadata.")
    wanted = filter_of(call)
    if not wanted.statuses and wanted.council is None and not wanted.metadata:
        raise invalid("council", "council: say which are meant, by council, status or metadata.NAME")
    try:
        await call.service.projection.catch_up(CATCH_UP_S)
    except TimeoutError:
        raise later(503, "list-behind", "the list is behind the record; try again later") from None
    found = await call.service.projection.open_ids(wanted, MAX_CANCELLED + 1)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(deliberation_id: str) -> bool:
        async with slots:
            status = await status_of(call.service.record, deliberation_id)
            if status is None or has_ended(status) or not may_change(call.token, status.get("owner")):
                return False
            await stop(call.service.record, call.service.leases, deliberation_id)
            return True

    stopped = sum(await asyncio.gather(*map(one, found[:MAX_CANCELLED])))
    _audit.info("%s cancel %s deliberations", call.token.id, stopped)
    return document(call, {"cancelled": stopped, "more": len(found) > MAX_CANCELLED}, 202)


# --- asking ---------------------------------------------------------------------------------------


def _about(request: Request, submitted: Submitted) -> dict[str, str]:
    """The header fields of an answer to whoever asked."""
    replayed = {} if submitted.new else {"Idempotency-Replayed": "true"}
    return {"Location": f"/v1/deliberations/{request.id}", **replayed}


# --- reading --------------------------------------------------------------------------------------


async def _waited(call: Call, deliberation_id: str, seconds: float, **headers: str) -> web.StreamResponse:
    """The result within so many seconds, or 202 with what is known."""
    try:
        async with asyncio.timeout(seconds):
            await call.service.feed.end_of(deliberation_id)
    except TimeoutError:
        pass
    result = await _result(call, deliberation_id)
    return document(call, result, 200 if Status(result["status"]).final else 202, **headers)


async def _result(call: Call, deliberation_id: str) -> Body:
    result = await result_of(call.service.record, deliberation_id)
    if result is None:
        raise unknown(deliberation_id)
    return result


def _require_may_stop(call: Call, status: Body) -> None:
    if not may_change(call.token, status.get("owner")):
        raise forbidden("it is another owner's; the scope admin may stop it")
