"""Reads a spreadsheet in a process of its own, which has bounds of memory and time.

A sheet is held in memory as a whole, and a small file can name a cell far away, or unpack to anything: what takes too
much ends this process alone. It is run by its path, so it imports nothing of ours. The file is its standard input. It
writes a line of JSON about the file, `{"refused": ...}` or the sheet's name and place, and a line for each row that is
not empty: its number and its cells, of which one with an error is `{"error": "#N/A"}`.
"""

from __future__ import annotations

import datetime
import json
import re
import resource
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any
from xml.parsers import expat

import python_calamine

MEMORY = 2 << 30
"""Bytes of addresses that the process may have: libraries, the file, and the sheet."""
CPU_S = 300
"""Seconds of CPU that it may take."""
MAX_UNPACKED = 1_000_000_000
"""Bytes of what is packed in the file, by the file's own directory."""
MAX_ERRORS = 1_000_000
"""Cells with errors that are told apart from empty ones."""
OLE = b"\xd0\xcf\x11\xe0"
"""How an .xls begins, and an .xlsx that a password protects."""
DIGITS = 15
"""Of a number, as many as spreadsheets keep and show: 0.1 + 0.2 is 0.3 there."""
MAX_INTEGER = 1 << 63
"""Whole numbers below it are written in full, as a request takes them."""
_CHUNK = 1 << 20
_LETTERS = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")

Errors = dict[tuple[int, int], str]
"""Errors by row and column from 0, such as `#N/A`, which calamine gives as empty cells."""


_BROKEN = (
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    expat.ExpatError,
)
"""What is raised of an archive, and of XML or records in it, that are no such."""


class _Refused(Exception):
    """Why the file is not read."""


def main() -> None:
    """Write what stands in the sheet that the first argument names, or in the first visible one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        for line in read(sys.stdin.buffer, sys.argv[1] if len(sys.argv) > 1 else None):
            sys.stdout.write(json.dumps(line) + "\n")
    except _Refused as refused:
        sys.stdout.write(json.dumps({"refused": str(refused)}) + "\n")


def read(file: IO[bytes], wanted: str | None) -> Iterator[Any]:
    """What is written of a file, value by value. Raises _Refused."""
    packed = _packed(file)
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(file)
        sheet = _chosen(book, wanted)
        found = book.get_sheet_by_name(sheet)
    except python_calamine.CalamineError as error:
        if packed is None and _begins(file, OLE):  # of a password in an .xls nothing is told here
            raise _Refused("is protected by a password, or is broken; save it anew, without one") from None
        raise _Refused(f"is no spreadsheet that can be read: {error}") from None
    errors = _errors(packed, sheet) if packed else {}
    _, left = found.start or (0, 0)
    yield {"sheet": sheet, "left": left}
    for number, cells in enumerate(found.iter_rows()):
        row = [_or_error(errors, (number, left + at), cell) for at, cell in enumerate(cells)]
        if any(cell != "" for cell in row):
            yield number + 1, row


def _or_error(errors: Errors, place: tuple[int, int], cell: Any) -> Any:
    """A cell as JSON, or the error that stands in it."""
    if place in errors:
        return {"error": errors[place]}
    return _as_seen(cell)


def _packed(file: IO[bytes]) -> zipfile.ZipFile | None:
    """The archive that the file is, with the bound of what it unpacks to. Raises _Refused."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return None
    try:
        packed = zipfile.ZipFile(file)
    except _BROKEN as error:
        raise _Refused(f"is no ZIP archive that can be read: {error}") from None
    size = sum(member.file_size for member in packed.infolist())
    if size > MAX_UNPACKED:
        raise _Refused(f"unpacks to {size:,} bytes; {MAX_UNPACKED:,} are taken")
    if any(member.flag_bits & 1 for member in packed.infolist()):
        raise _Refused("is protected by a password; save it without one")
    file.seek(0)
    return packed


def _begins(file: IO[bytes], beginning: bytes) -> bool:
    file.seek(0)
    return file.read(len(beginning)) == beginning


def _chosen(book: python_calamine.CalamineWorkbook, wanted: str | None) -> str:
    """The sheet of that name, or the first visible one. Raises _Refused with the sheets that there are."""
    sheets = {one.name: one for one in book.sheets_metadata if one.typ == python_calamine.SheetTypeEnum.WorkSheet}
    shown = ", ".join(map(_shown, sheets.values())) or "none"
    if wanted is not None and wanted not in sheets:
        raise _Refused(f"has no sheet {wanted!r:.100}; its sheets are {shown}")
    chosen = next(filter(_visible, sheets.values()), None) if wanted is None else sheets[wanted]
    if chosen is None:
        raise _Refused(f"has no visible sheet; its sheets are {shown}, of which --sheet may name one")
    return chosen.name


