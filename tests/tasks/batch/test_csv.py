"""CSV as it comes from spreadsheets and exports: nothing shifts, nothing turns into a number, lines are the file's."""

from __future__ import annotations

import csv
import io

import pytest

from tasks.batch import lines
from tasks.batch.records import MAX_RECORD
from tasks.batch.rows import Columns
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT
from tests.tasks.batch.reading import Files

EXCEL = "\ufeffid;task\r\n1;Gr\u00fc\u00dfe\r\n"


def test_a_byte_order_mark_is_no_part_of_the_first_column(files: Files) -> None:
    for encoding in (None, "utf-8", "utf-8-sig"):
        read = files.read("a.csv", "\ufeffid,task\n7,Choose\n", encoding=encoding)
        assert (read.ids, read.tasks, read.lines) == (["7"], ["Choose"], [2])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_tells_utf_16_and_32(files: Files, encoding: str) -> None:
    content = EXCEL.encode(encoding) if encoding.endswith(("le", "be")) else EXCEL.lstrip("\ufeff").encode(encoding)
    assert files.read("a.csv", content).tasks == ["Gr\u00fc\u00dfe"]


def test_other_bytes_are_told_with_byte_line_and_option(files: Files) -> None:
    content = "id,task\n1,fine\n2,Gr\u00fc\u00dfe\n".encode("cp1252")
    told = files.refused("a.csv", content)
    assert told.startswith("a.csv line 3: the byte 0xfc (character 5) is no text in utf-8; `--encoding NAME`")
    assert files.read("a.csv", content, encoding="cp1252").tasks == ["fine", "Gr\u00fc\u00dfe"]
    assert "line 2: the byte 0x81" in files.refused("a.csv", b"task\n\x81\n", encoding="cp1252")


def test_utf_16_that_is_cut_off_or_unmarked_is_told(files: Files) -> None:
    assert "a.csv line 3 or soon after it" in files.refused("a.csv", EXCEL.encode("utf-16-le") + b"a")
    for encoding in ("utf-16-le", "utf-16-be"):
        assert f"--encoding {encoding}" in files.refused("a.csv", "id,task\n1,a\n".encode(encoding))


