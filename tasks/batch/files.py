"""Which files of rows there are: the end of its name says what a file is, or an option does; its first bytes agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tasks.batch import parquet_records, sheet_records
from tasks.batch.chat_records import chat_or_plain
from tasks.batch.csv_records import CsvRecords
from tasks.batch.json_records import JsonRecords
from tasks.batch.lines import Lines, first_bytes
from tasks.batch.places import Places
from tasks.batch.records import BatchFileError, Records
from tasks.batch.sources import MAX_SPOOLED, Source, opened_source, spooled
from tasks.council.plain import SHOWN_INPUT, shortened

CSV, JSONL, PARQUET, SHEET = "CSV", "JSONL", "Parquet", "a spreadsheet"
KINDS = {
    **dict.fromkeys(("csv", "tsv"), CSV),
    **dict.fromkeys(("jsonl", "ndjson", "json"), JSONL),
    **dict.fromkeys(("parquet", "pq"), PARQUET),
    **dict.fromkeys(("xlsx", "xlsm", "xlsb", "xls", "ods"), SHEET),
}
"""What is read, by the end of its name or by `--input-format`."""
TEXTS = (CSV, JSONL)
_COMPRESSED = "is compressed; unpack it first"
_COMPRESSED_NAMES = ("gz", "bz2", "xz", "zst", "zip")
BEGINNINGS = {
    parquet_records.MAGIC: "is Parquet; name it so, or say `--input-format parquet`",
    b"PK\x03\x04": "is a spreadsheet or a ZIP archive; name it so, or say `--input-format xlsx`",
    sheet_records.OLE: "is a spreadsheet; name it so, or say `--input-format xls`",
    b"\x1f\x8b": _COMPRESSED,
    b"BZh": _COMPRESSED,
    b"\xfd7zXZ\0": _COMPRESSED,
    b"\x28\xb5\x2f\xfd": _COMPRESSED,
}
"""What is no text by its first bytes, whatever it is called."""


@contextmanager
def opened(
    named: str | Path,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    input_format: str | None = None,
    places: Places | None = None,
) -> Iterator[Records]:
    """The records of a file, by its path, its URL, or `-` for standard input; it is open as long.

    Whatever another than this process's user names has to lie in `places`. Raises BatchFileError, as reading them does.
    """
    with opened_source(named, places) as source:
        kind = _kind(source, input_format)
        _require_fitting(source.name, kind, {"--encoding": encoding, "--delimiter": delimiter, "--sheet": sheet})
        if kind in TEXTS:
            _require_text(source.file, source.name)
            with Lines(source.file, source.name, encoding, "" if kind == CSV else "\n") as lines:
                yield CsvRecords(lines, delimiter) if kind == CSV else chat_or_plain(JsonRecords(lines))
        elif kind == PARQUET:
            with _seekable(source) as file:
                _require_parquet(file, source.name)
                yield parquet_records.ParquetRecords(file, source.name)
        else:
            with _of_system(source) as file, sheet_records.sheet_records(file, source.name, sheet) as records:
                yield records


def _kind(source: Source, input_format: str | None) -> str:
    """What the file is. Raises BatchFileError where nobody says so."""
    if input_format is not None:
        if input_format.lower() not in KINDS:
            shown = shortened(repr(input_format), SHOWN_INPUT)
            raise BatchFileError(f"--input-format: {shown} is unknown; there are {', '.join(KINDS)}")
        return KINDS[input_format.lower()]
    ending = source.ending.removeprefix(".")
    if ending in _COMPRESSED_NAMES:
        raise BatchFileError(f"{source.name} {_COMPRESSED}")
    if not ending and source.name == "standard input":
        raise BatchFileError(f"--input-format: has to say what standard input is: {', '.join(KINDS)}")
    if ending not in KINDS:
        known = ", ".join(f".{name}" for name in KINDS)
        told = f"the end of its name says what it is, and has to be one of {known}; or `--input-format` says it"
        raise BatchFileError(f"{source.name}: {told}")
    return KINDS[ending]


_FITTING = {"--encoding": TEXTS, "--delimiter": (CSV,), "--sheet": (SHEET,)}


def _require_fitting(name: str, kind: str, given: dict[str, str | None]) -> None:
    """Raise BatchFileError for an option that says nothing of such a file."""
    for option, value in given.items():
        if value is not None and kind not in _FITTING[option]:
            raise BatchFileError(f"{option}: {name} is {kind}, which has none")


def _require_text(file: BinaryIO, name: str) -> None:
    first = first_bytes(file, name)
    for beginning, what in BEGINNINGS.items():
        if first.startswith(beginning):
            raise BatchFileError(f"{name} {what}")


def _require_parquet(file: BinaryIO, name: str) -> None:
    first = first_bytes(file, name)
    if first.startswith(parquet_records.ENCRYPTED):
        raise BatchFileError(f"{name} is encrypted; write it without")
    if not first.startswith(parquet_records.MAGIC):
        raise BatchFileError(f"{name} is no Parquet: it does not begin with PAR1")


@contextmanager
def _seekable(source: Source) -> Iterator[BinaryIO]:
    """The file, from a temporary one where it cannot be read but from its beginning to its end."""
    if source.file.seekable():
        yield source.file
    else:
        with spooled(source.file, source.name, MAX_SPOOLED) as file:
            yield file


@contextmanager
def _of_system(source: Source) -> Iterator[BinaryIO]:
    """The file, from a temporary one where it is none that another process could read."""
    try:
        source.file.fileno()
    except OSError:
        with spooled(source.file, source.name, sheet_records.MAX_FILE) as file:
            yield file
    else:
        yield source.file
