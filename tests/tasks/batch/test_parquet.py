"""Parquet as pyarrow and pandas write it: values are what the file says, and what is no text is told with its row."""

from __future__ import annotations

import io
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pyarrow.parquet import encryption

from tasks.batch import parquet_records
from tasks.batch.files import opened
from tasks.batch.records import MAX_RECORD, BatchFileError
from tasks.batch.rows import Columns, read_rows
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT
from tests.tasks.batch.reading import Files
from tests.tasks.batch.test_rows import SLOW


def written(columns: dict[str, Any] | pa.Table, **how: Any) -> bytes:
    """A Parquet file of these columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    file = io.BytesIO()
    parquet.write_table(table, file, **how)
    return file.getvalue()


def test_a_rows_number_stands_where_others_have_lines(files: Files) -> None:
    content = written({"id": ["a", "b", "c"], "task": ["one", None, ""]}, row_group_size=2)
    for name in ("a.parquet", "a.pq", "A.PARQUET"):
        read = files.read(name, content)
        assert (read.lines, read.ids, read.tasks) == ([1, 2, 3], ["a", "b", "c"], ["one", None, None])
        assert read.faults == [(2, "task", "is empty"), (3, "task", "is empty")]
    told = files.refused("a.parquet", written({"id": ["x", "y", "x"], "task": ["a", "b", "c"]}))
    assert told == "a.parquet row 3: id: 'x' is the id of row 1 already; `--duplicate-ids keep` takes both"


def test_ids_and_tasks_are_what_the_file_says(files: Files) -> None:
    words = ["NA", "None", "null", "nan", "True", "1.10", "007", "a\u2028b\x85c\r\nd"]
    assert files.read("a.parquet", written({"task": words})).tasks == words
    assert files.read("a.parquet", written({"id": ["007", "1e5"], "task": ["a", "b"]})).ids == ["007", "1e5"]


def test_integers_beside_nulls_stay_integers_and_exact(files: Files) -> None:
    ids = pa.array([9007199254740993, None, 3], pa.int64())
    assert files.read("a.parquet", written({"id": ids, "task": ["a"] * 3})).ids == ["9007199254740993", "2", "3"]
    read = files.read("a.parquet", written({"n": ids, "task": ["a"] * 3}), Columns(context=("n",)))
    assert read.contexts == [{"n": 9007199254740993}, {"n": None}, {"n": 3}]
    large = written({"id": pa.array([2**64 - 1], pa.uint64()), "task": ["a"]})
    assert files.read("a.parquet", large).ids == [str(2**64 - 1)]


def test_what_pandas_writes_is_read_with_its_index(files: Files) -> None:
    """An index is dropped by its own reader where it has no name, and a column of numbers with gaps is of floats."""
    frame = pd.DataFrame({"task": ["a", "b"]}, index=["k-1", "k-2"])
    file = io.BytesIO()
    frame.to_parquet(file)
    assert files.read("a.parquet", file.getvalue(), Columns(id="__index_level_0__")).ids == ["k-1", "k-2"]
    named = io.BytesIO()
    frame.rename_axis("key").to_parquet(named)
    assert files.read("a.parquet", named.getvalue(), Columns(id="key")).ids == ["k-1", "k-2"]
    gaps = io.BytesIO()
    pd.DataFrame({"id": [1, None], "task": ["a", "b"]}).to_parquet(gaps)
    assert files.read("a.parquet", gaps.getvalue()).ids == ["1.0", "2"]


TYPED = {
    "struct": pa.array([{"a": 1, "b": None}]),
    "list": pa.array([[1, 2]]),
    "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "numbered": pa.array([[(7, "x")]], pa.map_(pa.int64(), pa.string())),
    "decimal": pa.array([Decimal("1.10")]),
    "same": pa.array([Decimal("1.5")]),
    "date": pa.array([date(2024, 1, 1)]),
    "time": pa.array([time(12, 30)]),
    "seconds": pa.array([datetime(2024, 1, 1)], pa.timestamp("s")),
    "zoned": pa.array([datetime(2024, 1, 1, 12, tzinfo=UTC)], pa.timestamp("us", "UTC")),
    "nanos": pa.array([1704067200000000001], pa.timestamp("ns")),
    "duration": pa.array([timedelta(hours=30, milliseconds=5)]),
    "word": pa.array(["x"]).dictionary_encode(),
    "large": pa.array(["y"], pa.large_string()),
    "float": pa.array([0.1]),
}
CONTEXT = {
    "struct": {"a": 1, "b": None},
    "list": [1, 2],
    "map": {"k": 1},
    "numbered": {"7": "x"},
    "decimal": "1.10",
    "same": 1.5,
    "date": "2024-01-01",
    "time": "12:30:00",
    "seconds": "2024-01-01T00:00:00",
    "zoned": "2024-01-01T12:00:00+00:00",
    "nanos": "2024-01-01T00:00:00.000000001",
    "duration": "P1DT6H0.005S",
    "word": "x",
    "large": "y",
    "float": 0.1,
}


def test_values_of_all_types_become_json(files: Files) -> None:
    content = written({"task": ["a"], **TYPED})
    read = files.read("a.parquet", content, Columns(context=tuple(TYPED)))
    assert read.contexts == [CONTEXT]
    assert files.read("a.parquet", content, Columns("date")).tasks == ["2024-01-01"]
    assert files.read("a.parquet", content, Columns(template=TaskTemplate("{{ decimal }}"))).tasks == ["1.10"]
    assert files.read("a.parquet", content, Columns(id="decimal")).ids == ["1.10"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [("struct", "an object"), ("list", "a list"), ("decimal", "a number"), ("float", "a number"), ("same", "a number")],
)
def test_what_is_no_text_is_no_task(files: Files, column: str, reason: str) -> None:
    read = files.read("a.parquet", written(TYPED), Columns(column))
    assert read.faults == [(1, column, "is no text")]
    assert reason in read.told[0]
    assert files.read("a.parquet", written(TYPED), Columns("decimal", coerce=True)).tasks == ["1.10"]


NAN = float("nan")
UNUSABLE = [
    (pa.array([b"x"]), "has 1 bytes, which are no text"),
    (pa.array([NAN]), "is nan, which is no number"),
    (pa.array([float("-inf")]), "is -inf"),
    (pa.array([{"a": [NAN]}]), "is nan"),
    (pa.array([[b"xy"]]), "has 2 bytes"),
    (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())), "cannot be read"),
    (pa.array([2**62], pa.timestamp("us")), "cannot be read"),
]


@pytest.mark.parametrize(("array", "told"), UNUSABLE)
def test_a_cell_that_cannot_be_used_makes_a_bad_row_where_it_would_be(files: Files, array: pa.Array, told: str) -> None:
    both = pa.concat_arrays([array, pa.nulls(1, array.type)])
    content = written({"id": ["a", "b"], "task": ["fine", "fine"], "x": both})
    assert files.read("a.parquet", content).tasks == ["fine", "fine"]
    read = files.read("a.parquet", content, Columns(context=("x",)))
    assert [fault[:2] for fault in read.faults] == [(1, "x")]
    assert told in read.told[0]
    assert read.tasks == [None, "fine"]


def test_an_id_that_is_no_number_is_a_bad_row(files: Files) -> None:
    """Two of them are no duplicates; the null beside them is a row without an id."""
    read = files.read("a.parquet", written({"id": pa.array([NAN, 1.5, NAN, None]), "task": ["a"] * 4}))
    assert read.faults == [(1, "id", "is no text"), (3, "id", "is no text")]
    assert read.ids == [None, "1.5", None, "4"]


def test_text_that_is_no_utf_8_is_a_bad_row(files: Files) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff\xfe")]
    )
    read = files.read("a.parquet", written({"task": broken}))
    assert (read.tasks, read.faults) == (["ok", None], [(2, "task", "cannot be read")])


def test_only_the_columns_that_are_used_are_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a dot is no part of another column."""
    seen: list[list[str]] = []
    true = parquet.ParquetFile.iter_batches

    def spied(self: Any, size: int, groups: list[int], columns: list[str], **how: Any) -> Any:
        seen.append(columns)
        return true(self, size, groups, columns, **how)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spied)
    content = written({"task": ["a"], "task.b": ["b"], "picture": [b"x" * 1000], "n": [{"b": 1}], "n.b": ["c"]})
    assert files.read("a.parquet", content, Columns(context=("n",))).contexts == [{"n": {"b": 1}}]
    assert files.read("a.parquet", content, Columns("task.b", context=("n.b",))).contexts == [{"n.b": "c"}]
    assert seen == [["task", "n"], ["task.b", "n.b"]]


