"""Server-sent events: what happens in one deliberation or in many, from the beginning or from where it was left.

Source: WHATWG HTML, "Server-sent events". An event's id is a cursor; a client that comes back with it as
`Last-Event-ID`, or as `starting_after`, gets every later event once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from blocks.background import background
from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.envelope import Body
from deployments.gateway.acceptance import may_see
from deployments.gateway.handlers.answers import asked_about, filter_of, only
from deployments.gateway.projection import Filter
from deployments.gateway.routes import Call
from tasks.deliberations.feed import Cursor, FeedEvent
from tasks.deliberations.read import status_of

_log = logging.getLogger("conclave.gateway")

HEARTBEAT_S = 15.0
SEND_S = 60.0
"""How long a listener may not read before it is dropped."""
LATEST = "latest"
METADATA = "metadata"
KNOWN = 10_000
"""Deliberations whose council and metadata are remembered while many are followed."""


async def of_one(call: Call) -> web.StreamResponse:
    """The events of a deliberation, up to its end; 204 where nothing follows any more."""
    only(call, "starting_after")
    deliberation_id, _ = await asked_about(call)
    cursor = await _cursor(call)
    if await call.service.feed.is_over(deliberation_id, cursor):
        return web.Response(status=204, headers=call.headers)
    return await _send(call, call.service.feed.of(deliberation_id, cursor))


async def of_many(call: Call) -> web.StreamResponse:
    """The events of all deliberations that match, as they come."""
    only(call, "starting_after", "status", "council", "metadata.")
    wanted, cursor = filter_of(call), await _cursor(call)
    return await _send(call, _matching(call, wanted, cursor))


async def _cursor(call: Call) -> Cursor:
    """Where to begin. Raises InvalidRequest."""
    header = call.request.headers.get("Last-Event-ID")
    text = header or call.request.query.get("starting_after")
    if not text:
        return Cursor()
    if text == LATEST:
        return await call.service.feed.newest()
    return Cursor.read(text, "Last-Event-ID" if header else "starting_after")


async def _send(call: Call, events: AsyncGenerator[FeedEvent, None]) -> web.StreamResponse:
    """Send events until they end, the client leaves, or does not read.

    Where the record can be read no more, or the token counts no more, the stream ends, so that the client comes back
    with its last cursor, and is told why.
    """
    given = call.request.headers.getall("Authorization", [])
    response = EventSourceResponse(headers=call.headers, sep="\n", ping_interval=HEARTBEAT_S, send_timeout=SEND_S)

    async def send() -> None:
        async with aclosing(events):
            async for told in events:
                await response.send(told.data, id=str(told.cursor), event=told.kind)

    call.service.counts.listeners += 1
    try:
        await response.prepare(call.request)
        revoked = call.service.authentication.until_revoked(given, HEARTBEAT_S)
        async with response, background(send(), response.wait(), revoked) as work:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
    except (ConnectionError, TimeoutError, RecordError) as error:
        _log.info("%s ends: %s", call.request.path, error)
    except Exception:  # noqa: BLE001  # it has begun, so that nothing else can be answered
        _log.exception("%s failed", call.request.path)
    finally:
        call.service.counts.listeners -= 1
    return response


async def _matching(call: Call, wanted: Filter, cursor: Cursor) -> AsyncGenerator[FeedEvent, None]:
    """Those events whose deliberations are asked for."""
    known: OrderedDict[str, Body] = OrderedDict()
    async with aclosing(call.service.feed.of(None, cursor)) as events:
        async for told in events:
            about = known.get(told.deliberation) or await _about(call, told.deliberation)
            if METADATA in about:  # else its plan has still to come
                known[told.deliberation] = about
                if len(known) > KNOWN:
                    known.popitem(last=False)
            if _fits(call, wanted, about, told):
                yield told


async def _about(call: Call, deliberation_id: str) -> Body:
    """Council, owner and metadata of a deliberation: from its key, its plan, or from the list where both were let go.

    The key of a long request does not have it, and one that no queue took gets its key after its plan.
    """
    record = call.service.record
    status = await status_of(record, deliberation_id) or {}
    if isinstance(request := status.get("request"), dict):
        return {**status, METADATA: request.get("metadata") or {}}
    plan = await record.last(subjects.plan(deliberation_id), direct=False)
    if plan is not None and isinstance(request := plan.body.get("request"), dict):
        council, owner = request.get("council"), plan.body.get("owner")
        return {**status, "council": council, "owner": owner, METADATA: request.get("metadata") or {}}
    listed = await call.service.projection.about(deliberation_id) or {}
    return {**listed, **{name: value for name, value in status.items() if value is not None}}


def _fits(call: Call, wanted: Filter, about: Body, told: FeedEvent) -> bool:
    if not may_see(call.token, about.get("owner")):
        return False
    if wanted.council is not None and about.get("council") != wanted.council:
        return False
    if wanted.statuses and json.loads(told.data).get("status") not in wanted.statuses:
        return False
    metadata = about.get(METADATA) or {}
    return all(name in metadata and _as_text(metadata[name]) == value for name, value in wanted.metadata.items())


def _as_text(value: Any) -> str:
    """A value as the list compares it, too."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