def _visible(sheet: python_calamine.SheetMetadata) -> bool:
    return sheet.visible == python_calamine.SheetVisibleEnum.Visible


def _shown(sheet: python_calamine.SheetMetadata) -> str:
    return f"{sheet.name!r:.100}" if _visible(sheet) else f"{sheet.name!r:.100} (hidden)"


def _as_seen(cell: Any) -> Any:
    """A cell as a person sees it, as far as can be told: a whole number without `.0`, a date without midnight."""
    if isinstance(cell, float):
        seen = float(f"{cell:.{DIGITS}g}")
        return int(seen) if seen.is_integer() and abs(seen) < MAX_INTEGER else seen
    if isinstance(cell, datetime.datetime):
        return (cell.date() if cell.time() == datetime.time() else cell).isoformat()
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return _duration(cell)
    return cell


def _duration(value: datetime.timedelta) -> str:
    """Hours, minutes and seconds, as `30:05:00`."""
    seconds = round(abs(value).total_seconds())
    sign = "-" if value < datetime.timedelta() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


# --- errors, which calamine gives as empty cells --------------------------------------------------


def _errors(packed: zipfile.ZipFile, sheet: str) -> Errors:
    """The errors of a sheet of .xlsx, .xlsm, .xlsb and .ods; those of .xls, which is no archive, read as empty."""
    names = set(packed.namelist())
    try:
        if "content.xml" in names:
            return _found(packed, "content.xml", re.compile(rb"value-type\s*=\s*[\"']error"), _OdsErrors(sheet))
        if "xl/workbook.xml" in names and (part := _part(packed, "xl/workbook.xml", sheet)) in names:
            return _found(packed, part, re.compile(rb"\bt\s*=\s*[\"']e[\"']"), _XlsxErrors())
        if "xl/workbook.bin" in names and (part := _part(packed, "xl/workbook.bin", sheet)) in names:
            return dict(_binary_errors(packed.read(part)))
    except _BROKEN as error:
        raise _Refused(f"is no spreadsheet that can be read: {error}") from None
    return {}


class _Handler:
    """Sees the elements of a document, by their names without a prefix."""

    def __init__(self) -> None:
        self.errors: Errors = {}

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Text in the element that began last."""


def _found(packed: zipfile.ZipFile, part: str, mark: re.Pattern[bytes], handler: _Handler) -> Errors:
    """The errors in a document, which is parsed only where the mark of one is in it."""
    with packed.open(part) as document:
        if not _has(document, mark):
            return {}
    with packed.open(part) as document:
        _parse(document, handler)
    return handler.errors


def _has(document: IO[bytes], mark: re.Pattern[bytes]) -> bool:
    before = b""
    while chunk := document.read(_CHUNK):
        if mark.search(before + chunk) or before + chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return True
        before = chunk[-100:]
    return False


def _parse(document: IO[bytes], handler: _Handler) -> None:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: handler.begin(_local(name), attributes)
    parser.EndElementHandler = lambda name: handler.end(_local(name))
    parser.CharacterDataHandler = handler.text
    while chunk := document.read(_CHUNK):
        parser.Parse(chunk, False)
        if len(handler.errors) > MAX_ERRORS:
            raise _Refused(f"has more than {MAX_ERRORS:,} cells with errors")
    parser.Parse(b"", True)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _XlsxErrors(_Handler):
    """`<row r="7"><c r="B7" t="e"><v>#N/A</v></c></row>`; both `r` may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self._row, self._column = -1, -1
        self._error, self._in_value = False, False

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """A row, a cell, or the value of one."""
        if name == "row":
            self._row, self._column = int(attributes.get("r", self._row + 2)) - 1, -1
        elif name == "c":
            self._column = _column(attributes.get("r", "")) if "r" in attributes else self._column + 1
            self._error = attributes.get("t") == "e"
        self._in_value = name == "v" and self._error

    def end(self, name: str) -> None:
        """What comes next belongs to no value."""
        self._in_value = False

    def text(self, text: str) -> None:
        """The name of an error."""
        if self._in_value:
            self.errors[self._row, self._column] = text[:20]


