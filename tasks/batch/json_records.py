"""Records of a JSONL file: one JSON object on each line; numbers keep the text that they are written with."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from tasks.batch.lines import Line, Lines
from tasks.batch.records import MAX_RECORD, BatchFileError, Fault, Record, Records, has_nul, too_large
from tasks.council.plain import SHOWN_INPUT, one_line

MAX_COLUMNS = 1_000
"""Names of columns that are kept of a file, whose lines may have others each."""
MAX_DIGITS = 4_000
"""Of an integer, fewer than Python makes a number of; an item takes far fewer."""
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


def as_written(value: Any) -> Any:
    """A value whose numbers say what the file says: those that would change as a number are texts, such as `1.10`.

    Raises RecursionError where it is nested too deep.
    """
    if isinstance(value, Written):
        return value if repr(float(value)) == value.text else value.text
    if isinstance(value, list):
        return [as_written(one) for one in value]
    if isinstance(value, dict):
        return {name: as_written(one) for name, one in value.items()}
    return value


class _Twice(ValueError):
    """A key stands in an object twice."""


class JsonRecords(Records):
    """The records of a JSONL file. Lines end at a line feed alone: U+2028 and U+0085 are characters of a text."""

    header, below_header = False, ""

    def __init__(self, lines: Lines) -> None:
        """Read the first record, by which other programs' forms are known. Raises BatchFileError."""
        super().__init__(lines.name)
        self._lines = lines
        self._rest = self._records()
        self.first = next(self._rest, None)

    def __iter__(self) -> Iterator[Record]:
        if self.first is not None:
            yield self.first
        yield from self._rest

    def _records(self) -> Iterator[Record]:
        first = True
        for line in self._lines:
            text = line.text.strip(_BLANK)
            if not text:
                continue
            if first:
                self._require_lines(text)
            first = False
            yield self._record(line, text)

    def _require_lines(self, text: str) -> None:
        """Raise BatchFileError where the first line tells that the file is no JSONL."""
        if text.startswith("["):
            told = "is a JSON list; write each object on a line of its own (JSONL), as `jq -c '.[]'` does"
            raise BatchFileError(f"{self.name} {told}")
        if text == "{":
            told = "has JSON over several lines; write each object on a line of its own (JSONL), as `jq -c .` does"
            raise BatchFileError(f"{self.name} {told}")
        if "\0" in text:
            raise BatchFileError(f"{self.name} line {self._lines.number}: {has_nul(text)}")

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
        found = _DECODER.decode(text)
    except _Twice as error:
        return Fault("row", "has a key twice", str(error))
    except RecursionError:
        return Fault("row", "is no JSON", "is nested too deep to be read")
    except json.JSONDecodeError as error:  # its own text has a line of the line, which is always 1
        return Fault("row", "is no JSON", f"is no JSON: {one_line(error.msg)} (character {error.pos + 1:,})")
    except ValueError as error:
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


def _integer(text: str) -> int | Written:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits; {MAX_DIGITS:,} are taken")
    return Written(text) if text == "-0" else int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(
    parse_float=Written, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_object
)