def test_a_value_that_is_too_long_is_told_with_its_size(files: Files) -> None:
    texts = ["a" * (MAX_TEXT + 1), "b" * MAX_TEXT, "c" * (MAX_RECORD + 1)]
    read = files.read("a.parquet", written({"task": texts}))
    assert read.faults == [(1, "task", "is too long"), (3, "row", "is too large")]
    assert f"{MAX_RECORD + 1:,}" in read.told[1]


def test_one_large_text_that_a_dictionary_repeats_is_not_held_many_times(tmp_path: Path) -> None:
    """A file of kilobytes is a gigabyte of rows: 200 times a million characters."""
    path = tmp_path / "a.parquet"
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 1_000_000]))
    parquet.write_table(pa.table({"task": word}), path, dictionary_pagesize_limit=10_000_000, store_schema=False)
    assert path.stat().st_size < 200_000
    before = pa.total_allocated_bytes()
    with opened(path) as records:
        rows = iter(read_rows(records, Columns()))
        next(rows)
        assert pa.total_allocated_bytes() - before < 80_000_000
        assert sum(1 for _ in rows) == 199


def test_rows_that_are_more_at_once_than_a_bound_are_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_records, "MAX_BATCH_BYTES", 1_000)
    told = files.refused("a.parquet", written({"task": ["x" * 2_000]}))
    assert told.startswith("a.parquet: the 1 rows behind row 0 have 2,0")


