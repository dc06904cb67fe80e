"""Signatures of webhooks: who may send, and which delivery it is.

Two forms are taken. Standard Webhooks (https://www.standardwebhooks.com): the delivery's id, its time and the body are
signed together. GitHub (https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries): only the body
is. So nothing but the body tells two of GitHub's deliveries apart that somebody may have heard and sends again.

A further one is a name in `Signature` and a `SignatureScheme` in `SCHEMES`, of which the spec of the API is made. Its
key has to be made of what is signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from standardwebhooks import Webhook as StandardWebhook

MAX_ID = 255
"""Characters of a delivery's id."""
STANDARD_BYTES = (24, 64)
"""Of a secret, as the standard has it."""
LEAST_GITHUB = 16
"""Characters of a secret."""

Signature = Literal["standard", "github"]
Headers = Mapping[str, str]
"""Header fields by their names in small letters."""


@dataclass(frozen=True)
class SignatureScheme:
    """One way to sign.

    `check(secret)` raises ValueError that says what a secret has to be, and shows none. `key(secret, headers, body)` is
    what tells a delivery from others where the secret signed it, else None. `sign(secret, delivery, now, body)` gives
    the header fields of a delivery.
    """

    headers: tuple[str, ...]
    check: Callable[[str], None]
    key: Callable[[str, Headers, bytes], str | None]
    sign: Callable[[str, str, datetime, bytes], dict[str, str]]


def check_secret(signature: Signature, secret: str) -> None:
    """Raise ValueError that says what a secret has to be, where this one is none."""
    SCHEMES[signature].check(secret)


def missing_header(signature: Signature, headers: Headers) -> str | None:
    """The first header field that a delivery has to carry and does not; None where it has all."""
    return next((name for name in SCHEMES[signature].headers if name not in headers), None)


def delivery_key(signature: Signature, secrets: Sequence[str], headers: Headers, body: bytes) -> str | None:
    """What tells a delivery from others, where one of the secrets signed it; None of what nobody signed.

    A delivery that comes again has the same key.
    """
    keys = (SCHEMES[signature].key(secret, headers, body) for secret in secrets)
    return next((key for key in keys if key is not None), None)


def signed(signature: Signature, secret: str, delivery: str, now: datetime, body: bytes) -> dict[str, str]:
    """The header fields of a delivery; `now` with its zone, and a body that is UTF-8."""
    return SCHEMES[signature].sign(secret, delivery, now, body)


# --- Standard Webhooks ----------------------------------------------------------------------------


def _check_standard(secret: str) -> None:
    least, most = STANDARD_BYTES
    try:
        found = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        found = b""
    if not least <= len(found) <= most:
        raise ValueError(f"is no secret of Standard Webhooks, which is whsec_ and {least} to {most} bytes in base64")


def _standard_key(secret: str, headers: Headers, body: bytes) -> str | None:
    delivery = headers.get("webhook-id", "")
    if not re.fullmatch(rf"[!-~]{{1,{MAX_ID}}}", delivery):
        return None
    try:
        StandardWebhook(secret).verify(body, dict(headers), json_parse=False)
    except Exception:  # noqa: BLE001  # hostile headers raise whatever base64, text and numbers raise
        return None
    return delivery


def _sign_standard(secret: str, delivery: str, now: datetime, body: bytes) -> dict[str, str]:
    now = now.astimezone(UTC)  # the library takes whatever it is given for UTC
    values = (delivery, str(int(now.timestamp())), StandardWebhook(secret).sign(delivery, now, body.decode()))
    return dict(zip(SCHEMES["standard"].headers, values, strict=True))


# --- GitHub ---------------------------------------------------------------------------------------


def _check_github(secret: str) -> None:
    if len(secret) < LEAST_GITHUB:
        raise ValueError(f"has fewer than {LEAST_GITHUB} characters")


def _github_key(secret: str, headers: Headers, body: bytes) -> str | None:
    given, wanted = headers.get("x-hub-signature-256", ""), _github_signature(secret, body)
    if not hmac.compare_digest(given.encode(errors="replace"), wanted.encode()):
        return None
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _sign_github(secret: str, delivery: str, _now: datetime, body: bytes) -> dict[str, str]:
    return {"x-hub-signature-256": _github_signature(secret, body), "x-github-delivery": delivery}


def _github_signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


SCHEMES: dict[Signature, SignatureScheme] = {
    "standard": SignatureScheme(
        ("webhook-id", "webhook-timestamp", "webhook-signature"), _check_standard, _standard_key, _sign_standard
    ),
    "github": SignatureScheme(("x-hub-signature-256",), _check_github, _github_key, _sign_github),
}
