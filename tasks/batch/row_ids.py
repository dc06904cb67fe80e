"""Ids of rows: any text of the file's, as it is written; and the ids that their items have, which become names."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from tasks.batch.json_records import Written
from tasks.batch.records import BatchFileError, Fault
from tasks.council.base import NAME_PATTERN
from tasks.council.plain import SHOWN_INPUT, shortened

MAX_ID = 512
"""Characters of a row's id."""
_MADE = re.compile(r"r[0-9]+-[0-9a-f]{8}")
"""Ids that are made here: a row that has such a one gets another, so that no two items have the same."""


def number_text(value: int | float) -> str:
    """A number of JSON as it is written in the file."""
    return value.text if isinstance(value, Written) else str(value)


def row_id(value: Any) -> str | Fault | None:
    """The id of a row: its value as text; None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return Fault("id", "is no text", "has to be a text or a number")
    text = value if isinstance(value, str) else number_text(value)
    if len(text) > MAX_ID:
        return Fault("id", "is too long", f"has {len(text):,} characters; {MAX_ID} are taken")
    if "\0" in text:
        return Fault("id", "has a NUL", "has a NUL character in it")
    return text


def item_id(given: str, number: int) -> str:
    """The id of a row's item: the row's own where it can be a name, else one that is made of its number and id."""
    if re.fullmatch(NAME_PATTERN, given) and not _MADE.fullmatch(given):
        return given
    return _made(given, number)


class RowIds:
    """The ids until now: of each a digest and the line, so that many rows fit in memory.

    A row without an id has its number for one, which is no duplicate of an id that another row has.
    """

    def __init__(self, source: str, place: str, keep_duplicates: bool) -> None:
        self._source, self._place, self._keep = source, place, keep_duplicates
        self._lines: dict[bytes, int] = {}
        self._numbered: set[str] = set()

    def numbered(self, number: int) -> str:
        """The id of the item of a row that has none: its number, or a made one where that is the id of another."""
        name = str(number)
        if _digest(name) in self._lines:
            return _made(name, number)
        self._numbered.add(name)
        return name

    def taken(self, given: str, line: int, number: int) -> str:
        """The id of the item of the row there. Raises BatchFileError where an earlier row has it."""
        first = self._lines.setdefault(_digest(given), line)
        if first == line:
            return _made(given, number) if given in self._numbered else item_id(given, number)
        if not self._keep:
            shown = shortened(repr(given), SHOWN_INPUT)
            told = f"is the id of {self._place} {first} already; `--duplicate-ids keep` takes both"
            raise BatchFileError(f"{self._source} {self._place} {line}: id: {shown} {told}")
        return _made(given, number)


def _digest(given: str) -> bytes:
    return hashlib.sha256(given.encode()).digest()[:16]


def _made(given: str, number: int) -> str:
    return f"r{number}-{hashlib.sha256(given.encode()).hexdigest()[:8]}"
