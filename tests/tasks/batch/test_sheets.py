"""Spreadsheets as people save them: cells are what is seen, and what is wrong is told with the cell's name."""

from __future__ import annotations

import io
import struct
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch import rows, sheet_records
from tasks.batch.files import opened
from tasks.batch.records import MAX_RECORD, BatchFileError
from tasks.batch.rows import Columns, read_rows
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT
from tests.tasks.batch.reading import Files
from tests.tasks.batch.sheets import XLS, ods, ods_cell, ods_row, saved, with_part, xlsb, xlsx
from tests.tasks.batch.test_rows import SLOW

HEADER = ("id", "task", "n")


def test_the_header_is_the_first_row_that_is_not_empty(files: Files) -> None:
    """Rows have the numbers that the sheet shows, wherever it begins, and empty ones are passed over."""
    book = openpyxl.Workbook()
    sheet = book.active
    for cell, value in {"C4": " id ", "D4": "task", "C5": "a", "D5": "one", "C9": "b", "D9": "two"}.items():
        sheet[cell] = value
    read = files.read("a.xlsx", saved(book))
    assert (read.ids, read.tasks, read.lines) == (["a", "b"], ["one", "two"], [5, 9])
    sheet["C10"], sheet["D12"] = "b", "end"
    told = files.refused("a.xlsx", saved(book))
    assert told == "a.xlsx sheet row 10: id: 'b' is the id of sheet row 9 already; `--duplicate-ids keep` takes both"


SEEN = [
    ("007", "007"),
    (7.0, 7),
    (7, 7),
    (1.1, 1.1),
    (0.1 + 0.2, 0.3),
    (-0.5, -0.5),
    (12345.678, 12345.678),
    (1e20, 1e20),
    (1e-7, 1e-7),
    (True, True),
    (date(2024, 1, 1), "2024-01-01"),
    (datetime(2024, 1, 1), "2024-01-01"),
    (datetime(2024, 1, 1, 12, 30, 5), "2024-01-01T12:30:05"),
    (time(3, 4), "03:04:00"),
    (timedelta(hours=30), "30:00:00"),
    (timedelta(minutes=5), "0:05:00"),
    ("NA", "NA"),
    ("None", "None"),
    ("1e5", "1e5"),
    ("TRUE", "TRUE"),
    ("a\u2028b\x85c", "a\u2028b\x85c"),
    ("a\nb", "a\nb"),
    ("\U0001f600", "\U0001f600"),
    (" x ", " x "),
]


@pytest.mark.parametrize(("cell", "seen"), SEEN)
def test_cells_are_what_a_person_sees(files: Files, cell: Any, seen: Any) -> None:
    content = xlsx(("task", "n"), ("a", cell))
    assert files.read("a.xlsx", content, Columns(context=("n",))).contexts == [{"n": seen}]
    assert files.read("a.xlsm", content, Columns(id="n")).ids == ([str(seen)] if seen is not True else [None])


def test_numbers_and_truth_values_are_no_tasks_unless_they_are_asked_for(files: Files) -> None:
    content = xlsx(("task",), ("2024",), (2024,), (1.50,), (True,), (date(2024, 1, 1),))
    read = files.read("a.xlsx", content)
    assert read.faults == [(3, "task", "is no text"), (4, "task", "is no text"), (5, "task", "is no text")]
    assert read.told[0] == "cell A3: is a number; --coerce takes it"
    coerced = files.read("a.xlsx", content, Columns(coerce=True))
    assert coerced.tasks == ["2024", "2024", "1.5", "true", "2024-01-01"]
    template = TaskTemplate("{{ task }}!")
    assert files.read("a.xlsx", content, Columns(template=template)).tasks[1] == "2024!"


def test_a_number_of_more_digits_than_a_spreadsheet_keeps_is_counted(files: Files) -> None:
    """Excel writes zeros for them; other programs write more than it would read."""
    read = files.read("a.xlsx", xlsx(("id", "task"), (9007199254740993, "a"), (123456789012345, "b")))
    assert read.ids == ["9007199254740990", "123456789012345"]
    assert read.notes == {"number of more than 15 digits: spreadsheets keep no more": 1}


