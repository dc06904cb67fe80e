"""The webhooks that there are, from the operator's file (`CONCLAVE_WEBHOOKS`, docs/examples/webhooks.yaml)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from blocks.files import read_regular
from deployments.event_files import EventFileError, MappedEntry, mapping_of, read_event_file, require_own_names
from deployments.webhooks.signatures import Signature, check_secret
from tasks.access.tokens import Token
from tasks.deliberations.event_mapping import Mapping

MAX_SECRET = 4096
OWNER = "webhook."
"""Before the name of a webhook: the owner of what its deliveries ask for, which no token can be made for."""


class SecretError(Exception):
    """A secret cannot be had; the text names where it should be, and never the secret."""


class SecretReference(BaseModel):
    """Where a secret is: a variable of the gateway's environment, or a file that is read for each delivery."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("must be one of {env: NAME} and {file: PATH}")
        return self

    def __str__(self) -> str:
        return f"variable {self.env}" if self.env is not None else f"file {self.file}"

    def beside(self, folder: Path) -> Self:
        """The same, where a path that is not whole begins in this folder."""
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

    def read_secrets(self) -> list[str]:
        """The secrets as they are now. Raises SecretError that names the webhook."""
        found = []
        for reference in self.secrets:
            try:
                secret = reference.read()
                check_secret(self.signature, secret)
            except (SecretError, ValueError) as error:
                told = str(error) if isinstance(error, SecretError) else f"{reference} {error}"
                raise SecretError(f"webhook {self.name!r}: secrets: {told}") from None
            found.append(secret)
        return found

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
    """Raise EventFileError where a secret cannot be had, so that nobody learns of it by refused deliveries."""
    for webhook in webhooks.values():
        try:
            webhook.read_secrets()
        except SecretError as error:
            raise EventFileError(f"{path}: {error}") from None


def _webhook(path: Path, entry: _Entry) -> Webhook:
    mapping = mapping_of(path, "webhook", entry)
    secrets = tuple(reference.beside(path.absolute().parent) for reference in entry.secrets)
    return Webhook(entry.name, entry.signature, secrets, mapping, entry.sample)
