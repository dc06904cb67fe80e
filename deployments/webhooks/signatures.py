"""Signatures of webhooks: who may send, and which delivery it is.

Two forms are taken. Standard Webhooks (https://www.standardwebhooks.com): the delivery's id, its time and the body are
signed together. GitHub (https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries): only the body
is. So nothing but the body tells two of GitHub's deliveries apart that somebody may have heard and sends again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from standardwebhooks import Webhook as StandardWebhook

MAX_ID = 255
"""Characters of a delivery's id."""

Signature = Literal["standard", "github"]
Headers = Mapping[str, str]
"""Header fields by their names in small letters."""

STANDARD_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
GITHUB_HEADER = "x-hub-signature-256"
HEADERS: dict[Signature, tuple[str, ...]] = {
    "standard": STANDARD_HEADERS,
    "github": (GITHUB_HEADER, "x-github-delivery"),
}
"""What a delivery carries, by the form of its signature."""


def check_secret(signature: Signature, secret: str) -> None:
    """Raise ValueError that says what a secret has to be, where this one is none."""
    if signature == "github":
        if not secret:
            raise ValueError("is empty")
        return
    try:
        StandardWebhook(secret)
    except Exception:  # noqa: BLE001  # the library's own, and binascii's; none may show the secret
        raise ValueError("is no secret of Standard Webhooks, which is whsec_ and base64") from None


def delivery_key(signature: Signature, secrets: Sequence[str], headers: Headers, body: bytes) -> str | None:
    """What tells a delivery from others, where one of the secrets signed it; None of what nobody signed.

    A delivery that comes again has the same key.
    """
    key_of: Callable[..., str | None] = {"standard": _standard, "github": _github}[signature]
    for secret in secrets:
        if (key := key_of(secret, headers, body)) is not None:
            return key
    return None


def _standard(secret: str, headers: Headers, body: bytes) -> str | None:
    delivery = headers.get("webhook-id", "")
    if not re.fullmatch(rf"[!-~]{{1,{MAX_ID}}}", delivery):
        return None
    try:
        StandardWebhook(secret).verify(body, dict(headers), json_parse=False)
    except Exception:  # noqa: BLE001  # hostile headers raise whatever base64, text and numbers raise
        return None
    return delivery


def _github(secret: str, headers: Headers, body: bytes) -> str | None:
    given, wanted = headers.get(GITHUB_HEADER, ""), _github_signature(secret, body)
    if not hmac.compare_digest(given.encode(errors="replace"), wanted.encode()):
        return None
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _github_signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(signature: Signature, secret: str, delivery: str, now: datetime, body: bytes) -> dict[str, str]:
    """The header fields of a delivery; `now` with its zone, and a body that is UTF-8."""
    if signature == "github":
        return {GITHUB_HEADER: _github_signature(secret, body), "x-github-delivery": delivery}
    now = now.astimezone(UTC)  # the library takes whatever it is given for UTC
    values: Any = (delivery, str(int(now.timestamp())), StandardWebhook(secret).sign(delivery, now, body.decode()))
    return dict(zip(STANDARD_HEADERS, values, strict=True))
