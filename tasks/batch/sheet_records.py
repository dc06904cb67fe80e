"""Records of a spreadsheet: one sheet's rows below its header, read by a process of its own (`sheet_process.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from tasks.batch import sheet_process
from tasks.batch.cells import Cells, row_of
from tasks.batch.records import BatchFileError, Fault, Record, Records
from tasks.council.plain import SHOWN_INPUT, one_line

MAX_FILE = 100_000_000
"""Bytes of a spreadsheet."""
MAX_LINE = 64_000_000
"""Characters of a row."""
CUT = 32_767
"""Characters, as UTF-16 counts them, at which Excel cuts a text."""
OLE = sheet_process.OLE
_INHERITED = (
    *("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ", "VIRTUAL_ENV"),
    *("CONCLAVE_STACK_HOME", "SUPERVISOR_PROCESS_NAME"),  # by which `conclave down` finds what a part has left
)
"""The variables that the process gets: no key, and no address of another part."""


class SheetRecords(Records):
    """The records of a sheet, whose header is its first row that is not empty."""

    place = "sheet row"

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        """Read the header. Raises BatchFileError."""
        super().__init__(name)
        self._process = process
        self._rows = self._lines()
        about: dict[str, Any] = next(self._rows, {})
        self._left = about.get("left", 0)
        number, cells = next(self._rows, (0, []))
        if not cells:
            raise BatchFileError(f"{name} is empty: there is no header and no row in {about.get('sheet', '')!r:.100}")
        self._columns = self._named(number, cells)
        self.columns = dict.fromkeys(self._columns)

    def __iter__(self) -> Iterator[Record]:
        for number, cells in self._rows:
            yield Record(number, *self._record(number, cells))

    def cell(self, column: str, line: int) -> str | None:
        """The name of a cell, such as B7."""
        return self._cell(self._columns[column], line) if column in self._columns else None

    def _named(self, number: int, cells: list[Any]) -> dict[str, int]:
        """The columns that the header names, each with its place."""
        where = f"{self.name} {self.place} {number}"
        for at, cell in enumerate(cells):
            if isinstance(cell, dict):
                raise BatchFileError(f"{where}: the cell {self._cell(at, number)} of the header is an error")
        names = [_header(cell) for cell in cells]
        (most, times), *_ = Counter(filter(None, names)).most_common(1) or [("", 0)]
        if not times:
            raise BatchFileError(f"{where}: the header names no column")
        if times > 1:
            raise BatchFileError(f"{where}: the column {most!r:.100} stands in the header {times:,} times")
        return {name: at for at, name in enumerate(names) if name}

    def _record(self, number: int, cells: list[Any]) -> Cells:
        last = max(self._columns.values())
        beyond = next((at for at, cell in enumerate(cells) if at > last and cell != ""), None)
        if beyond is not None:
            told = (
                f"the cell {self._cell(beyond, number)} has no header; the last one is in column {self._letters(last)}"
            )
            return Cells({}, Fault("row", "has too many cells", told))
        values, fault = dict[str, Any](), None
        for column, at in self._used.items():
            value = cells[at] if at < len(cells) else ""
            if isinstance(value, dict):
                told = f"cell {self._cell(at, number)} is the error {one_line(value['error'])}"
                fault = fault or Fault(column, "is an error", told)
                continue
            values[column] = value
            self._note(value)
        return row_of(values, fault)

    @property
    def _used(self) -> dict[str, int]:
        """Columns that are looked at, and where they are."""
        wanted = self.wanted
        return {name: at for name, at in self._columns.items() if wanted is None or name in wanted}

    def _note(self, value: Any) -> None:
        """Count what may have been lost before the file was saved."""
        if isinstance(value, str) and CUT // 2 < len(value) <= CUT and len(value.encode("utf-16-le")) == CUT * 2:
            self.notes[f"text of exactly {CUT:,} characters: Excel cuts longer ones there"] += 1
        elif isinstance(value, int | float) and abs(value) >= 10**sheet_process.DIGITS:
            self.notes[f"number of more than {sheet_process.DIGITS} digits: spreadsheets keep no more"] += 1

    def _cell(self, at: int, number: int) -> str:
        return f"{self._letters(at)}{number}"

    def _letters(self, at: int) -> str:
        rest, letters = self._left + at + 1, ""
        while rest:
            rest, letter = divmod(rest - 1, 26)
            letters = chr(ord("A") + letter) + letters
        return letters

    def _lines(self) -> Iterator[Any]:
        """What the process writes. Raises BatchFileError where it refuses the file, or cannot end."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline(MAX_LINE):
            if not line.endswith("\n"):
                break
            found = json.loads(line)
            if isinstance(found, dict) and "refused" in found:
                raise BatchFileError(f"{self.name} {one_line(found['refused'], SHOWN_INPUT)}")
            yield found
        else:
            if self._process.wait() == 0:
                return
        most = f"{sheet_process.MEMORY:,} bytes of memory, {sheet_process.CPU_S} s or {MAX_LINE:,} characters a row"
        raise BatchFileError(f"{self.name} cannot be read: it is broken, or takes more than {most}; write it as CSV")


@contextmanager
def sheet_records(file: BinaryIO, name: str, sheet: str | None) -> Iterator[SheetRecords]:
    """The records of a sheet by its name, or of the first visible one. Raises BatchFileError.

    The file has to be one of the system's, since another process reads it.
    """
    if sheet is not None and "\0" in sheet:
        raise BatchFileError("--sheet: has a NUL character, which no name of a sheet has")
    _require_bounded(file, name)
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # not of the buffer, which the process has none of
    with _process(file, sheet) as process:
        yield SheetRecords(name, process)


@contextmanager
def _process(file: IO[bytes], sheet: str | None) -> Iterator[subprocess.Popen[str]]:
    named = [] if sheet is None else [sheet]
    command = [sys.executable, "-P", "-X", "utf8", str(Path(sheet_process.__file__).resolve()), *named]
    process = subprocess.Popen(
        command,
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        text=True,
        encoding="utf-8",
        errors="surrogatepass",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _require_bounded(file: BinaryIO, name: str) -> None:
    """Raise BatchFileError unless the file is as small as a sheet may be that is held in memory."""
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE:
        told = "a sheet is held in memory as a whole; write it as CSV or Parquet"
        raise BatchFileError(f"{name} has {size:,} bytes; of a spreadsheet {MAX_FILE:,} are taken, since {told}")
    file.seek(0)
    if file.read(len(OLE)) != OLE:
        return
    file.seek(0)
    if "EncryptedPackage".encode("utf-16-le") in file.read():
        raise BatchFileError(f"{name} is protected by a password; save it without one")


def _header(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else json.dumps(cell)
