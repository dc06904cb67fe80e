"""Which files of rows there are: CSV and JSONL are read, whatever else is told by its name or its first bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blocks.files import open_regular
from tasks.batch.csv_records import CsvRecords
from tasks.batch.json_records import JsonRecords
from tasks.batch.lines import MAX_FILE, Lines, first_bytes
from tasks.batch.records import BatchFileError, Records
from tasks.council.plain import one_line

CSV_NAMES, JSON_NAMES = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json")
_LATER = "comes later; write it as CSV (UTF-8) or JSONL"
_COMPRESSED = "is compressed; unpack it first"
NAMES = {
    **dict.fromkeys((".parquet", ".pq"), f"is Parquet, which {_LATER}"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"), f"is a spreadsheet, which {_LATER}"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), _COMPRESSED),
}
"""What is not read, by the end of its name."""
BEGINNINGS = {
    b"PAR1": NAMES[".parquet"],
    b"PK\x03\x04": f"is a spreadsheet or a ZIP archive; reading one {_LATER}",
    b"\xd0\xcf\x11\xe0": NAMES[".xls"],
    b"\x1f\x8b": _COMPRESSED,
    b"BZh": _COMPRESSED,
    b"\xfd7zXZ\0": _COMPRESSED,
    b"\x28\xb5\x2f\xfd": _COMPRESSED,
}
"""The same by its first bytes, whatever it is called."""


@contextmanager
def opened(path: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[Records]:
    """The records of a file, which is open as long. Raises BatchFileError, as reading them does."""
    name, kind = one_line(path.name), path.suffix.lower()
    if kind in NAMES:
        raise BatchFileError(f"{name} {NAMES[kind]}")
    if kind not in (*CSV_NAMES, *JSON_NAMES):
        known = ", ".join((*CSV_NAMES, *JSON_NAMES))
        raise BatchFileError(f"{name}: the end of its name says what it is, and has to be one of {known}")
    if delimiter is not None and kind not in CSV_NAMES:
        raise BatchFileError(f"--delimiter: {name} is JSONL, which has none")
    with _open(path, name) as file:
        _require_text(file, name)
        with Lines(file, name, encoding, "" if kind in CSV_NAMES else "\n") as lines:
            yield CsvRecords(lines, delimiter) if kind in CSV_NAMES else JsonRecords(lines)


def _open(path: Path, name: str) -> BinaryIO:
    """The file. Raises BatchFileError."""
    file = _opened(path)
    if os.fstat(file.fileno()).st_size > MAX_FILE:
        file.close()
        raise BatchFileError(f"{name} has more than {MAX_FILE:,} bytes; split it")
    return file


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise BatchFileError(f"{one_line(str(path))} cannot be read: {reason}") from error


def _require_text(file: BinaryIO, name: str) -> None:
    first = first_bytes(file, name)
    for beginning, what in BEGINNINGS.items():
        if first.startswith(beginning):
            raise BatchFileError(f"{name} {what}")
