"""Deliveries: what became of each callback, and one that is sent again."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from deployments.gateway.acceptance import may_change
from deployments.gateway.handlers.answers import asked_about, document, only
from deployments.gateway.problems import Problem, forbidden
from deployments.gateway.routes import Call
from tasks.callbacks import deliveries
from tasks.callbacks.deliveries import Delivery

MAX_DIGITS = 6
_audit = logging.getLogger("conclave.audit")


async def listed(call: Call) -> web.StreamResponse:
    """The deliveries of a deliberation, with their tries."""
    only(call)
    deliberation_id, _ = await asked_about(call)
    found = await deliveries.listed(call.service.record, deliberation_id)
    return document(call, {"deliveries": list(map(_shown, found))})


async def again(call: Call) -> web.StreamResponse:
    """Send one again, now, on a new schedule; whoever gets it knows it by the same id."""
    only(call)
    deliberation_id, status = await asked_about(call)
    if not may_change(call.token, status.get("owner")):
        raise forbidden("it is another owner's; the scope admin may send it again")
    number = call.request.match_info["number"]
    is_number = number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS
    found = await deliveries.again(call.service.record, deliberation_id, int(number)) if is_number else None
    if found is None:
        raise Problem(404, "unknown-delivery", f"number: {deliberation_id!r} has no delivery {number!r}")
    _audit.info("%s sends %s again", call.token.id, found.id)
    return document(call, _shown(found), 202)


def _shown(delivery: Delivery) -> dict[str, Any]:
    """A delivery as it is answered."""
    body = delivery.model_dump(mode="json", include={"number", "state", "created_at", "next_at", "tries"})
    return {"id": delivery.id, "kind": delivery.target.kind, "target": delivery.target.shown, **body}
