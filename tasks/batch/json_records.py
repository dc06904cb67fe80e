"""Records of a JSONL file: one JSON object on each line; numbers keep the text that they are written with."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from tasks.batch.lines import Line, Lines
from tasks.batch.records import MAX_RECORD, BatchFileError, Fault, Record, too_large
from tasks.council.plain import SHOWN_INPUT, one_line

MAX_COLUMNS = 1_000
"""Names of columns that are kept of a file, whose lines may have others each."""
_BLANK = " \t\r\n"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""An escape of JSON: two halves that make a character, a lone one, or another."""


class Written(float):
    """A number that knows how it was written: `1.10` and `1e5` are texts of ids."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Twice(ValueError):
    """A key stands in an object twice."""


class JsonRecords:
    """The records of a JSONL file. Lines end at a line feed alone: U+2028 and U+0085 are characters of a text."""

    header = False

    def __init__(self, lines: Lines) -> None:
        self.name, self.replaced = lines.name, 0
        self.columns: dict[str, None] = {}
        self._lines = lines

    def __iter__(self) -> Iterator[Record]:
        first = True
        for line in self._lines:
            text = line.text.strip(_BLANK)
            if not text:
                continue
            if first and text.startswith("["):
                raise BatchFileError(f"{self.name} is a JSON list; write each object on a line of its own (JSONL)")
            first = False
            yield self._record(line, text)

    def _record(self, line: Line, text: str) -> Record:
        number = self._lines.number
        if line.size > MAX_RECORD:
            return Record(number, {}, too_large(line.size))
        found = _read(self._mended(text))
        if isinstance(found, Fault):
            return Record(number, {}, found)
        if len(self.columns) < MAX_COLUMNS:
            self.columns.update(dict.fromkeys(found))
        return Record(number, found)

    def _mended(self, text: str) -> str:
        """The line with U+FFFD for each lone half of a character, which no UTF-8 can hold."""
        if not _HALF.search(text):
            return text
        return _ESCAPE.sub(self._escape, text)

    def _escape(self, found: re.Match[str]) -> str:
        if found["lone"] is None:
            return found[0]
        self.replaced += 1
        return "\\ufffd"


def _read(text: str) -> dict[str, Any] | Fault:
    """The object of a line, or why there is none."""
    try:
        found = json.loads(text, parse_float=Written, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except _Twice as error:
        return Fault("row", "has a key twice", str(error))
    except (ValueError, RecursionError) as error:
        return Fault("row", "is no JSON", f"is no JSON: {one_line(str(error), SHOWN_INPUT)}")
    if not isinstance(found, dict):
        return Fault("row", "is no JSON object", 'is no JSON object; a row is {"task": ...}')
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _Twice(f"has the key {twice!r:.100} more than once")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
