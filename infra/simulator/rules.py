"""Rules that are put on under `/sim`: read from JSON, and refused with the field that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from infra.simulator.errors import ApiError, refused


def json_object(text: str | bytes, what: str, example: str) -> dict[str, Any]:
    """The JSON object in a text; raises ApiError (400) that says what `what` looks like."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refused(f"{what} must be a JSON object, such as {example}")
    return value


def refusal(problem: ErrorDetails, known: Iterable[str]) -> ApiError:
    """400 for a field, by its path, and what would be right; `known` are the fields beside an unknown one."""
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return refused(f"{field}: unknown; must be one of {', '.join(known)}", field)
    message = problem["msg"].removeprefix("Value error, ")
    field, message = (field, message) if field else (message.partition(":")[0], message.partition(": ")[2])
    return refused(f"{field}: {message}", field)
