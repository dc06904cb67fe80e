"""What of a simulator's pace can be changed while it runs: a server that is scaled, or that others use, too."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.simulator.rules import json_object, refusal

EXAMPLE = '{"slots": 32, "latency_s": 2}'


class Pacing(BaseModel):
    """Slots, and seconds for every answer; what is not named stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int | None = Field(None, ge=1, description="Requests that are answered at once.")
    latency_s: float | None = Field(None, ge=0, description="Seconds for every answer, whatever its length.")


def parse_pacing(text: str | bytes) -> Pacing:
    """The pace from JSON; raises ApiError (400) that names the field and what would be right."""
    given = json_object(text, "the pace", EXAMPLE)
    try:
        return Pacing.model_validate(given)
    except ValidationError as error:
        raise refusal(error.errors()[0], Pacing.model_fields) from error