def test_an_error_is_a_bad_row_that_names_the_cell(files: Files) -> None:
    content = xlsx(HEADER, ("a", "#N/A", 1), ("b", "fine", "#REF!"), ("c", "=1/0", 3))
    read = files.read("a.xlsx", content)
    assert read.faults == [(2, "task", "is an error"), (4, "task", "is empty")]
    assert read.told[0] == "cell B2 is the error #N/A"
    assert files.read("a.xlsx", content, Columns(context=("n",))).told[1] == "cell C3 is the error #REF!"


def test_errors_are_found_wherever_the_sheet_begins_and_without_names_of_cells(files: Files) -> None:
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row r="3"><c r="AB3" t="inlineStr"><is><t>task</t></is></c></row>'
        "<row><c r=\"AB4\" t='e'><v>#NAME?</v></c></row>"
        '<row r="6"><c r="AB6" t="inlineStr"><is><t>e</t></is></c></row></sheetData></worksheet>'
    )
    read = files.read("a.xlsx", with_part(xlsx(("x",)), "xl/worksheets/sheet1.xml", sheet))
    assert (read.told, read.tasks, read.lines) == (["cell AB4 is the error #NAME?"], [None, "e"], [4, 6])


def test_an_empty_task_names_its_cell(files: Files) -> None:
    """So does a formula that was never computed, as programs other than Excel write it."""
    read = files.read("a.xlsx", xlsx(HEADER, ("a", None, 1), ("b", "=A1", 1), ("c", "  ", 1)))
    assert read.told == ["cell B2: is empty", "cell B3: is empty", "cell B4: is empty"]
    assert read.ids == ["a", "b", "c"]
    told = files.read("a.xlsx", xlsx(("key", "task"), ("k", "a"), (None, "b")), Columns(id="key")).told
    assert told[0].startswith("cell A3: the column 'key', which --id names, is empty")


def test_a_text_that_excel_may_have_cut_is_counted(files: Files) -> None:
    """It counts as UTF-16 does; only the columns that are used are looked at."""
    wide = "\U0001f600" * 16_383 + "x"
    content = xlsx(HEADER, ("a", "x" * 32_767, "y" * 32_767), ("b", "x" * 32_766, None), ("c", wide, None))
    read = files.read("a.xlsx", content)
    assert read.notes == {"text of exactly 32,767 characters: Excel cuts longer ones there": 2}
    assert files.read("a.xlsx", content, Columns(context=("n",))).notes.popitem()[1] == 3


def test_more_cells_than_headers_shift_nothing(files: Files) -> None:
    read = files.read("a.xlsx", xlsx(("id", None, "task"), ("a", "x", "fine"), ("b", None, "c", "d"), ("e",)))
    assert read.faults == [(3, "row", "has too many cells"), (4, "task", "is empty")]
    assert read.told[0] == "the cell D3 has no header; the last one is in column C"
    assert read.tasks == ["fine", None, None]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (xlsx(), "a.xlsx is empty: there is no header and no row in 'Sheet'"),
        (xlsx(("id", "task")), "a.xlsx has no row below its header"),
        (xlsx(("id", "task", "task"), (1, 2, 3)), "a.xlsx sheet row 1: the column 'task' stands in the header 2 times"),
        (xlsx(("\u00a0", None), (1, 2)), "a.xlsx sheet row 1: the header names no column"),
        (xlsx(("id", "#N/A"), (1, 2)), "a.xlsx sheet row 1: the cell B1 of the header is an error"),
        (
            xlsx(("id", "prompt"), (1, 2)),
            "a.xlsx has no column 'task'; its columns are id, prompt; likely is --task prompt",
        ),
        (b"", "a.xlsx is no spreadsheet that can be read"),
        (b"id,task\n1,a\n", "a.xlsx is no spreadsheet that can be read"),
        (xlsx(("task",), ("a",))[:-30], "a.xlsx is no spreadsheet that can be read"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 2000, "a.xlsx is protected by a password, or is broken"),
    ],
)
def test_a_sheet_without_rows_or_columns_or_sense_is_told(files: Files, content: bytes, told: str) -> None:
    assert files.refused("a.xlsx", content).startswith(told)


