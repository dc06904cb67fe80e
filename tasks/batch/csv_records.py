"""Records of a CSV file (RFC 4180): a header, then a row for each record; all cells are text as it is written.

The csv module of the standard library reads them, strictly: what it would otherwise put right by a guess is told.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from tasks.batch.lines import Line, Lines
from tasks.batch.records import MAX_RECORD, BatchFileError, Fault, Record, too_large

DELIMITERS = (",", ";", "\t")
"""Those that are found by themselves."""
_NAMES = {"tab": "\t", "\\t": "\t"}


class _Overlong(Exception):
    """A record has more characters than one may have."""

    def __init__(self, size: int, quoted: bool) -> None:
        self.size, self.quoted = size, quoted


class _Feed:
    """Gives lines to the csv reader, and knows where its record began and how large that is."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.ended = False
        self.begin()

    def begin(self) -> None:
        """A record begins with the next line."""
        self.line, self._size, self._quoted = 0, 0, False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line: Line | None = next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.line = self.line or self._lines.number
        self._size += line.size
        self._quoted = self._quoted or '"' in line.text
        if self._size > MAX_RECORD:
            raise _Overlong(self._size, self._quoted)
        return line.text


class CsvRecords:
    """The records of a CSV file. Where they end cannot be told any more once a quote is open: the file is refused."""

    header = True
    replaced = 0

    def __init__(self, lines: Lines, delimiter: str | None) -> None:
        """Read the header. Raises BatchFileError."""
        self.name = lines.name
        self._feed = _Feed(lines)
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))  # the record's bound holds before it
        first = self._first_line()
        self._delimiter = _delimiter_named(delimiter) if delimiter else _delimiter_of(first)
        self._reader = csv.reader(chain([first], self._feed), delimiter=self._delimiter, strict=True)
        self._header = [cell.strip() for cell in self._header_cells()]
        self.columns = dict.fromkeys(self._header)
        self._require_own_names()

    def __iter__(self) -> Iterator[Record]:
        while True:
            self._feed.begin()
            cells = self._cells()
            if cells is None:
                return
            if isinstance(cells, Fault):
                yield Record(self._feed.line, {}, cells)
            elif cells:  # a blank line gives none
                yield self._record(cells)

    def _record(self, cells: list[str]) -> Record:
        wanted, found = len(self._header), len(cells)
        if found == wanted:
            return Record(self._feed.line, dict(zip(self._header, cells, strict=True)))
        reason = "has too many cells" if found > wanted else "has too few cells"
        return Record(self._feed.line, {}, Fault("row", reason, f"has {found:,} cells; the header has {wanted:,}"))

    def _cells(self) -> list[str] | Fault | None:
        """The cells of the next record, or why there are none; None at the end. Raises BatchFileError."""
        try:
            return next(self._reader, None)
        except csv.Error as error:
            if self._feed.ended:
                raise self._open_quote("is never closed") from error
            told = f"({error}); a quote in a quoted cell is written twice"
            return Fault("row", "is no CSV", f"is no CSV where a quote stands {told}")
        except _Overlong as error:
            if error.quoted:
                raise self._open_quote(f"has more than {MAX_RECORD:,} characters behind it") from error
            return too_large(error.size)

    def _open_quote(self, what: str) -> BatchFileError:
        told = "a quote that opens in the record which begins there"
        return BatchFileError(f"{self.name} line {self._feed.line}: {told} {what}; close it, or take it out")

    def _first_line(self) -> str:
        """The first line that is not blank, at which the header begins."""
        try:
            for text in self._feed:
                if text.strip("\r\n"):
                    return text
                self._feed.begin()
        except _Overlong as error:
            raise BatchFileError(
                f"{self.name} line {self._feed.line}: the header {too_large(error.size).text}"
            ) from error
        raise BatchFileError(f"{self.name} is empty: there is no header and no row")

    def _header_cells(self) -> list[str]:
        found = self._cells()
        if isinstance(found, Fault):
            raise BatchFileError(f"{self.name} line {self._feed.line}: the header {found.text}")
        return found or []

    def _require_own_names(self) -> None:
        where = f"{self.name} line {self._feed.line}"
        if any("\0" in name for name in self._header):
            raise BatchFileError(
                f"{where}: the header has NUL characters; is it UTF-16? Then say `--encoding utf-16-le`"
            )
        named = [name for name in self._header if name]
        if not named:
            raise BatchFileError(f"{where}: the header names no column")
        (most, times), *_ = Counter(named).most_common(1)
        if times > 1:
            raise BatchFileError(f"{where}: the column {most!r:.100} stands in the header {times:,} times")


def _delimiter_named(given: str) -> str:
    delimiter = _NAMES.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise BatchFileError(f"--delimiter: {given!r:.100} is none; one is a single character, or the word tab")
    return delimiter


def _delimiter_of(line: str) -> str:
    """The one that cuts the header into the most cells."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter), [])))
