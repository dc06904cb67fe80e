"""JSONL as it comes from other programs: one line is one row, and one that is wrong spoils no other."""

from __future__ import annotations

import json

import pytest

from tasks.batch.records import MAX_RECORD
from tasks.batch.rows import Columns
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT
from tests.tasks.batch.reading import Files

GOOD = '{"task": "fine"}\n'


def test_a_byte_order_mark_blank_lines_and_crlf_are_no_rows(files: Files) -> None:
    read = files.read("a.jsonl", '\ufeff{"task": "a"}\r\n\r\n \t\n{"task": "b"}')
    assert (read.tasks, read.lines, read.ids) == (["a", "b"], [1, 4], ["1", "2"])
    assert files.read("a.jsonl", '{"task": "a"}\n'.encode("utf-16")).tasks == ["a"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"task": "a"', "is no JSON"),
        ('{"task": NaN}', "is no JSON"),
        ('{"task": "a"} {"task": "b"}', "is no JSON"),
        ('{"task": "a\tb"}', "is no JSON"),
        ("{" * 5_000, "is no JSON"),
        ('{"task":' + "[" * 100_000, "is no JSON"),
        ('{"n":' + "9" * 5_000 + "}", "is no JSON"),
        ('"a"', "is no JSON object"),
        ("null", "is no JSON object"),
        ('{"task": "a", "task": "b"}', "has a key twice"),
        ('{"task": "a", "context": {"x": 1, "x": 2}}', "has a key twice"),
    ],
)
def test_one_bad_line_spoils_no_other(files: Files, line: str, reason: str) -> None:
    read = files.read("a.jsonl", GOOD + line + "\n" + GOOD)
    assert (read.faults, read.tasks) == ([(2, "row", reason)], ["fine", None, "fine"])


def test_a_value_that_is_nested_deep_is_a_bad_row(files: Files) -> None:
    """Wherever the limit of reading or of writing it is, and whatever is made of it."""
    depths = (*range(850, 1000), 20_000)
    lines = "".join(f'{{"task": "a", "x": {"[" * depth}{"]" * depth}}}\n' for depth in depths)
    for columns in (Columns(context=("x",)), Columns(template=TaskTemplate("{{ x }}")), Columns("x")):
        read = files.read("a.jsonl", lines + '{"x": "b", "task": "b"}\n', columns)
        assert len(read.rows) == len(depths) + 1
        assert read.tasks[-2:] == [None, "b"]


def test_lines_end_at_a_line_feed_alone(files: Files) -> None:
    text = "a\u2028b\u2029c\x85d"
    read = files.read("a.jsonl", json.dumps({"task": text}, ensure_ascii=False) + "\n" + GOOD)
    assert (read.tasks, read.lines) == ([text, "fine"], [1, 2])


def test_lone_halves_of_characters_are_replaced_and_counted(files: Files) -> None:
    r"""Pairs are characters, and `\\ud83d` is a backslash and letters."""
    read = files.read("a.jsonl", r'{"task": "a\ud83db\ude00 \ud83d\ude00 \\ud83d \ud83d"}' + "\n" + GOOD)
    assert read.tasks[0] == "a\ufffdb\ufffd \U0001f600 \\ud83d \ufffd"
    assert read.replaced == 3


@pytest.mark.parametrize(
    ("task", "text"), [("3", "3"), ("1.10", "1.10"), ("1e5", "1e5"), ("true", "true"), ("12345678901234567890", None)]
)
def test_a_number_is_no_task_unless_it_is_asked_for(files: Files, task: str, text: str | None) -> None:
    line = f'{{"task": {task}}}\n'
    assert files.read("a.jsonl", line).faults == [(1, "task", "is no text")]
    assert files.read("a.jsonl", line, Columns(coerce=True)).tasks == [text or task]


def test_what_is_no_text_at_all_is_never_a_task(files: Files) -> None:
    read = files.read("a.jsonl", '{"task": ["a"]}\n{"task": {}}\n{"task": null}\n{"task": ""}\n{"x": 1}\n')
    assert [reason for _, _, reason in read.faults] == ["is no text", "is no text", *["is empty"] * 3]


def test_ids_keep_the_text_that_they_are_written_with(files: Files) -> None:
    ids = ['"007"', "1e5", "9007199254740993", "1.0", "-0.10", '"1e5 "', "-0", "null", '""']
    read = files.read("a.jsonl", "".join(f'{{"id": {id_}, "task": "a"}}\n' for id_ in ids))
    assert read.ids == ["007", "1e5", "9007199254740993", "1.0", "-0.10", "1e5 ", "-0", "8", "9"]
    wrong = files.read("a.jsonl", '{"id": true, "task": "a"}\n{"id": [1], "task": "a"}\n')
    assert wrong.faults == [(1, "id", "is no text"), (2, "id", "is no text")]


