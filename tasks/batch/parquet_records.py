"""Records of a Parquet file, some rows at a time, and of its columns only those that are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from tasks.batch.cells import Cells, row_of
from tasks.batch.records import BatchFileError, Fault, Record, Records
from tasks.council.plain import SHOWN_INPUT, one_line

BATCH_ROWS = 64
"""Rows that are made at once, at most: a dictionary may stand for one large text many times."""
BATCH_BYTES = 32_000_000
"""Bytes of rows that are made at once, by the mean of their group; one row at least."""
MAX_BATCH_BYTES = 512_000_000
"""Bytes of rows that came at once, where the mean said less."""
_BUFFER = 1 << 16
"""Bytes of a column that are read at once; without it a whole group's would be."""
MAGIC, ENCRYPTED = b"PAR1", b"PARE"


class ParquetRecords(Records):
    """The records of a Parquet file; a row's number stands where others have lines.

    The index of a table of pandas is a column like others here, under the name that it has in the file.
    """

    place, below_header = "row", ""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Read what the file says of itself at its end. Raises BatchFileError."""
        super().__init__(name)
        with self._told("cannot be read"):
            self._file = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)  # type: ignore[no-untyped-call]
            names = self._file.schema_arrow.names
        self.columns = dict.fromkeys(names)
        if not names:
            raise BatchFileError(f"{name} has no column")
        (most, times), *_ = Counter(names).most_common(1)
        if times > 1:
            raise BatchFileError(f"{name}: the column {most!r:.100} is there {times:,} times")

    def __iter__(self) -> Iterator[Record]:
        number = 0
        for group in range(self._file.num_row_groups):
            for batch in self._batches(group, number):
                for found in _rows(batch):
                    number += 1
                    yield Record(number, *found)

    @property
    def _used(self) -> list[str]:
        """Columns that are read, in the order of the file; one at least, by which rows are counted."""
        used = [column for column in self.columns if self.wanted is None or column in self.wanted]
        return used or list(self.columns)[:1]

    def _batches(self, group: int, before: int) -> Iterator[pyarrow.RecordBatch]:
        with self._told(f"cannot be read behind row {before:,}"):
            size = self._batch_rows(group)
            batches = self._file.iter_batches(size, [group], self._used, use_threads=False)  # type: ignore[no-untyped-call]
        while True:
            with self._told(f"cannot be read behind row {before:,}"):
                batch = next(batches, None)
            if batch is None:
                return
            if batch.nbytes > MAX_BATCH_BYTES:
                told = f"{batch.nbytes:,} bytes; {MAX_BATCH_BYTES:,} are taken at once"
                raise BatchFileError(f"{self.name}: the {batch.num_rows:,} rows behind row {before:,} have {told}")
            before += batch.num_rows
            yield batch.select([column for column in self._used if column in batch.schema.names])

    def _batch_rows(self, group: int) -> int:
        """How many rows of a group are made at once."""
        told = self._file.metadata.row_group(group)
        mean = told.total_byte_size // max(1, told.num_rows)
        return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, mean)))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Whatever Arrow raises of a file, as BatchFileError."""
        try:
            yield
        except _ERRORS as error:
            reason = one_line(str(error), SHOWN_INPUT) or type(error).__name__
            if "encrypt" in reason.lower() or "decrypt" in reason.lower():
                reason = "it is encrypted; write it without"
            raise BatchFileError(f"{self.name} {what}: {reason}") from error


_ERRORS = (pyarrow.ArrowException, KeyError, OSError, OverflowError, ValueError)
"""What Arrow raises of a file that is broken, and of values that Python has none of."""


def _rows(batch: pyarrow.RecordBatch) -> list[Cells]:
    """Its rows; where one has a value that Python has none of, each is made by itself."""
    try:
        rows = batch.to_pylist(maps_as_pydicts="strict")
    except _ERRORS:
        return [_row(batch.slice(number, 1)) for number in range(batch.num_rows)]
    return list(map(row_of, rows))


def _row(row: pyarrow.RecordBatch) -> Cells:
    values, fault = dict[str, Any](), None
    for column, cells in zip(row.schema.names, row.columns, strict=True):
        try:
            (values[column],) = cells.to_pylist(maps_as_pydicts="strict")
        except _ERRORS as error:
            told = f"cannot be read: {one_line(str(error), SHOWN_INPUT)}"
            fault = fault or Fault(column, "cannot be read", told)
    return row_of(values, fault)
