"""The webhooks that there are, from the operator's file (`CONCLAVE_WEBHOOKS`, docs/examples/webhooks.yaml)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from deployments.event_files import EventFileError, MappedEntry, mapping_of, read_event_file, require_own_names
from deployments.webhooks.github_events import Access, GitHubEntry
from deployments.webhooks.secret_references import SecretError, SecretReference
from deployments.webhooks.signatures import Signature, check_secret
from tasks.access.tokens import MAX_OPEN, Token
from tasks.council.base import Name
from tasks.deliberations.event_mapping import Mapping

OWNER = "webhook."
"""Before the name of a webhook: the owner of what its deliveries ask for, which no token can be made for."""


class Limits(BaseModel):
    """What a webhook's deliveries may ask for together; the limits that a token has, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    councils: tuple[Name, ...] | None = Field(None, min_length=1)
    tokens_a_day: int | None = Field(None, ge=1)
    at_once: int | None = Field(None, ge=1, le=MAX_OPEN)


class _Entry(MappedEntry):
    """One webhook as it stands in the file."""

    signature: Signature
    secrets: tuple[SecretReference, ...] = Field(min_length=1, max_length=2)
    github: GitHubEntry | None = None
    limits: Limits = Limits()
    sample: dict[str, Any] | None = None

    @field_validator("sample")
    @classmethod
    def _is_json(cls, sample: Any) -> Any:
        try:
            json.dumps(sample, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError("is no JSON: dates and the like have to stand in quotes") from None
        return sample


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    webhooks: tuple[_Entry, ...] = Field(min_length=1, max_length=100)


@dataclass(frozen=True)
class Webhook:
    """Who may send, and how what is sent becomes a request.

    `secrets`: two while one takes the place of the other. `github`: how its answers go back there, and who may send.
    `limits`: of all its deliveries together. `sample`: a payload to try it with.
    """

    name: str
    signature: Signature
    secrets: tuple[SecretReference, ...]
    mapping: Mapping
    github: Access | None
    limits: Limits
    sample: dict[str, Any] | None

    def read_secrets(self) -> tuple[list[str], list[SecretError]]:
        """The secrets that can be had now, and why others cannot."""
        found: list[str] = []
        problems: list[SecretError] = []
        for reference in self.secrets:
            try:
                secret = reference.read()
                check_secret(self.signature, secret)
            except SecretError as error:
                problems.append(SecretError(f"webhook {self.name!r}: secrets: {error}"))
            except ValueError as error:
                problems.append(SecretError(f"webhook {self.name!r}: secrets: {reference} {error}"))
            else:
                found.append(secret)
        return found, problems

    def problems(self) -> list[SecretError]:
        """Why secrets cannot be had, that of GitHub's API among them."""
        return [*self.read_secrets()[1], *self.github_problems()]

    def github_problems(self) -> list[SecretError]:
        """Why its token for GitHub's API cannot be had."""
        try:
            if self.github is not None:
                self.github.api()
        except SecretError as error:
            return [SecretError(f"webhook {self.name!r}: github.token: {error}")]
        return []

    @property
    def references(self) -> tuple[SecretReference, ...]:
        """All secrets that the gateway needs for it."""
        token = self.github.entry.token if self.github is not None else None
        return self.secrets if token is None else (*self.secrets, token)

    @property
    def token(self) -> Token:
        """Who asks by it: an owner of its own, with these limits."""
        who, now, limits = OWNER + self.name, datetime.now(UTC), dict(self.limits)
        return Token.model_construct(
            id=who, name=who, owner=who, scopes=("submit",), digest="", created_at=now, **limits
        )


def read_webhooks(path: Path) -> dict[str, Webhook]:
    """The webhooks of a file, by name. Raises EventFileError."""
    entries = read_event_file(path, _File).webhooks
    require_own_names(path, "webhooks", entries)
    return {entry.name: _webhook(path, entry) for entry in entries}


def require_secrets(path: Path, webhooks: dict[str, Webhook]) -> None:
    """Raise EventFileError where a webhook has no secret, so that nobody learns of it by refused deliveries.

    One of two may be away: it is about to come, or to go.
    """
    for webhook in webhooks.values():
        found, problems = webhook.read_secrets()
        problems = problems[:1] if not found else []
        if problems := [*problems, *webhook.github_problems()]:
            raise EventFileError(f"{path}: {problems[0]}")


def problems_of(webhooks: dict[str, Webhook]) -> list[SecretError]:
    """Why secrets cannot be had, of all webhooks."""
    return list(chain.from_iterable(webhook.problems() for webhook in webhooks.values()))


def _webhook(path: Path, entry: _Entry) -> Webhook:
    mapping = mapping_of(path, "webhook", entry)
    folder = path.resolve().parent
    try:
        secrets = tuple(reference.beside(folder) for reference in entry.secrets)
        github = None if entry.github is None else Access(entry.name, entry.github.beside(folder))
    except RuntimeError as error:
        raise EventFileError(f"{path}: webhook {entry.name!r}: secrets: {error}") from None
    return Webhook(entry.name, entry.signature, secrets, mapping, github, entry.limits, entry.sample)