@pytest.mark.parametrize(
    "encoding", ["", "no-such", "rot13", "a\0b", "base64", "\u00fc", "UTF7", "locale", *lines.NO_CHARSETS]
)
def test_an_encoding_that_there_is_not_is_told(files: Files, encoding: str) -> None:
    assert files.refused("a.csv", "task\na\n", encoding=encoding).startswith("--encoding: ")


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("utf-8-sig", "cp1252"),
        ("utf-16", "utf-8"),
        ("utf-32", "utf-16"),
        ("utf-8-sig", "utf-16"),
        ("utf-16", "utf-16-be"),
    ],
)
def test_an_encoding_that_the_byte_order_mark_denies_is_refused(files: Files, written: str, given: str) -> None:
    told = files.refused("a.csv", "task\na\n".encode(written), encoding=given)
    assert told.startswith(f"--encoding: '{given}' is wrong: the byte order mark of a.csv says utf-")
    assert files.read("a.csv", "task,n\na,\n".encode(written), encoding=written).tasks == ["a"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(files: Files, delimiter: str) -> None:
    """From the header alone: cells may hold the others."""
    read = files.read("a.csv", f'id{delimiter}task\n1{delimiter}"a,b;c\td"\n')
    assert read.tasks == ["a,b;c\td"]


def test_two_delimiters_that_cut_alike_are_told(files: Files) -> None:
    told = files.refused("a.csv", "id,task;x\n1,a;b\n")
    assert told == "a.csv line 1: ',' and ';' each cut the header into 2 cells; `--delimiter` says which it is"
    assert files.read("a.csv", "id,task;x\n1,a\n", Columns("task;x"), delimiter=",").tasks == ["a"]
    assert "; should there be more, `--delimiter` says" in files.refused("a.csv", "id|task\n1|a\n")


def test_excels_line_of_the_delimiter_is_read(files: Files) -> None:
    for first in ("sep=|", '"sep=|"', "\ufeffSEP=|"):
        read = files.read("a.csv", f"{first}\r\nid|task\r\n1|a,b;c\r\n")
        assert (read.tasks, read.lines) == (["a,b;c"], [3])
    assert files.read("a.csv", "sep=;\nid;task\n1;a\n", delimiter=";").tasks == ["a"]
    assert files.refused("a.csv", "sep=;\nid,task\n1,a\n", delimiter=",").startswith("--delimiter: ',' is wrong: a.csv")
    assert "--delimiter" in files.refused("a.csv", 'sep="\nid,task\n1,a\n')


def test_a_column_that_differs_in_case_is_named(files: Files) -> None:
    assert "; 'Task' differs in case alone" in files.refused("a.csv", "id,Task\n1,a\n")
    template = TaskTemplate("{{ task }}{{ n }}")
    told = files.refused("a.csv", "id,prompt\n1,a\n", Columns(template=template))
    assert told.endswith("its columns are id, prompt")  # a template is not told of --task
    assert "; 'KEY' differs in case alone" in files.refused("a.csv", "KEY,task\n1,a\n", Columns(id="key"))


def test_another_delimiter_is_named(files: Files) -> None:
    assert files.read("a.csv", "id|task\n1|a,b\n", delimiter="|").tasks == ["a,b"]
    assert files.read("a.csv", "id,x\ttask\n1\ta\n", Columns(id="id,x"), delimiter="tab").tasks == ["a"]
    for wrong in ("||", '"', "\n", "\0"):
        assert files.refused("a.csv", "task\na\n", delimiter=wrong).startswith("--delimiter: ")


def test_a_record_has_the_line_at_which_it_begins(files: Files) -> None:
    for end in ("\n", "\r\n", "\r"):
        read = files.read("a.csv", end.join(["", "id,task", "1,one", "", '2,"a', "b", 'c"', "3,three", ""]).encode())
        assert (read.lines, read.ids) == ([3, 5, 8], ["1", "2", "3"])
        assert read.tasks[1] == f"a{end}b{end}c"


def test_a_quote_that_is_never_closed_is_told_with_its_line(files: Files) -> None:
    told = files.refused("a.csv", 'id,task\n1,one\n2,"two\n3,three\n' + "4,four\n" * 100)
    assert told.startswith("a.csv line 3: a quote that opens in the record which begins there is never closed")


def test_a_quote_that_is_never_closed_is_not_read_without_bound(files: Files) -> None:
    told = files.refused("a.csv", 'id,task\n1,one\n2,"two\n' + "3,three\n" * (MAX_RECORD // 8 + 1))
    assert told.startswith("a.csv line 3: the record which begins there has 4,000,0")


def test_a_quote_inside_a_cell_is_told_and_not_guessed_away(files: Files) -> None:
    """Nobody knows where such a record ends, so no line behind it is taken for a row."""
    for record in ('1,"say "hi" to them"', '1,"He said "hi" to\nme, then left"', '1,"a" ,b'):
        told = files.refused("a.csv", f"id,task\n0,fine\n{record}\n2,fine\n")
        assert told.startswith(
            "a.csv line 3: a quoted cell of the record which begins there goes on behind its closing"
        )
        assert "is written twice" in told
    assert files.refused("a.csv", 'id,"ta"sk\n1,a\n').startswith("a.csv line 1: a quoted cell")


@pytest.mark.parametrize(
    "record", ['1, "a\nb, c"', '\ufeff"1",a', '1,\u200b"a\nb"', '1,\t "a"', ' "1",a', '1,"x"\n2, "b"', '"a, ""b", "c"']
)
def test_blanks_before_a_quote_are_told(files: Files, record: str) -> None:
    told = files.refused("a.csv", f"id,task\n{record}\n3,c\n")
    assert "a cell has blanks before its quote" in told
    assert told.startswith(f"a.csv line {3 if '2' in record else 2}: ")
    assert "a.csv line 1: " in files.refused("a.csv", 'id, "task"\n1,a\n')


def test_a_quote_that_is_part_of_a_cell_is_text(files: Files) -> None:
    """Within a bare cell, or written twice in a quoted one, whatever stands before it."""
    read = files.read(
        "a.csv", '\n\nid,task\n1,6" pipe\n2,x"y\n3," ""b"""\n4,"a, ""b"""\n5, a "b"\n"a, ""b"," ""c"""\r\n'
    )
    assert read.tasks == ['6" pipe', 'x"y', '"b"', 'a, "b"', 'a "b"', '"c"']


def test_more_or_fewer_cells_than_the_header_shift_nothing(files: Files) -> None:
    read = files.read("a.csv", "id,task\n1,a,b\n2,fine\n3\n")
    assert read.faults == [(2, "row", "has too many cells"), (4, "row", "has too few cells")]
    assert read.tasks == [None, "fine", None]
    assert read.rows[0].fault is not None
    assert read.rows[0].fault.text == "has 3 cells; the header has 2"
    assert len(files.read("a.csv", "id,task\n1,a,\n2,b,\n").faults) == 2  # in every row: pandas takes ids for an index


IDS = ["007", "1e5", "9007199254740993", "1.0", "nan", " a ", "\u00e9", "NULL"]
WORDS = ["NA", "None", "null", "nan", "True", "1.10", "007", "2024-01-01", "=1+1"]


def test_ids_and_tasks_are_texts_as_they_are_written(files: Files) -> None:
    assert files.read("a.csv", "id,task\n" + "".join(f"{id_},a\n" for id_ in IDS)).ids == IDS
    assert files.read("a.csv", "task,n\n" + "".join(f"{word},\n" for word in WORDS)).tasks == WORDS


def test_only_the_empty_cell_is_missing(files: Files) -> None:
    read = files.read("a.csv", 'id,task\n1,\n,a\n3,"  "\n')
    assert read.faults == [(2, "task", "is empty"), (4, "task", "is empty")]
    assert read.ids == ["1", "2", "3"]  # the number of the row where there is none


def test_a_cell_that_no_task_may_be_is_told_with_its_size(files: Files) -> None:
    """Above the limit of the csv module of 131 072, too."""
    for size in (MAX_TEXT + 1, 200_000):
        read = files.read("a.csv", f"id,task\n1,{'a' * size}\n2,{'b' * MAX_TEXT}\n")
        assert read.faults == [(2, "task", "is too long")]
        assert read.rows[0].fault is not None
        assert f"has {size:,} characters" in read.rows[0].fault.text
        assert len(read.tasks[1] or "") == MAX_TEXT


def test_a_record_that_no_request_may_be_is_told_with_its_size(files: Files) -> None:
    """A quote may be open in what is not kept of it: nobody knows which rows follow."""
    for tail in ("", '"\n3,phantom'):
        told = files.refused("a.csv", f"id,task\n1,{'a' * (MAX_RECORD + 5)}{tail}\n2,fine\n")
        assert told.startswith("a.csv line 2: the record which begins there has 4,000,0")
    assert f"has {MAX_RECORD + 5:,} characters" in files.refused("a.csv", "a" * (MAX_RECORD + 5))


def test_neither_a_line_nor_a_file_is_read_without_bound(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be sparse, or grow as it is read."""
    monkeypatch.setattr(lines, "MAX_LINE", MAX_RECORD)
    for name in ("a.csv", "a.jsonl"):
        assert files.refused(name, "a" * (MAX_RECORD * 3)) == f"{name} line 1: has more than 4,000,000 characters"
    monkeypatch.setattr(lines, "MAX_FILE", 20)
    assert files.refused("a.csv", "\n" * 30) == "a.csv line 21: the file has more than 20 characters"


def test_a_nul_is_told(files: Files) -> None:
    read = files.read("a.csv", "id,task\n1,a\0b\n2\0,b\n")
    assert read.faults == [(2, "task", "cannot be asked"), (3, "id", "has a NUL")]
    assert read.rows[0].fault is not None
    assert "NUL" in read.rows[0].fault.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "a.csv is empty"),
        ("\ufeff", "a.csv is empty"),
        ("\n\n", "a.csv is empty"),
        ("id,task\n", "a.csv has no row below its header"),
        ("id,task\n\n\n", "a.csv has no row below its header"),
        (",,\n1,2,3\n", "a.csv line 1: the header names no column"),
        ("id,task,task\n1,a,b\n", "a.csv line 1: the column 'task' stands in the header 2 times"),
        ('"id,task\n1,a\n', "a.csv line 1: a quote"),
        ("id,prompt,text\n1,a,b\n", "has no column 'task'; its columns are id, prompt, text; likely is --task prompt,"),
        ("id,x\n1,a\n", "has no column 'task'; its columns are id, x"),
    ],
)
def test_a_file_without_rows_or_columns_is_told(files: Files, content: str, told: str) -> None:
    assert told in files.refused("a.csv", content)


def test_columns_that_are_asked_for_have_to_be_there(files: Files) -> None:
    content = "id,prompt,n\n1,a,\n2,b,3\n"
    assert "no column 'key'" in files.refused("a.csv", content, Columns("prompt", id="key"))
    assert "no column 'x'" in files.refused("a.csv", content, Columns("prompt", context=("n", "x")))
    read = files.read("a.csv", content, Columns("prompt", context=("n", "id")))
    assert [row.item and row.item.context for row in read.rows] == [{"id": "1"}, {"n": "3", "id": "2"}]


def test_an_unnamed_column_is_a_column(files: Files) -> None:
    """As pandas writes its index."""
    assert files.read("a.csv", ",task\n0,a\n1,b\n").tasks == ["a", "b"]


def test_what_the_csv_module_writes_is_read_the_same(files: Files) -> None:
    tasks = ['a "quote"', "a\nb", "a\r\nb", ",;\ta", "a\u2028\x85a", "\U0001f600", "x" * 5000]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["task", "n"], *([task, ""] for task in tasks)])
    assert files.read("a.csv", text.getvalue()).tasks == tasks


def test_the_bound_of_a_line_cuts_it_and_counts_it(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_RECORD", 10)
    path = files.folder / "a"
    path.write_bytes(b"a" * 10 + b"\n" + b"b" * 35 + b"\r\nshort\nend" + b"c" * 20)
    with path.open("rb") as file, lines.Lines(file, "a", None, "\n") as read:
        found = list(read)
    assert [line.size for line in found] == [11, 37, 6, 23]
    assert max(len(line.text) for line in found) == 11