def test_other_columns_go_to_the_context_as_json(files: Files) -> None:
    read = files.read(
        "a.jsonl", '{"task": "a", "x": {"y": [1, null]}, "date": "2024-01-01"}\n', Columns(context=("x", "date"))
    )
    assert read.rows[0].item is not None
    assert read.rows[0].item.context == {"x": {"y": [1, None]}, "date": "2024-01-01"}
    bad = (
        '{"task": "a", "x": 99999999999999999999}\n{"task": "a", "x": "\\u0000"}\n'
        + f'{{"task": "a", "x": "{"a" * 1_100_000}"}}\n'
    )
    assert {fault[1:] for fault in files.read("a.jsonl", bad, Columns(context=("x",))).faults} == {
        ("context", "cannot be asked")
    }


def test_numbers_of_the_context_say_what_the_file_says(files: Files) -> None:
    """Those that a number would change are texts, at every depth."""
    same = ["1", "-7", "1.5", "0.1", "-0.0", "1e+16", "9007199254740993"]
    changed = ["1.10", "1e5", "0.1000000000000000055", "1e999", "-0", "1E+16"]
    line = f'{{"task": "a", "x": [{", ".join(same + changed)}], "y": {{"z": [1.10]}}, "n": 2.50}}\n'
    read = files.read("a.jsonl", line, Columns(context=("x", "y", "n")))
    assert read.rows[0].item is not None
    assert files.read("a.jsonl", line, Columns(template=TaskTemplate("{{ y }} {{ n }}"))).tasks == [
        '{"z": ["1.10"]} 2.50'
    ]
    told = json.dumps(read.rows[0].item.context)
    assert told == json.dumps({"x": "?", "y": {"z": ["1.10"]}, "n": "2.50"}).replace(
        '"?"', f"[{', '.join(same + [json.dumps(one) for one in changed])}]"
    )


def test_too_long_numbers_and_too_deep_values_are_told_in_words(files: Files) -> None:
    read = files.read("a.jsonl", f'{{"task": {"9" * 5_000}}}\n{{"task": {"[" * 100_000}\n')
    assert [row.fault and row.fault.text for row in read.rows] == [
        "is no JSON: a number has 5,000 digits; 4,000 are taken",
        "is nested too deep to be read",
    ]
    read = files.read("a.jsonl", GOOD + '{"task" "a"}\n')
    assert read.rows[1].fault is not None
    assert read.rows[1].fault.text == "is no JSON: Expecting ':' delimiter (character 9)"


def test_a_file_that_is_no_jsonl_is_told_with_what_to_do(files: Files) -> None:
    assert "`jq -c .` does" in files.refused("a.json", '\n{\n  "task": "a"\n}\n')
    assert "`jq -c '.[]'` does" in files.refused("a.json", '[{"task": "a"}]')
    for encoding in ("utf-16-le", "utf-16-be"):
        assert f"Then say `--encoding {encoding}`" in files.refused("a.jsonl", GOOD.encode(encoding))
        assert files.read("a.jsonl", GOOD.encode(encoding), encoding=encoding).tasks == ["fine"]


def test_a_line_that_no_request_may_be_is_told_with_its_size(files: Files) -> None:
    read = files.read("a.jsonl", f'{{"task": "{"a" * MAX_RECORD}"}}\n{GOOD}{{"task": "{"b" * (MAX_TEXT + 1)}"}}\n')
    assert read.faults == [(1, "row", "is too large"), (3, "task", "is too long")]
    assert read.rows[0].fault is not None
    assert f"{MAX_RECORD + 13:,}" in read.rows[0].fault.text


def test_a_nul_is_told(files: Files) -> None:
    read = files.read("a.jsonl", '{"task": "a\\u0000"}\n{"task": "a\0"}\n{"id": "\\u0000", "task": "a"}\n')
    assert read.faults == [(1, "task", "cannot be asked"), (2, "row", "is no JSON"), (3, "id", "has a NUL")]


def test_a_file_without_rows_or_columns_is_told(files: Files) -> None:
    assert files.refused("a.jsonl", "\n\n") == "a.jsonl has no row"
    assert files.refused("a.json", '[\n{"task": "a"}\n]\n').startswith("a.json is a JSON list")
    told = files.refused("a.jsonl", '{"prompt": "a"}\n{"question": "a"}\n')
    assert told == (
        "a.jsonl has no column 'task'; its columns are prompt, question; likely is --task prompt, --task question"
    )
    assert "no column 'key'" in files.refused("a.jsonl", GOOD, Columns(id="key"))
    assert files.refused("a.jsonl", GOOD, delimiter=";").startswith("--delimiter: a.jsonl is JSONL")


def test_other_bytes_are_told_with_byte_and_line(files: Files) -> None:
    assert "a.jsonl line 2: the byte 0xe9 (character 12)" in files.refused(
        "a.jsonl", GOOD.encode() + b'{"task": "a\xe9"}\n'
    )
