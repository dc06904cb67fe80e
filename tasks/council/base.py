"""What every model of the domain is made of: names, text, JSON, the frozen base, and a digest."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
NAME_RULE = "1 to 64 of A-Z, a-z, 0-9, '_' and '-'"
MAX_TEXT = 100_000
"""Characters in one task, rubric or requirement; about 25 000 tokens."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""An id that becomes a NATS subject token: of a deliberation, an item, a council or a member."""


def _plain_json(value: dict[str, Any]) -> dict[str, Any]:
    """The value, if it is JSON that every reader can take."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON object of sound text and finite numbers: {error}") from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_plain_json)]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)]


class Frozen(BaseModel):
    """Base of every model here: immutable, and an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_record(cls, body: Any) -> Self:
        """The model from a body on the record or in the queue; fields that a later version wrote are passed over.

        Raises ValidationError.
        """
        return cls.model_validate(body, extra="ignore")


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
