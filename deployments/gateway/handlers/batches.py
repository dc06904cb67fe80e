"""Batches: their rows taken agenda by agenda, started, read, followed, and asked to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from contextlib import aclosing

from aiohttp import web

from blocks.background import beating
from blocks.exceptions import RecordError, RecordFull
from blocks.record.envelope import Body
from deployments.gateway.acceptance import may_change, may_see
from deployments.gateway.bodies import beside, json_of
from deployments.gateway.handlers.answers import document, only
from deployments.gateway.handlers.events import HEARTBEAT_S, SEND_S
from deployments.gateway.problems import Problem, forbidden, later
from deployments.gateway.quotas import FULL_S
from deployments.gateway.routes import Call
from tasks.batch.asked import MAX_AGENDAS, AgendaBody, BatchRequest, check_batch_id
from tasks.batch.decided import DecidedRow, Place, decided_rows
from tasks.batch.store import Batch, note, put_agenda, read_batch, require_own
from tasks.batch.submission import submit_batch
from tasks.council.exceptions import InvalidRequest

HIDDEN = ("council", "owner")
"""What of a batch's body is not told: prompts of a council, and whose it is."""
MAX_FOLLOWERS = 64
"""Results that one owner may follow at a time: each is a consumer of the streams."""
_following = Counter[str]()
_audit = logging.getLogger("conclave.audit")
_log = logging.getLogger("conclave.gateway")


async def put_rows(call: Call) -> web.StreamResponse:
    """Take the rows of one agenda; the same ones again are no fault."""
    only(call)
    batch_id, number = check_batch_id(call.request.match_info["id"]), _number(call)
    body, size = await json_of(call.request)
    agenda = await beside(size, lambda: AgendaBody.read(body))
    await require_own(call.service.record, batch_id, call.token.owner, number)
    await put_agenda(call.service.record, batch_id, number, agenda.rows, call.token.owner)
    return web.Response(status=204, headers=call.headers)


async def start(call: Call) -> web.StreamResponse:
    """Take a batch whose rows are there; the same one again attaches."""
    only(call)
    batch_id = check_batch_id(call.request.match_info["id"])
    body, _ = await json_of(call.request)
    request = BatchRequest.read(body)
    if not call.token.may_ask(request.council):
        raise forbidden(f"council: this token may not ask {request.council!r}", "council")
    service = call.service
    standing = await read_batch(service.record, batch_id)
    if standing is None:
        await require_own(service.record, batch_id, call.token.owner)
        (await service.councils.mirror()).require(request.council)
        await service.quotas.check(call.token, batch_id)
    try:
        new = await submit_batch(service.record, batch_id, request, call.token.owner, "gateway")
    except RecordFull:
        raise later(429, "queue-full", "the queue takes no more; the same batch again attaches", FULL_S) from None
    _audit.info("%s batch %s new=%s", call.token.id, batch_id, new)
    batch = await _asked_about(call)
    headers = {} if new else {"Idempotency-Replayed": "true"}
    return document(call, _shown(batch), 202, Location=f"/v1/batches/{batch_id}", **headers)


async def read(call: Call) -> web.StreamResponse:
    """A batch so far."""
    only(call)
    return document(call, _shown(await _asked_about(call)))


async def results(call: Call) -> web.StreamResponse:
    """Its rows as they are decided, a line of JSON each, and its status at last; `after` goes on where a line said."""
    only(call, "after")
    batch = await _asked_about(call)
    if _following[call.token.owner] >= MAX_FOLLOWERS:
        told = f"this token's owner follows {MAX_FOLLOWERS} batches already, and may follow no more; try again later"
        raise later(429, "too-many-open", told, FULL_S)
    text = call.request.query.get("after")
    after = Place.read(text) if text else Place()
    response = web.StreamResponse(headers={**call.headers, "Content-Type": "application/x-ndjson"})
    await response.prepare(call.request)
    call.service.counts.listeners += 1
    _following[call.token.owner] += 1
    try:
        async with aclosing(decided_rows(call.service.record, batch.id, after)) as rows:
            async for row in beating(rows, HEARTBEAT_S):
                async with asyncio.timeout(SEND_S):
                    await response.write(b"\n" if row is None else _line(row))
        ended = await read_batch(call.service.record, batch.id) or batch
        await response.write(_json({"status": ended.body["status"]}))  # a connection that breaks ends without it
        await response.write_eof()
    except (ConnectionError, TimeoutError, RecordError) as error:
        _log.info("the results of %s break off: %s", batch.id, error)
        _abort(call)
    finally:
        call.service.counts.listeners -= 1
        _following[call.token.owner] -= 1
    return response


async def cancel(call: Call) -> web.StreamResponse:
    """Ask a batch to stop: what is decided stays so."""
    only(call)
    batch = await _asked_about(call)
    if not may_change(call.token, batch.body.get("owner")):
        raise forbidden("it is another owner's; the scope admin may stop it")
    if not batch.has_ended:
        batch = batch._replace(body=await note(call.service.record, batch.id, {"cancel_requested": True}))
    _audit.info("%s cancel batch %s", call.token.id, batch.id)
    return document(call, _shown(batch), 200 if batch.has_ended else 202)


def _abort(call: Call) -> None:
    """Let the client see that the answer is not whole: it comes again with its last place."""
    if call.request.transport is not None:
        call.request.transport.abort()


def _line(row: DecidedRow) -> bytes:
    asked = row.row
    told = {
        "id": asked.id,
        "row": asked.row,
        "line": asked.line,
        "key": asked.key,
        "item": asked.item.id,
        "tries": asked.tries,
        "deliberation_id": row.deliberation_id,
        "council_digest": row.council_digest,
        "after": str(row.after),
        "result": row.event.body,
    }
    return _json(told)


def _json(told: Body) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _number(call: Call) -> int:
    text = call.request.match_info["number"]
    if re.fullmatch(r"[0-9]{1,6}", text) is None or not 1 <= int(text) <= MAX_AGENDAS:
        raise InvalidRequest("number", f"must be 1 to {MAX_AGENDAS:,}")
    return int(text)


async def _asked_about(call: Call) -> Batch:
    """The batch in the path. Raises Problem where there is none that is shown to who asks."""
    batch_id = call.request.match_info["id"]
    try:
        batch = await read_batch(call.service.record, check_batch_id(batch_id))
    except InvalidRequest:
        batch = None
    if batch is None or not may_see(call.token, batch.body.get("owner")):
        raise Problem(404, "unknown-batch", f"there is no batch {batch_id!r}")
    return batch


def _shown(batch: Batch) -> dict[str, object]:
    return {name: value for name, value in batch.body.items() if name not in HIDDEN}
