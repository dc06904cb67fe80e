"""What pydantic finds wrong with an input, as a field and a sentence: one way for requests, files and replies."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from tasks.council.base import NAME_PATTERN, NAME_RULE
from tasks.council.plain import SHOWN_INPUT, shortened


class Problem(NamedTuple):
    """One thing that is wrong: where, pydantic's name for its kind, what was given, and what is to be said."""

    path: tuple[str | int, ...]
    kind: str
    given: Any
    text: str

    @property
    def field(self) -> str:
        """The path as one name; empty for the whole."""
        return ".".join(str(part) for part in self.path)


SHAPES = {
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "an object, with names and values"),
}
"""What is wanted, by pydantic's name for what is wrong: its own words name types of Python."""


def problems(error: ValidationError) -> list[Problem]:
    """All that is wrong.

    The message of a rule over several fields begins with the one that is wrong, as `field: what would be right`.
    """
    return [_problem(item) for item in error.errors(include_url=False)]


def first_problem(error: ValidationError) -> Problem:
    """The first thing that is wrong."""
    return problems(error)[0]


def _problem(item: Any) -> Problem:
    path, kind, given = item["loc"], item["type"], item["input"]
    text = item["msg"].removeprefix("Value error, ")
    if not path and ": " in text:
        field, _, text = text.partition(": ")
        path = (field,)
    if kind == "string_pattern_mismatch" and item["ctx"]["pattern"] == NAME_PATTERN:
        text = f"{shortened(repr(given), SHOWN_INPUT)} is no name; one is {NAME_RULE}"
    elif kind in SHAPES:
        text = f"must be {SHAPES[kind]}"
    elif kind == "too_short":
        least = item["ctx"]["min_length"]
        text = f"must have at least {least} item{'s' * (least > 1)}"
    return Problem(path, kind, given, text)
