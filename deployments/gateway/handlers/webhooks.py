"""Webhooks: a signed delivery of somebody else's becomes a deliberation.

Who sends has no token, and a delivery may be overheard: so nothing is told of what became of it but its id and status,
and what is not signed costs as little as can be.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from deployments.event_files import MAX_BYTES, asked_by
from deployments.gateway.bodies import beside, object_in, read_body
from deployments.gateway.handlers.answers import document, only
from deployments.gateway.handlers.deliberations import IdBy, accept, receipt
from deployments.gateway.problems import RETRY_S, Problem, invalid, later
from deployments.gateway.routes import Call
from deployments.webhooks.configuration import Webhook
from deployments.webhooks.signatures import Headers, delivery_key, missing_header
from tasks.deliberations.event_mapping import Asked
from tasks.deliberations.submission import Terms, id_for, request_of

_audit = logging.getLogger("conclave.audit")


async def deliver(call: Call) -> web.StreamResponse:
    """Take a delivery: its signature first, then what it asks for, as any other request."""
    only(call)
    name = call.request.match_info["name"]
    webhook = call.service.webhooks.get(name)
    if webhook is None:
        raise Problem(404, "unknown-webhook", f"name: there is no webhook {name!r}; CONCLAVE_WEBHOOKS names the file")
    headers = _headers(call.request)
    if (missing := missing_header(webhook.signature, headers)) is not None:
        raise _unsigned(f"{missing} has to be there, once")
    body = await read_body(call.request, MAX_BYTES)
    key = await _key(webhook, headers, body)
    token = webhook.token
    call = replace(call, token=token, headers=await call.service.authentication.limit(token))
    asked = await _asked(webhook, body)
    if asked is None:
        _audit.info("%s passes over %s", token.id, key)
        return document(call, {"status": "passed over", "reason": "when: it does not hold for this payload"})
    by: IdBy = "delivery" if asked.id is None else "body"
    one = asked.id or id_for(token.owner, key)
    request = request_of(Terms(), asked.request, one, "webhook", datetime.now(UTC), token.owner)
    return await receipt(call, request, await accept(call, request, asked.request, by))


async def _key(webhook: Webhook, headers: Headers, body: bytes) -> str:
    """What tells the delivery from others. Raises Problem where nobody who may send has signed it."""
    secrets, _ = webhook.read_secrets()
    if not secrets:
        told = "this webhook's secret cannot be had; try again later"
        raise later(503, "secret-unavailable", told, RETRY_S)
    key = await beside(len(body), lambda: delivery_key(webhook.signature, secrets, headers, body))
    if key is None:
        raise _unsigned("another secret, body or id was signed, or it is too old")
    return key


def _unsigned(detail: str) -> Problem:
    return Problem(401, "bad-signature", f"the signature is not good: {detail}")


def _headers(request: web.Request) -> Headers:
    """The header fields that stand there once: of one that stands there twice nobody knows which was signed."""
    names = {name.lower() for name in request.headers}
    return {name: values[0] for name in names if len(values := request.headers.getall(name)) == 1}


async def _asked(webhook: Webhook, body: bytes) -> Asked | None:
    """What a delivery asks for; None where the webhook passes over it. Raises Problem and InvalidRequest."""
    try:
        return await asked_by(webhook.mapping, lambda: object_in(body))
    except TimeoutError:
        raise invalid("body", "body: this webhook's expressions take too long for it") from None
