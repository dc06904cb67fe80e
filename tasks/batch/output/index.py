"""Which rows of the parts hold, as arrays: of a row that was written more than once the last one does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tasks.batch.records import BatchFileError
from tasks.council.plain import sound

KEYS = ("id", "key", "row")
"""Columns that say which row one is."""
_WIDTH = 16
_SHOWN = 10


class Place(NamedTuple):
    """Where a row stands in the input as it is now; its id and key are those that its result was written with."""

    id: str
    key: str
    row: int
    line: int


class Placed(NamedTuple):
    """The rows of one part that hold: a mask over all of them, and the number and line of each that does."""

    mask: pa.Array
    rows: pa.Array
    lines: pa.Array | None


class Index:
    """Arrays over all rows of all parts, in the order of their writing: some 60 bytes a row while it is made."""

    def __init__(self, parts: Iterable[pa.Table]) -> None:
        """Of the columns `KEYS` of each part."""
        digests, rows, sizes = bytearray(), [np.empty(0, np.int64)], [0]
        for table in parts:
            numbers = table.column("row").to_numpy()
            names = zip(table.column("id").to_pylist(), table.column("key").to_pylist(), numbers, strict=True)
            for id_, key, number in names:
                digests += _digest(id_, key, number)
            rows.append(numbers)
            sizes.append(table.num_rows)
        self._digests = _digests(digests)
        self._rows = np.concatenate(rows)
        self._ends = np.cumsum(sizes)
        self._lines: np.ndarray | None = None
        self._held = np.zeros(len(self._rows), bool)
        self._held[_last_of_each(self._digests)] = True

    def place(self, places: Iterable[Place]) -> None:
        """Give rows the numbers and lines that they have in the input now; others do not hold any more.

        Raises BatchFileError where two places are one row. A place without a result is missing (`require_all`).
        """
        digests, rows, lines = bytearray(), [], []
        for place in places:
            digests += _digest(sound(place.id), sound(place.key), place.row)
            rows.append(place.row)
            lines.append(place.line)
        wanted, numbers = _digests(digests), np.array(rows, np.int64)
        at = np.argsort(wanted, kind="stable")
        twice = np.flatnonzero(wanted[at][1:] == wanted[at][:-1])
        if len(twice):
            first, second = numbers[at][twice[0] : twice[0] + 2]
            raise BatchFileError(f"rows {first:,} and {second:,} of the input have one id and one key")
        held = np.flatnonzero(self._held)
        found = np.searchsorted(wanted[at], self._digests[held])
        found[found == len(wanted)] = 0
        known = wanted[at][found] == self._digests[held] if len(wanted) else np.zeros(len(held), bool)
        self._held[:] = False
        self._held[held[known]] = True
        self._rows = self._rows.copy()
        self._lines = np.zeros(len(self._rows), np.int64)
        self._rows[held[known]] = numbers[at][found[known]]
        self._lines[held[known]] = np.array(lines, np.int64)[at][found[known]]

    def __len__(self) -> int:
        """Rows that hold."""
        return int(self._held.sum())

    def require_all(self, expected: int, output: str) -> None:
        """Raise BatchFileError, which names the difference, unless each of so many rows holds exactly once."""
        there = np.sort(self._rows[self._held])
        if len(there) == expected and np.array_equal(there, np.arange(1, expected + 1)):
            return
        told = [f"{output} is not written: its parts have {len(there):,} rows, the input {expected:,}"]
        missing = np.setdiff1d(np.arange(1, expected + 1), there, assume_unique=False)
        twice = np.unique(there[1:][there[1:] == there[:-1]])
        beyond = there[(there < 1) | (there > expected)]
        for what, numbers in (("missing", missing), ("there twice", twice), ("not in the input", beyond)):
            if len(numbers):
                told.append(f"{what} are rows {_numbers(numbers)}")
        raise BatchFileError("; ".join(told))

    def __iter__(self) -> Iterator[Placed]:
        """What holds of each part, in their order."""
        for start, end in zip(self._ends[:-1], self._ends[1:], strict=True):
            mask = self._held[start:end]
            lines = None if self._lines is None else pa.array(self._lines[start:end][mask])
            yield Placed(pa.array(mask), pa.array(self._rows[start:end][mask]), lines)


def held_of(table: pa.Table, placed: Placed) -> pa.Table:
    """The rows of a part that hold, with the numbers that they have now where the table has any."""
    held = table.filter(placed.mask)
    for name, values in (("row", placed.rows), ("line", placed.lines)):
        at = held.schema.get_field_index(name)
        if values is not None and at >= 0:
            held = held.set_column(at, held.schema.field(at), values)
    return held


def _digest(id_: str, key: str, row: int) -> bytes:
    own = f"{len(id_)}:{id_}{key}" if key else f"row {row}:{id_}"
    return hashlib.blake2b(own.encode(), digest_size=_WIDTH - 1).digest() + b"\1"


def _digests(content: bytearray) -> np.ndarray:
    """As an array of bytes; numpy drops zeros at their ends, of which there are none."""
    return np.frombuffer(bytes(content), f"S{_WIDTH}")


def _last_of_each(digests: np.ndarray) -> np.ndarray:
    """Indices of the last of those that are equal."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    last = np.ones(len(order), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]


def _numbers(numbers: np.ndarray) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:_SHOWN])
    return shown if len(numbers) <= _SHOWN else f"{shown} and {len(numbers) - _SHOWN:,} more"
