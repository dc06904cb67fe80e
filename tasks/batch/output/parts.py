"""Parts of an output: Parquet files that are there whole or not at all, numbered in the order of their writing.

A Parquet file without its footer cannot be read, so one that grows would lose everything at a kill.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output.disk import PRIVATE, replace_bytes, sha256_of
from tasks.batch.output.errors import OutputError, read
from tasks.batch.output.manifest import Part
from tasks.batch.output.schema import LARGE, SCHEMA, Record, characters_of, table_of
from tasks.council.plain import error_line

_NAME = re.compile(r"part-(?P<number>[0-9]{6,})\.parquet")
_BATCH = b"conclave.batch"
_CHARACTERS = b"conclave.characters"
SMALL = [name for name in SCHEMA.names if name not in LARGE]
"""Columns that a dictionary makes smaller."""


def name_of(number: int) -> str:
    """The name of a part's file."""
    return f"part-{number:06d}.parquet"


def number_of(name: str) -> int | None:
    """The number of a part of that name; None where it is no name of one."""
    found = _NAME.fullmatch(name)
    return int(found["number"]) if found else None


def write_part(folder: Path, number: int, batch: str, records: Sequence[Record]) -> Part:
    """A part of these records. Raises OutputError, and then there is none."""
    characters = sum(map(characters_of, records))
    table = table_of(records)
    marked = table.replace_schema_metadata({_BATCH: batch, _CHARACTERS: str(characters)})
    content = io.BytesIO()
    pq.write_table(marked, content, compression="zstd", use_dictionary=SMALL, write_statistics=False)
    whole = content.getvalue()
    replace_bytes(folder / name_of(number), whole, PRIVATE)
    return Part(
        name=name_of(number),
        number=number,
        rows=len(records),
        bytes=len(whole),
        characters=characters,
        sha256=hashlib.sha256(whole).hexdigest(),
        counts=Counter(record["status"] for record in records),
    )


def read_part(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """A part's rows, of these columns or all. Raises OutputError."""
    names = None if columns is None else list(columns)
    try:
        with read(path), pq.ParquetFile(path) as file:
            return file.read(names, use_threads=False).replace_schema_metadata()
    except (pa.ArrowException, KeyError) as error:  # also of a column that is not there
        raise OutputError(f"{path} is broken: {error_line(error)}") from error


def why_broken(folder: Path, part: Part) -> str | None:
    """Why a part of the manifest is not what was written, None where it is."""
    path = folder / part.name
    try:
        with read(path):
            size = path.stat().st_size
        if size != part.bytes:
            return f"has {size:,} bytes, {part.bytes:,} were written"
        return None if sha256_of(path) == part.sha256 else "has other bytes than were written"
    except OutputError as error:
        return f"cannot be read: {error.__cause__ and getattr(error.__cause__, 'strerror', None)}"


def part_found(path: Path, number: int, batch: str) -> Part | None:
    """A part that no manifest names, where it is whole and of this batch."""
    try:
        with read(path), pq.ParquetFile(path) as file:
            marks = file.schema_arrow.metadata or {}
            if marks.get(_BATCH) != batch.encode():
                return None
            table = file.read(use_threads=False)
    except (OutputError, pa.ArrowException):
        return None
    return Part(
        name=path.name,
        number=number,
        rows=table.num_rows,
        bytes=path.stat().st_size,
        characters=int(marks.get(_CHARACTERS, b"0")),
        sha256=sha256_of(path),
        counts=Counter(table.column("status").to_pylist()),
    )


def numbered_parts(folder: Path) -> Iterator[tuple[int, Path]]:
    """Files in a folder that have the name of a part, in the order of their numbers."""
    found = [(number, path) for path in folder.iterdir() if (number := number_of(path.name)) is not None]
    yield from sorted(found)