def test_a_file_that_a_password_protects_is_told(files: Files) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(100)
    for name in ("a.xlsx", "a.xls"):
        assert files.refused(name, ole) == f"{name} is protected by a password; save it without one"
    old = bytearray(XLS)
    after = XLS.index(b"\x09\x08\x10\0") + 20
    old[after : after + 2] = b"\x2f\0"  # the record FILEPASS
    assert files.refused("a.xls", bytes(old)).startswith("a.xls is protected by a password, or is broken")


def test_the_first_visible_sheet_is_read_or_the_one_that_is_named(files: Files) -> None:
    content = xlsx(("task",), ("a",), _Old=[("task",), ("old",)], March=[("task",), ("march",)])
    assert files.read("a.xlsx", content).tasks == ["a"]
    assert files.read("a.xlsx", content, sheet="March").tasks == ["march"]
    assert files.read("a.xlsx", content, sheet="Old").tasks == ["old"]
    told = files.refused("a.xlsx", content, sheet="march")
    assert told == "a.xlsx has no sheet 'march'; its sheets are 'Sheet', 'Old' (hidden), 'March'"
    assert "--sheet: has a NUL" in files.refused("a.xlsx", content, sheet="a\0")
    assert "has no sheet '-c'" in files.refused("a.xlsx", content, sheet="-c")
    assert files.refused("a.csv", "task\na\n", sheet="x") == "--sheet: a.csv is CSV, which has none"
    book = openpyxl.load_workbook(io.BytesIO(content))
    book.move_sheet("Old", -2)
    assert files.read("a.xlsx", saved(book)).tasks == ["a"]
    book.create_chartsheet("Chart", 0)
    assert files.read("a.xlsx", saved(book)).tasks == ["a"]


def test_what_pandas_writes_is_read(files: Files) -> None:
    """With its index, whose column has no name."""
    frame = pd.DataFrame({"id": ["007", "x"], "task": ["a", "b"], "when": pd.to_datetime(["2024-01-01"] * 2)})
    for index in (True, False):
        frame.to_excel(files.folder / "made.xlsx", index=index)
        read = files.read("a.xlsx", (files.folder / "made.xlsx").read_bytes(), Columns(context=("when",)))
        assert (read.ids, read.tasks, read.contexts[0]) == (["007", "x"], ["a", "b"], {"when": "2024-01-01"})


def test_old_binary_and_open_documents_are_read(files: Files) -> None:
    read = files.read("a.xls", XLS, Columns(context=("when",)))
    assert (read.ids, read.tasks, read.contexts[0]) == (["007", "7"], ["Choose", None], {"when": "2024-01-01"})
    assert read.told == ["cell B3: is empty"]  # an error, of which the reader of .xls tells nothing
    read = files.read(
        "a.xlsb", xlsb(("id", "task", "n"), ("007", "a", 7.0), ("x", b"\x2a", 1.5)), Columns(context=("n",))
    )
    assert (read.ids[0], read.contexts[0], read.told) == ("007", {"n": 7}, ["cell B3 is the error #N/A"])
    error = ods_cell("string", "#N/A", 'office:string-value="" calcext:value-type="error"')
    empty = '<table:table-cell table:number-columns-repeated="2"/>'
    table = (
        ods_row(empty, "id", "task")
        + ods_row(empty, repeated=3)
        + ods_row(empty, "007", "a")
        + ods_row(empty, "x", error)
        + ods_row(
            empty, ods_cell("float", "7", 'office:value="7"'), ods_cell("date", "x", 'office:date-value="2024-01-01"')
        )
        + ods_row('<table:table-cell table:number-columns-repeated="16384"/>', repeated=1_048_000)
    )
    read = files.read("a.ods", ods(Other=ods_row("task") + ods_row(error), Data=table), sheet="Data")
    assert (read.ids, read.lines, read.tasks) == (["007", "x", "7"], [5, 6, 7], ["a", None, "2024-01-01"])
    assert read.told == ["cell D6 is the error #N/A"]


