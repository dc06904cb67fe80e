"""Secrets by reference: a file of webhooks says where they are, and has none in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from blocks.files import read_regular
from tasks.council.exceptions import WrongUse

MAX_SECRET = 4096


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
