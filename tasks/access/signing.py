"""Secrets that callbacks are signed with: one for each owner of tokens, two while one takes the place of the other.

A receiver has to have the secret, so it is shown once, when it is made; it is kept in the bucket `conclave-access`
under `signing.<owner>`, as it is needed for each signature. Its form is that of Standard Webhooks.
"""

from __future__ import annotations

import base64
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import AwareDatetime, Field, ValidationError

from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.council.base import NAME_PATTERN, NAME_RULE, Frozen
from tasks.council.exceptions import WrongUse

KEY = "signing."
PREFIX = "whsec_"
BYTES = 32
MOST = 2
"""Secrets of an owner that count at a time."""


class SigningError(WrongUse):
    """A secret that cannot be made or found; the text names the field, and never the secret."""


class SigningSecret(Frozen):
    """A secret of an owner's."""

    id: str
    secret: str = Field(repr=False)
    created_at: AwareDatetime


async def create(record: Record, owner: str) -> SigningSecret:
    """A new secret of this owner's, which counts from now on. Raises SigningError where it has two, and RecordError."""
    if re.fullmatch(NAME_PATTERN, owner) is None:
        raise SigningError(f"owner: {owner[:80]!r} is none; one is {NAME_RULE}")
    text = PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()
    made = SigningSecret(id=secrets.token_hex(6), secret=text, created_at=datetime.now(UTC))

    def added(body: Body | None) -> Body | None:
        standing = _read(body)
        return None if len(standing) >= MOST else _body([*standing, made])

    if not await record.access.change(KEY + owner, added):
        oldest = next((one.id for one in await secrets_of(record, owner)), "ID")
        told = f"owner: {owner!r} has {MOST} secrets; `conclave secrets revoke {oldest}` takes the older one away"
        raise SigningError(told)
    return made


async def secrets_of(record: Record, owner: str) -> list[SigningSecret]:
    """The secrets of an owner, the oldest first. Raises RecordError."""
    return _read(await record.access.read(KEY + owner))


async def listed(record: Record) -> dict[str, list[SigningSecret]]:
    """All secrets, by their owners. Raises RecordError."""
    owners = [name.removeprefix(KEY) for name in await record.access.names(KEY)]
    found = {owner: await secrets_of(record, owner) for owner in owners}
    return {owner: secrets for owner, secrets in found.items() if secrets}


async def revoke(record: Record, secret_id: str) -> str:
    """Let a secret count no more; whose it was. Raises SigningError where there is none, and RecordError."""
    for owner, found in (await listed(record)).items():
        if secret_id in {secret.id for secret in found}:
            await record.access.change(KEY + owner, lambda body: _without(body, secret_id))
            return owner
    raise SigningError(f"id: there is no secret {secret_id[:40]!r}; `conclave secrets list` shows them")


def _without(body: Body | None, secret_id: str) -> Body:
    return _body([secret for secret in _read(body) if secret.id != secret_id])


def _body(found: list[SigningSecret]) -> Body:
    return {"secrets": [secret.model_dump(mode="json") for secret in found]}


def _read(body: Body | None) -> list[SigningSecret]:
    """The secrets of a key; one that cannot be read is passed over."""
    found = (body or {}).get("secrets")
    read = []
    for one in found if isinstance(found, list) else ():
        with suppress(ValidationError):
            read.append(SigningSecret.from_record(one))
    return read
