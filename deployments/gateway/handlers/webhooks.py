"""Webhooks: a signed delivery of somebody else's becomes a deliberation."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from deployments.event_files import MAX_BYTES, asked_by
from deployments.gateway.bodies import object_in, read_body
from deployments.gateway.handlers.answers import document, only
from deployments.gateway.handlers.deliberations import IdBy, accept
from deployments.gateway.problems import RETRY_S, Problem, invalid, later
from deployments.gateway.routes import Call
from deployments.webhooks.configuration import SecretError, Webhook
from deployments.webhooks.signatures import HEADERS, Headers, delivery_key
from tasks.deliberations.event_mapping import Asked
from tasks.deliberations.submission import Terms, id_for, request_of

_audit = logging.getLogger("conclave.audit")
_log = logging.getLogger("conclave.gateway")


async def deliver(call: Call) -> web.StreamResponse:
    """Take a delivery: its signature first, then what it asks for, as any other request."""
    only(call)
    name = call.request.match_info["name"]
    webhook = call.service.webhooks.get(name)
    if webhook is None:
        raise Problem(404, "unknown-webhook", f"name: there is no webhook {name!r}; CONCLAVE_WEBHOOKS names the file")
    body = await read_body(call.request, MAX_BYTES)
    key = _key(call, webhook, body)
    token = webhook.token
    call = replace(call, token=token, headers=await call.service.authentication.limit(token))
    asked = await _asked(webhook, body)
    if asked is None:
        _audit.info("%s passes over %s", token.id, key)
        return document(call, {"status": "passed over", "reason": "when: it does not hold for this payload"})
    by: IdBy = "key" if asked.id is None else "body"
    one = asked.id or id_for(token.owner, key)
    request = request_of(Terms(), asked.request, one, "webhook", datetime.now(UTC), token.owner)
    return await accept(call, request, asked.request, by)


def _key(call: Call, webhook: Webhook, body: bytes) -> str:
    """What tells the delivery from others. Raises Problem where nobody who may send has signed it."""
    try:
        secrets = webhook.read_secrets()
    except SecretError as error:
        _log.error("%s", error)
        raise later(
            503, "secret-unavailable", "this webhook's secret cannot be had; try again later", RETRY_S
        ) from None
    key = delivery_key(webhook.signature, secrets, _headers(call.request), body)
    if key is None:
        names = ", ".join(HEADERS[webhook.signature])
        raise Problem(401, "bad-signature", f"the signature is not good: {names} have to be there, signed a moment ago")
    return key


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
