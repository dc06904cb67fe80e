"""Values of typed formats as what they would be in JSONL: texts, numbers, truth values, lists and objects."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_jsonable_python

from tasks.batch.json_records import Written
from tasks.batch.records import MAX_RECORD, Fault, too_large
from tasks.council.exceptions import WrongUse


class UnusableCell(WrongUse):
    """A value that nothing in JSON is; the text says what it is."""


def as_json(value: Any) -> Any:
    """The value as JSON has it: dates and times as ISO 8601, a decimal as a number that knows how it is written.

    Raises UnusableCell for bytes, for what is no number, and for what is unknown.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, dict):
        return {_key(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return _as_text(value)


def characters(value: Any) -> int:
    """Characters of the texts in a JSON value; ten for each other one."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(characters, value))
    if isinstance(value, dict):
        return sum(map(characters, (*value, *value.values())))
    return 10


class Cells(NamedTuple):
    """The values of a row as JSON, as far as they can be, and why the row cannot be asked, where it cannot."""

    values: dict[str, Any]
    fault: Fault | None = None


def row_of(values: dict[str, Any], fault: Fault | None = None) -> Cells:
    """A row of values; its first fault is that which is given, a value that is no JSON, or that they are too many."""
    found = {}
    for column, value in values.items():
        try:
            found[column] = as_json(value)
        except UnusableCell as error:
            fault = fault or Fault(column, "is no text", str(error))
    size = sum(map(characters, found.values()))
    return Cells({}, too_large(size)) if size > MAX_RECORD else Cells(found, fault)


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise UnusableCell(f"is {value}, which is no number")


def _key(key: Any) -> str:
    """The name of a field; a map may have other keys than texts."""
    key = as_json(key)
    return key if isinstance(key, str) else str(getattr(key, "text", key))


def _as_text(value: Any) -> Any:
    if isinstance(value, Decimal):
        return Written(_decimal(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | UUID):
        return to_jsonable_python(value)
    if isinstance(value, bytes):
        raise UnusableCell(f"has {len(value):,} bytes, which are no text")
    raise UnusableCell(f"is a {type(value).__name__}, which is no text")


def _decimal(value: Decimal) -> str:
    if value.is_finite():
        return f"{value:f}"
    raise UnusableCell(f"is {value}, which is no number")