def _column(cell: str) -> int:
    """The column of a cell from 0: 1 of B7."""
    found = _LETTERS.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r:.20} names no cell")
    number = 0
    for letter in found[1]:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


class _OdsErrors(_Handler):
    """`<table:table-cell calcext:value-type="error"><text:p>#N/A</text:p>`, in the table of a name."""

    def __init__(self, sheet: str) -> None:
        super().__init__()
        self._sheet, self._inside, self._error = sheet, False, False
        self._row, self._next_row, self._column, self._next_column = 0, 0, 0, 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """A table, a row, or a cell; rows and cells may stand for several alike."""
        if name == "table":
            self._inside, self._next_row = attributes.get("table:name") == self._sheet, 0
        elif name == "table-row":
            self._row, self._next_column = self._next_row, 0
            self._next_row += int(attributes.get("table:number-rows-repeated", 1))
        elif name in ("table-cell", "covered-table-cell"):
            self._column = self._next_column
            self._next_column += int(attributes.get("table:number-columns-repeated", 1))
            self._error = attributes.get("calcext:value-type") == "error"

    def end(self, name: str) -> None:
        """What comes next belongs to no cell."""
        self._error = self._error and name != "table-cell"

    def text(self, text: str) -> None:
        """The name of an error."""
        if self._inside and self._error and text.strip():
            self.errors[self._row, self._column] = text.strip()[:20]


def _part(packed: zipfile.ZipFile, book: str, sheet: str) -> str:
    """The document of a sheet, by the document of its book."""
    if book.endswith(".bin"):
        links = dict(_binary_sheets(packed.read(book)))
    else:
        links = _attributes(packed, book, _Named("sheet", "name", "id"))
    folder, _, name = book.rpartition("/")
    targets = _attributes(packed, f"{folder}/_rels/{name}.rels", _Named("Relationship", "Id", "Target"))
    target = targets.get(links.get(sheet, ""), "")
    return target.removeprefix("/") if target.startswith("/") else f"{folder}/{target}"


def _attributes(packed: zipfile.ZipFile, part: str, handler: _Named) -> dict[str, str]:
    with packed.open(part) as document:
        _parse(document, handler)
    return handler.found


class _Named(_Handler):
    """Elements of a name: one attribute of each by another."""

    def __init__(self, element: str, key: str, value: str) -> None:
        super().__init__()
        self._element, self._key, self._value = element, key, value
        self.found: dict[str, str] = {}

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """Such an element begins."""
        if name == self._element:
            plain = {_local(attribute): value for attribute, value in attributes.items()}
            self.found[plain.get(self._key, "")] = plain.get(self._value, "")


# --- records of .xlsb: a kind and a size, of seven bits a byte, and so many bytes ------------------

_ROW, _BUNDLED_SHEET, _CELL_ERRORS = 0, 156, (3, 11)
_ERROR_NAMES = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}


def _binary_errors(content: bytes) -> Iterator[tuple[tuple[int, int], str]]:
    """The errors of a sheet, by the places of their cells."""
    row = 0
    for kind, at in _records(content):
        if kind == _ROW:
            row = _number(content, at)
        elif kind in _CELL_ERRORS:
            yield (row, _number(content, at)), _ERROR_NAMES.get(content[at + 8], "#?")


def _binary_sheets(content: bytes) -> Iterator[tuple[str, str]]:
    """The name of each sheet, and of the link to its document."""
    for kind, at in _records(content):
        if kind == _BUNDLED_SHEET:
            link, after = _wide(content, at + 8)
            yield _wide(content, after)[0], link


def _records(content: bytes) -> Iterator[tuple[int, int]]:
    """The kind of each record, and where its bytes begin."""
    at = 0
    while at < len(content):
        kind, at = _sevens(content, at, 2)
        size, at = _sevens(content, at, 4)
        if at + size > len(content):
            raise ValueError("it is cut off")
        yield kind, at
        at += size


def _sevens(content: bytes, at: int, most: int) -> tuple[int, int]:
    """A number of seven bits a byte, the first one the lowest, and where it ends."""
    number = 0
    for place in range(most):
        byte = content[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    return number, at + most


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "little")


def _wide(content: bytes, at: int) -> tuple[str, int]:
    """A text behind its length, and where it ends."""
    end = at + 4 + 2 * _number(content, at)
    return content[at + 4 : end].decode("utf-16-le"), end


if __name__ == "__main__":
    main()
