"""Bearer tokens: made and shown once, kept as a digest, so that what is stored lets nobody in.

A token is `cnc_<id>_<secret>`: the id finds it among the keys `token.<id>` of the bucket `conclave-access`, the secret
has 256 random bits, so its SHA-256 needs no salt and no slow hash. All who share the record share the tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from blocks.record.events import Record
from tasks.access.texts import new_text, parts_of
from tasks.council.base import Frozen, Name
from tasks.council.exceptions import WrongUse
from tasks.council.problems import first_problem

Scope = Literal["submit", "read", "admin"]
"""submit: ask for deliberations, and see and cancel one's own; read: see everybody's; admin: that, and cancel it."""
SCOPES: tuple[Scope, ...] = ("submit", "read", "admin")
MAX_DAYS = 3650.0
MAX_OPEN = 10_000
KEY = "token."
HOME = "home"
"""The owner of a home's own token."""


class TokenError(WrongUse):
    """A token that cannot be made or found; the text names the field."""


class Token(Frozen):
    """What is known of a token, but for its secret."""

    id: str
    name: str = Field(min_length=1, max_length=100, description="Whom or what it is for.")
    owner: Name = Field(description="Whose deliberations are its own; a new token for the same owner keeps them.")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    digest: str = Field(description="SHA-256 of the secret, hex.")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    councils: tuple[Name, ...] | None = Field(None, description="The only ones that may be asked; None: all.")
    tokens_a_day: int | None = Field(None, ge=1, description="Model tokens that its owner may use in a day (UTC).")
    at_once: int | None = Field(
        None, ge=1, le=MAX_OPEN, description="Deliberations that its owner may have open, which one key lists."
    )

    def may(self, scope: Scope) -> bool:
        """Whether it has the right; an admin has all."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether deliberations of other owners are shown to it."""
        return self.may("read")

    def may_ask(self, council: str) -> bool:
        """Whether it may ask this council."""
        return self.councils is None or council in self.councils

    def has_expired(self, now: datetime) -> bool:
        """Whether it lets nobody in any more."""
        return self.expires_at is not None and now >= self.expires_at


def make(
    name: str,
    scopes: tuple[Scope, ...],
    owner: str | None = None,
    days: float | None = None,
    councils: tuple[str, ...] | None = None,
    tokens_a_day: int | None = None,
    at_once: int | None = None,
) -> tuple[Token, str]:
    """A new token and its text, which nobody can be told again. Raises TokenError that names the field."""
    if days is not None and not 0 < days <= MAX_DAYS:
        raise TokenError(f"expires: {days:g} days cannot be; more than 0 and at most {MAX_DAYS:g}")
    text, now = new_text(), datetime.now(UTC)
    token_id, secret = _parts(text)
    try:
        token = Token.model_validate(
            {
                "id": token_id,
                "name": name,
                "owner": owner or token_id,
                "scopes": scopes,
                "digest": digest_of(secret),
                "created_at": now,
                "expires_at": None if days is None else now + timedelta(days=days),
                "councils": councils or None,
                "tokens_a_day": tokens_a_day,
                "at_once": at_once,
            }
        )
    except ValidationError as error:
        problem = first_problem(error)
        raise TokenError(f"{problem.field}: {problem.text}") from None
    return token, text


def known(text: str, name: str, owner: str, scopes: tuple[Scope, ...]) -> Token:
    """The token of a text that somebody made before, as `conclave up` does. Raises TokenError."""
    token_id, secret = _parts(text)
    made_at = datetime.now(UTC)
    return Token(id=token_id, name=name, owner=owner, scopes=scopes, digest=digest_of(secret), created_at=made_at)


def _parts(text: str) -> tuple[str, str]:
    parts = parts_of(text)
    if parts is None:
        raise TokenError("token: it is not of the form cnc_<id>_<secret>")
    return parts


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def opens(token: Token, secret: str) -> bool:
    """Whether a secret is this token's, in a time that says nothing of it."""
    return hmac.compare_digest(token.digest, digest_of(secret))


async def keep(record: Record, token: Token) -> None:
    """Let a token count. Raises RecordError."""
    await record.access.put(f"{KEY}{token.id}", token.model_dump(mode="json"))


async def read(record: Record, token_id: str) -> Token | None:
    """A token by its id; None where there is none that can be read. Raises RecordError."""
    body = await record.access.read(f"{KEY}{token_id}")
    try:
        return Token.from_record(body) if body else None
    except ValidationError:
        return None


async def listed(record: Record) -> list[Token]:
    """All tokens, the oldest first. Raises RecordError."""
    names = [name.removeprefix(KEY) for name in await record.access.names(KEY)]
    found = [token for name in names if (token := await read(record, name)) is not None]
    return sorted(found, key=lambda token: token.created_at)


async def revoke(record: Record, token_id: str) -> Token:
    """Let a token count no more. Raises TokenError where there is none, and RecordError."""
    token = await read(record, token_id) if re.fullmatch(r"[a-z0-9]{12}", token_id) else None
    if token is None:
        raise TokenError(f"id: there is no token {token_id[:40]!r}; `conclave tokens list` shows them")
    await record.access.delete(f"{KEY}{token_id}")
    return token
