"""The rows of many chunks in the order of the input, with a bounded part of them in memory.

They are dealt out to files by ranges of their numbers, each of which is sorted by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.batch.output.errors import read, written
from tasks.batch.output.schema import SCHEMA

RANGE = 16 << 20
"""Characters of the rows of one range, about."""
MAX_RANGES = 256
"""Files that are open at once; beyond 4 thousand million characters ranges grow."""
NAME = "sorting-{:03d}.arrow.tmp"
_IPC = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def in_input_order(
    chunks: Iterable[pa.Table], rows: int, characters: int, folder: Path, largest: int = RANGE
) -> Iterator[pa.Table]:
    """All rows of the chunks, which have numbers from 1 to `rows`, sorted. Raises OutputError."""
    ranges = min(MAX_RANGES, max(1, rows), 1 + characters // largest)
    size = max(1, -(-rows // ranges))
    if ranges == 1:
        yield _sorted(list(chunks))
        return
    paths = [folder / NAME.format(number) for number in range(-(-rows // size))]
    try:
        _dealt(chunks, size, paths)
        for path in paths:
            with read(path), pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
                yield _sorted([reader.read_all()])
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _dealt(chunks: Iterable[pa.Table], size: int, paths: list[Path]) -> None:
    """Each row into the file of its range."""
    with written(paths[0]), ExitStack() as opened:
        writers = []
        for path in paths:
            file = opened.enter_context(pa.OSFile(str(path), "wb"))
            writers.append(opened.enter_context(pa.ipc.new_stream(file, SCHEMA, options=_IPC)))
        for chunk in chunks:
            ranges = (chunk.column("row").to_numpy() - 1) // size
            at = np.argsort(ranges, kind="stable")
            grouped = chunk.take(pa.array(at))
            numbers, starts = np.unique(ranges[at], return_index=True)
            for number, start, end in zip(numbers, starts, [*starts[1:], len(at)], strict=True):
                writers[number].write_table(grouped.slice(start, end - start))


def _sorted(chunks: list[pa.Table]) -> pa.Table:
    if not chunks:
        return SCHEMA.empty_table()
    table = pa.concat_tables(chunks).combine_chunks()
    return table.take(pa.array(np.argsort(table.column("row").to_numpy(), kind="stable")))
