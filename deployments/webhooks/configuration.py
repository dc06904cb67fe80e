"""The webhooks that there are, from the operator's file (`CONCLAVE_WEBHOOKS`, docs/examples/webhooks.yaml)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from blocks.files import read_regular
from deployments.event_files import EventFileError, MappedEntry, mapping_of, read_event_file, require_own_names
from deployments.webhooks.signatures import Signature, check_secret
from tasks.access.tokens import Token
from tasks.council.exceptions import WrongUse
from tasks.deliberations.event_mapping import Mapping

MAX_SECRET = 4096
OWNER = "webhook."
"""Before the name of a webhook: the owner of what its deliveries ask for, which no token can be made for."""


class SecretError(WrongUse):
    """A secret cannot be had; the text names where it should be, and never the secret."""


class SecretReference(BaseModel):
    """Where a secret is: a variable of the gateway's environment, or a file that is read for each delivery."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, given: Any) -> Any:
        if not isinstance(given, dict) or set(given) not in ({"env"}, {"file"}):  # what stands there may be the secret
            raise ValueError("must be one of {env: NAME} and {file: PATH}")
        return given

    def __str__(self) -> str:
        return f"variable {self.env}" if self.env is not None else f"file {self.file}"

    def beside(self, folder: Path) -> Self:
        """The same, where a path that is not whole begins in this folder. Raises RuntimeError for a `~` of nobody."""
        return self if self.file is None else self.model_copy(update={"file": folder / self.file.expanduser()})

    def read(self) -> str:
        """The secret, without a line break at its end. Raises SecretError."""
        if self.file is None:
            text = os.environ.get(self.env or "", "")
            if not text:
                raise SecretError(f"{self} is not set")
            return text.strip()
        try:
            return read_regular(self.file, MAX_SECRET).decode().strip()
        except OSError as error:
            raise SecretError(f"{self}: {error.strerror or error}") from error
        except UnicodeDecodeError:
            raise SecretError(f"{self}: it is no text") from None


class _Entry(MappedEntry):
    """One webhook as it stands in the file."""

    signature: Signature
    secrets: tuple[SecretReference, ...] = Field(min_length=1, max_length=2)
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

    `secrets`: two while one takes the place of the other. `sample`: a payload to try it with.
    """

    name: str
    signature: Signature
    secrets: tuple[SecretReference, ...]
    mapping: Mapping
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

    @property
    def token(self) -> Token:
        """Who asks by it: an owner of its own, who may ask every council."""
        who, now = OWNER + self.name, datetime.now(UTC)
        return Token.model_construct(id=who, name=who, owner=who, scopes=("submit",), digest="", created_at=now)


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
        if not found:
            raise EventFileError(f"{path}: {problems[0]}")


def problems_of(webhooks: dict[str, Webhook]) -> list[SecretError]:
    """Why secrets cannot be had, of all webhooks."""
    return list(chain.from_iterable(webhook.read_secrets()[1] for webhook in webhooks.values()))


def _webhook(path: Path, entry: _Entry) -> Webhook:
    mapping = mapping_of(path, "webhook", entry)
    try:
        secrets = tuple(reference.beside(path.resolve().parent) for reference in entry.secrets)
    except RuntimeError as error:
        raise EventFileError(f"{path}: webhook {entry.name!r}: secrets: {error}") from None
    return Webhook(entry.name, entry.signature, secrets, mapping, entry.sample)