def test_a_cell_far_away_ends_no_process_of_ours(files: Files) -> None:
    """A sheet is held as a rectangle: 17 thousand million cells of a file of 5 kB."""
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "task", "x"
    told = files.refused("a.xlsx", saved(book))
    assert told.startswith("a.xlsx cannot be read: it is broken, or takes more than 2,147,483,648 bytes of memory")
    cell = ods_cell("string", "x", 'table:number-columns-repeated="16000"')
    repeated = ods(Data=ods_row("task") + ods_row(cell, repeated=1_000_000))
    assert files.refused("a.ods", repeated).startswith("a.ods ")


def test_what_unpacks_to_too_much_is_refused_by_the_archives_directory(files: Files) -> None:
    content = bytearray(xlsx(("task",), ("a",)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 3_000_000_000)
    told = files.refused("a.xlsx", bytes(content))
    assert told.startswith("a.xlsx unpacks to 3,000,0")
    assert told.endswith("bytes; 1,000,000,000 are taken")


def test_a_spreadsheet_has_a_bound_of_bytes_and_of_rows(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    content = xlsx(("task",), ("a",), ("b",), ("c",))
    monkeypatch.setattr(rows, "MAX_ROWS", 2)
    assert files.refused("a.xlsx", content) == "a.xlsx sheet row 4: more than 2 rows are too many for a batch"
    monkeypatch.setattr(sheet_records, "MAX_FILE", 1_000)
    told = files.refused("a.xlsx", content)
    assert told.endswith(
        "of a spreadsheet 1,000 are taken, since a sheet is held in memory as a whole; write it as CSV or Parquet"
    )


def test_texts_that_no_task_may_be_are_told_with_their_size(files: Files) -> None:
    """Longer than Excel's own, as other programs write them."""
    read = files.read("a.ods", ods(Data="".join(map(ods_row, ["task", "x" * (MAX_TEXT + 1), "y" * (MAX_RECORD + 1)]))))
    assert read.faults == [(2, "task", "is too long"), (3, "row", "is too large")]


def test_the_process_ends_with_the_file(files: Files) -> None:
    """Whether all of it is read, or not."""
    (files.folder / "a.xlsx").write_bytes(xlsx(("task",), *[("x" * 1000,)] * 500))
    for most in (1, 10_000):
        with opened(files.folder / "a.xlsx") as records:
            process = records._process  # type: ignore[attr-defined]
            for _ in zip(range(most), read_rows(records, Columns()), strict=False):
                pass
        assert process.returncode is not None
        assert not Path(f"/proc/{process.pid}").exists()


def test_the_process_gets_no_key(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_LLM_API_KEY", "secret")
    seen: dict[str, str] = {}
    true = sheet_records.subprocess.Popen

    def spied(*given: Any, env: dict[str, str], **how: Any) -> Any:
        seen.update(env)
        return true(*given, env=env, **how)

    monkeypatch.setattr(sheet_records.subprocess, "Popen", spied)
    assert files.read("a.xlsx", xlsx(("task",), ("a",))).tasks == ["a"]
    assert "PATH" in seen
    assert not any("CONCLAVE" in name for name in seen if name not in ("CONCLAVE_STACK_HOME",))


@SLOW
@given(st.sampled_from([xlsx(("id", "task"), ("a", "#N/A")), XLS, xlsb(("task",), (b"\x07",))]), st.data())
def test_whatever_is_broken_nothing_else_is_raised(files: Files, content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = files.read("a.xlsx", bytes(broken))
    except BatchFileError as error:
        assert str(error)
    else:
        assert [row.item is None for row in read.rows] == [row.fault is not None for row in read.rows]


def test_a_large_sheet_is_read(tmp_path: Path) -> None:
    """20 000 rows of 200 characters in as many texts, within the bounds of the process."""
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Data")
    sheet.append(["id", "task"])
    for number in range(20_000):
        sheet.append([f"k-{number}", f"{number} " * 40])
    book.save(tmp_path / "a.xlsx")
    with opened(tmp_path / "a.xlsx") as records:
        assert sum(row.item is not None for row in read_rows(records, Columns())) == 20_000
