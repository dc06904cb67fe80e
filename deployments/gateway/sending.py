"""One try of a delivery, by the kind of its target; time is bounded by whoever asks for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import aiohttp

from blocks.exceptions import GitHubError
from blocks.github_api import GitHub
from blocks.public_http import REFUSED, Networks
from blocks.record.events import Record
from blocks.refusals import retry_after_s
from deployments.webhooks.github_events import Access
from deployments.webhooks.secret_references import SecretError
from deployments.webhooks.signatures import SCHEMES, signed
from tasks.access.signing import secrets_of
from tasks.callbacks.bodies import callback_body
from tasks.callbacks.deliveries import Delivery, Try, Verdict, failed
from tasks.callbacks.github_texts import comment_of, mark_of, status_of_commit
from tasks.callbacks.targets import CommentTarget, StatusTarget, UrlTarget

GONE = 410
LOOK_BACK = timedelta(minutes=5)
"""How long before its delivery was made a comment of ours is looked for: GitHub's clock is another."""
Answered = tuple[Try, float | None]
"""A try, and the pause in seconds that its target asked for."""
Send = Callable[[Delivery], Awaitable[Answered]]


@dataclass(frozen=True)
class CallbackSettings:
    """Under which address the gateway is known, and which networks callbacks may go to besides the whole internet."""

    public_url: str
    networks: Networks


class Sender:
    """Sends what is due to its target, and says what became of it. Raises RecordError where that cannot be read."""

    def __init__(
        self, record: Record, settings: CallbackSettings, github: dict[str, Access], session: aiohttp.ClientSession
    ) -> None:
        self._record, self._settings, self._github, self._session = record, settings, github, session

    async def send(self, delivery: Delivery) -> Answered:
        """One try. Raises TimeoutError where whoever called bounds it."""
        now = datetime.now(UTC)
        try:
            match delivery.target:
                case UrlTarget() as target:
                    return await self._post(delivery, target)
                case CommentTarget() as target:
                    return await self._comment(delivery, target)
                case StatusTarget() as target:
                    return await self._set_status(delivery, target)
        except GitHubError as error:
            return failed(now, str(error), error.status, _unanswered(error.status)), error.retry_after_s
        except SecretError as error:
            return failed(now, str(error)), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return failed(now, _reason(error)), None

    async def _post(self, delivery: Delivery, target: UrlTarget) -> Answered:
        """To a URL, signed by each of its owner's secrets."""
        now = datetime.now(UTC)
        secrets = await secrets_of(self._record, target.secrets_of)
        if not secrets:
            told = f"there is no secret to sign with: `conclave secrets create {target.secrets_of}` makes one"
            return failed(now, told), None
        body = await callback_body(self._record, delivery.deliberation, self._settings.public_url)
        if body is None:
            return failed(now, "the end is no longer on the record", verdict="gone"), None
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"conclave/{version('conclave')}",
            **_signed_by_each([one.secret for one in secrets], delivery.id, now, body),
        }
        async with self._session.post(target.url, data=body, headers=headers, allow_redirects=False) as answer:
            return _verdict(now, answer.status), retry_after_s(answer.headers)

    async def _comment(self, delivery: Delivery, target: CommentTarget) -> Answered:
        """One comment, also where a try before had written it and did not come to say so."""
        now, api = datetime.now(UTC), self._api(target.webhook)
        mark, since = mark_of(delivery.deliberation, self._record.installation), delivery.created_at - LOOK_BACK
        if not await api.has_comment(target.repository, target.number, mark, since):
            text = await comment_of(self._record, delivery.deliberation, self._settings.public_url)
            await api.comment(target.repository, target.number, text)
        return Try(at=now, verdict="delivered"), None

    async def _set_status(self, delivery: Delivery, target: StatusTarget) -> Answered:
        now, api = datetime.now(UTC), self._api(target.webhook)
        state, told, link = await status_of_commit(self._record, delivery.deliberation, self._settings.public_url)
        context = f"conclave/{target.webhook}"
        await api.set_status(target.repository, target.sha, state, context, told, link)
        return Try(at=now, verdict="delivered"), None

    def _api(self, webhook: str) -> GitHub:
        """The API by the access of a webhook. Raises SecretError where it has none any more."""
        access = self._github.get(webhook)
        api = access.api() if access is not None else None
        if api is None:
            raise SecretError(f"webhook {webhook!r} has no token for GitHub in the file of CONCLAVE_WEBHOOKS")
        return api


def _signed_by_each(secrets: list[str], delivery: str, now: datetime, body: bytes) -> dict[str, str]:
    """The header fields of Standard Webhooks, with a signature by each secret."""
    *_, signature = SCHEMES["standard"].headers
    all_ = [signed("standard", secret, delivery, now, body) for secret in secrets]
    return {**all_[0], signature: " ".join(headers[signature] for headers in all_)}


def _verdict(now: datetime, status: int) -> Try:
    """What a status means: 2xx arrived, 410 wants no more, and all others are to be tried again, 3xx among them."""
    if 200 <= status < 300:
        return Try(at=now, verdict="delivered", status=status)
    redirected = ": redirects are not followed" if 300 <= status < 400 else ""
    return failed(now, f"HTTP {status}{redirected}", status, _unanswered(status))


def _reason(error: Exception) -> str:
    """Why nothing was answered, in words that tell nothing of what is inside: whoever asked may not know that."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror) or REFUSED in str(cause):
        return "the name has no address that may be told; CONCLAVE_CALLBACK_NETWORKS names further networks"
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return "no connection: its certificate, or TLS, is not good"
    if isinstance(error, aiohttp.ClientConnectionError):
        number = getattr(cause, "errno", None)
        return f"no connection: {os.strerror(number) if number else 'it was closed'}"
    return "what answers there is no HTTP"


def _unanswered(status: int | None) -> Verdict:
    return "gone" if status == GONE else "failed"