@pytest.mark.parametrize("cut", [4, 8, 100, -1, -4, -8, -200])
def test_a_file_that_is_cut_off_is_refused(files: Files, cut: int) -> None:
    content = written({"task": [f"task {number}" for number in range(100)]})
    assert files.refused("a.parquet", content[:cut]).startswith("a.parquet ")


def test_broken_pages_are_told_with_the_row_before_them(files: Files) -> None:
    content = bytearray(written({"task": [f"task {number}" for number in range(10_000)]}, row_group_size=5_000))
    group = parquet.ParquetFile(io.BytesIO(content)).metadata.row_group(1).column(0)
    start = group.data_page_offset
    content[start : start + 200] = b"\xff" * 200
    assert files.refused("a.parquet", bytes(content)).startswith("a.parquet cannot be read behind row 5,000: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "a.parquet is no Parquet: it does not begin with PAR1"),
        (b"id,task\n", "a.parquet is no Parquet"),
        (b"PAR1" * 3, "a.parquet cannot be read: "),
        (b"PARE" + b"x" * 50 + b"PARE", "a.parquet is encrypted"),
        (written({"task": pa.array([], pa.string())}), "a.parquet has no row"),
        (written(pa.table({})), "a.parquet has no column"),
        (written(pa.table([["a"], ["b"]], names=["task", "task"])), "a.parquet: the column 'task' is there 2 times"),
        (written({"prompt": ["a"], "messages": ["b"]}), "likely is --task prompt, --messages messages"),
        (written({"x": ["a"]}), "a.parquet has no column 'task'; its columns are x"),
    ],
)
def test_a_file_without_rows_or_columns_or_sense_is_told(files: Files, content: bytes, told: str) -> None:
    assert files.refused("a.parquet", content).startswith(told) or told in files.refused("a.parquet", content)
    assert "--delimiter: a.parquet is Parquet" in files.refused("a.parquet", content, delimiter=";")


class _Keys(encryption.KmsClient):
    """Keys that are wrapped in nothing."""

    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return key_bytes.hex().encode()

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return bytes.fromhex(wrapped_key.decode())


@pytest.mark.parametrize("plain_footer", [False, True])
def test_a_file_that_is_encrypted_is_told(files: Files, plain_footer: bool) -> None:
    made = encryption.CryptoFactory(_Keys).file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration("k", column_keys={"k": ["task"]}, plaintext_footer=plain_footer),
    )
    content = written({"id": ["a"], "task": ["b"]}, encryption_properties=made)
    assert "is encrypted" in files.refused("a.parquet", content)


@SLOW
@given(st.data())
def test_whatever_is_broken_nothing_else_is_raised(files: Files, data: st.DataObject) -> None:
    content = bytearray(written({"id": ["a", None], "task": ["x", "y"], "n": [{"a": [1]}, None]}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = files.read("a.parquet", bytes(content), Columns(context=("n",)))
    except BatchFileError as error:
        assert str(error)
    else:
        assert [row.item is None for row in read.rows] == [row.fault is not None for row in read.rows]


def test_a_large_file_is_read_as_a_stream(tmp_path: Path) -> None:
    """40 000 rows of 500 different characters in one group: neither Arrow nor Python holds more than some of them."""
    path = tmp_path / "a.parquet"
    tasks = [f"{number} " * 80 for number in range(40_000)]
    parquet.write_table(pa.table({"task": tasks}), path, row_group_size=40_000, use_dictionary=False)
    del tasks
    before = pa.total_allocated_bytes()
    with opened(path) as records:
        rows = iter(read_rows(records, Columns()))
        next(rows)
        most = 0
        tracemalloc.start()
        for number, _ in enumerate(islice(rows, 2_000)):
            if not number % 100:
                most = max(most, pa.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(1 for _ in rows) == 40_000 - 2_001
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5_000_000
    assert peak < 5_000_000
