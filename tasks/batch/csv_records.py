"""Records of a CSV file (RFC 4180): a header, then a row for each record; all cells are text as it is written.

The csv module of the standard library reads them, strictly: what it would otherwise put right by a guess is told.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from tasks.batch.lines import Line, Lines
from tasks.batch.records import MAX_RECORD, BatchFileError, Fault, Record, Records, has_nul, too_large
from tasks.council.plain import one_line, plain

DELIMITERS = (",", ";", "\t")
"""Those that are found by themselves."""
_NAMES = {"tab": "\t", "\\t": "\t"}
_BLANKS_AND_QUOTE = re.compile('[\\s\0-\x20\u200b-\u200f\u2060\ufeff]+"')
"""Also what nobody sees, such as the byte order mark of a file that was put behind another."""
_SEP = re.compile('"?sep=(?P<cell>.)"?', re.IGNORECASE)
"""The line before the header in which Excel is told the delimiter."""


class _Feed:
    """Gives lines to the csv reader, and knows the record that it is in: where it began, and its text."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.ended = False
        self.begin()

    def begin(self) -> None:
        """A record begins with the next line."""
        self.line, self._size = 0, 0
        self._text = io.StringIO()

    @property
    def text(self) -> str:
        """The record until now, as it stands in the file."""
        return self._text.getvalue()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line: Line | None = next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.line = self.line or self._lines.number
        self._size += line.size
        if self._size > MAX_RECORD:
            told = f"{too_large(self._size).text}; is a quote open in it?"
            raise BatchFileError(f"{self._lines.name} line {self.line}: the record which begins there {told}")
        self._text.write(line.text)
        return line.text


class CsvRecords(Records):
    """The records of a CSV file.

    Where one ends cannot be told any more once a quote stands wrong or a record is too large: the file is refused.
    """

    def __init__(self, lines: Lines, delimiter: str | None) -> None:
        """Read the header. Raises BatchFileError."""
        super().__init__(lines.name)
        self._feed = _Feed(lines)
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))  # the record's bound holds before it
        first = self._first_line()
        if said := _SEP.fullmatch(first.rstrip("\r\n")):
            delimiter, first = self._excels(said["cell"], delimiter), self._next_first_line()
        self._delimiter = self._delimiter_of(first) if delimiter is None else _delimiter_named(delimiter)
        self._reader = csv.reader(chain([first], self._feed), delimiter=self._delimiter, strict=True)
        self._header = [cell.strip() for cell in self._cells() or []]
        self.columns = dict.fromkeys(self._header)
        self._require_own_names()

    def __iter__(self) -> Iterator[Record]:
        while True:
            self._feed.begin()
            cells = self._cells()
            if cells is None:
                return
            if cells:  # a blank line gives none
                yield self._record(cells)

    def _record(self, cells: list[str]) -> Record:
        wanted, found = len(self._header), len(cells)
        if found == wanted:
            return Record(self._feed.line, dict(zip(self._header, cells, strict=True)))
        reason = "has too many cells" if found > wanted else "has too few cells"
        return Record(self._feed.line, {}, Fault("row", reason, f"has {found:,} cells; the header has {wanted:,}"))

    def _cells(self) -> list[str] | None:
        """The cells of the next record; None at the end. Raises BatchFileError."""
        try:
            cells = next(self._reader, None)
        except csv.Error as error:
            raise self._wrong_quote(error) from error
        if cells and any(map(_quote_behind_blanks, cells)) and self._blanks_stand_before_a_quote():
            told = "a cell has blanks before its quote, which is no CSV; take the blanks out"
            raise BatchFileError(f"{self.name} line {self._feed.line}: in the record which begins there {told}")
        return cells

    def _wrong_quote(self, error: csv.Error) -> BatchFileError:
        where = f"{self.name} line {self._feed.line}"
        if self._feed.ended:
            told = "a quote that opens in the record which begins there is never closed; close it, or take it out"
            return BatchFileError(f"{where}: {told}")
        told = "a quoted cell of the record which begins there goes on behind its closing quote"
        return BatchFileError(f"{where}: {told} ({one_line(str(error))}); a quote in a quoted cell is written twice")

    def _blanks_stand_before_a_quote(self) -> bool:
        """Whether that is so in the file itself, and not within a quoted cell."""
        end = re.escape(self._delimiter)
        cell = re.compile(rf'"[^"]*(?:""[^"]*)*"|(?P<bare>[^{end}\r\n]*)')
        text, at = self._feed.text.rstrip("\r\n"), 0
        while at <= len(text):
            found = cell.match(text, at)
            if found is None or _quote_behind_blanks(found["bare"] or ""):
                return True
            at = found.end() + 1
        return False

    def _first_line(self) -> str:
        """The first line that is not blank, at which the header begins."""
        for text in self._feed:
            if text.strip("\r\n"):
                return text
            self._feed.begin()
        raise BatchFileError(f"{self.name} is empty: there is no header and no row")

    def _next_first_line(self) -> str:
        self._feed.begin()
        return self._first_line()

    def _excels(self, said: str, given: str | None) -> str:
        """The delimiter of Excel's first line `sep=;`, unless another was given. Raises BatchFileError."""
        if given is not None and _delimiter_named(given) != said:
            raise BatchFileError(f"--delimiter: {given!r:.100} is wrong: {self.name} begins with `sep={plain(said)}`")
        return said

    def _delimiter_of(self, line: str) -> str:
        """The one that cuts the header into the most cells. Raises BatchFileError where two do."""
        cells = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in DELIMITERS}
        most = max(cells.values())
        best = [delimiter for delimiter in DELIMITERS if cells[delimiter] == most]
        if len(best) > 1 and most > 1:
            shown = " and ".join(repr(delimiter) for delimiter in best)
            told = f"{shown} each cut the header into {most:,} cells; `--delimiter` says which it is"
            raise BatchFileError(f"{self.name} line {self._feed.line}: {told}")
        return best[0]

    def _require_own_names(self) -> None:
        where = f"{self.name} line {self._feed.line}"
        if any("\0" in name for name in self._header):
            raise BatchFileError(f"{where}: the header {has_nul(self._header[0])}")
        named = [name for name in self._header if name]
        if not named:
            raise BatchFileError(f"{where}: the header names no column")
        (most, times), *_ = Counter(named).most_common(1)
        if times > 1:
            raise BatchFileError(f"{where}: the column {most!r:.100} stands in the header {times:,} times")


def _quote_behind_blanks(cell: str) -> bool:
    return _BLANKS_AND_QUOTE.match(cell) is not None


def _delimiter_named(given: str) -> str:
    delimiter = _NAMES.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise BatchFileError(f"--delimiter: {given!r:.100} is none; one is a single character, or the word tab")
    return delimiter
