"""Webhooks: a signed delivery of somebody else's becomes a deliberation.

Who sends has no token, and a delivery may be overheard: so nothing is told of what became of it but its id and status,
and what is not signed costs as little as can be.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from tenacity import AsyncRetrying, retry_if_exception, wait_fixed

from blocks.exceptions import GitHubError
from deployments.event_files import MAX_BYTES, asked_by
from deployments.gateway.acceptance import IdBy, accept
from deployments.gateway.bodies import beside, object_in, read_body
from deployments.gateway.handlers.answers import document, only
from deployments.gateway.handlers.deliberations import receipt
from deployments.gateway.problems import RETRY_S, Problem, invalid, later
from deployments.gateway.routes import Call
from deployments.webhooks.configuration import Webhook
from deployments.webhooks.github_events import Access, Event, not_let_in
from deployments.webhooks.secret_references import SecretError
from deployments.webhooks.signatures import Headers, delivery_key, missing_header
from tasks.callbacks.targets import Target
from tasks.deliberations.event_mapping import Asked
from tasks.deliberations.submission import Terms, id_for, request_of

ASK_S = 8.0
"""How long GitHub may take to say who may write; it waits 10 s for the answer to a delivery."""
ASK_AGAIN_S = 1.0
Payload = dict[str, Any]
_log = logging.getLogger("conclave.gateway")
_audit = logging.getLogger("conclave.audit")


async def deliver(call: Call) -> web.StreamResponse:
    """Take a delivery: its signature first, then what it asks for, as any other request."""
    only(call)
    name = call.request.match_info["name"]
    webhook = call.service.webhooks.get(name)
    if webhook is None:
        raise Problem(
            404,
            "unknown-webhook",
            f"name: there is no webhook {name!r}; CONCLAVE_WEBHOOKS names the file, which is read once",
        )
    headers = _headers(call.request)
    if (missing := missing_header(webhook.signature, headers)) is not None:
        raise _unsigned(f"{missing} has to be there, once")
    body = await read_body(call.request, MAX_BYTES)
    key = await _key(webhook, headers, body)
    token = webhook.token
    call = replace(call, token=token, headers=await call.service.authentication.limit(token))
    asked, payload = await _asked(webhook, body)
    if asked is None:
        return _passed_over(call, key, "when: it does not hold for this payload")
    told: list[Target] = []
    if webhook.github is not None:
        event = Event.read(payload)
        if not await _lets_in(webhook.github, event):
            return _passed_over(call, key, not_let_in(webhook.github, event))
        told = webhook.github.targets(event)
    by: IdBy = "delivery" if asked.id is None else "body"
    one = asked.id or id_for(call.service.record.installation, token.owner, key)
    request = request_of(Terms(), asked.request, one, "webhook", datetime.now(UTC), token.owner)
    return await receipt(call, request, await accept(call.service, token, request, asked.request, by, told))


def _passed_over(call: Call, key: str, reason: str) -> web.Response:
    _audit.info("%s passes over %s: %s", call.token.id, key, reason)
    return document(call, {"status": "passed over", "reason": reason})


async def _lets_in(github: Access, event: Event) -> bool:
    """Whether who sent it may convene a council, as GitHub says. Raises Problem where that cannot be learned now.

    GitHub does not deliver again by itself, so it is asked a few times within what it waits for an answer.
    """
    asking = AsyncRetrying(retry=retry_if_exception(_may_pass), wait=wait_fixed(ASK_AGAIN_S), reraise=True)
    try:
        async with asyncio.timeout(ASK_S):
            return bool(await asking(github.lets_in, event))
    except SecretError as error:
        _log.warning("webhook %r: github.token: %s", github.webhook, error)
        raise later(503, "secret-unavailable", "this webhook's token for GitHub cannot be had", RETRY_S) from None
    except (GitHubError, TimeoutError) as error:
        told = str(error) or f"no answer within {ASK_S:g} s"
        _log.warning("webhook %r: who may write cannot be learned: %s", github.webhook, told)
    told = "GitHub does not say who may write to the repository; deliver it again later"
    raise later(503, "github-unavailable", told, RETRY_S)


def _may_pass(error: BaseException) -> bool:
    """Whether GitHub may answer otherwise in a moment."""
    return isinstance(error, GitHubError) and (error.status is None or error.status >= 500)


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


async def _asked(webhook: Webhook, body: bytes) -> tuple[Asked | None, Payload]:
    """What a delivery asks for, None where the webhook passes over it, and what it brought.

    Raises Problem and InvalidRequest.
    """
    payload: Payload = {}

    def read() -> Payload:
        payload.update(object_in(body))
        return payload

    try:
        return await asked_by(webhook.mapping, read), payload
    except TimeoutError:
        raise invalid("body", "body: this webhook's expressions take too long for it") from None
