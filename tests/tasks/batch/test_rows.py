"""Ids, templates, kinds of files, and what holds for every file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.batch import rows
from tasks.batch.checking import SHOWN, calls_by_stage, check_rows
from tasks.batch.files import opened
from tasks.batch.lines import MAX_FILE, Lines
from tasks.batch.records import BatchFileError
from tasks.batch.rows import Columns, read_rows
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT, NAME_PATTERN
from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest
from tests.conftest import cases
from tests.tasks.batch.reading import Files

SLOW = settings(max_examples=cases(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


def item_ids(read: list[str], files: Files, keep: bool = False) -> list[str | None]:
    """The ids of the items of rows that have these."""
    content = "".join(json.dumps({"id": one, "task": "a"}) + "\n" for one in read)
    return [row.item and row.item.id for row in files.read("a.jsonl", content, keep=keep).rows]


def test_an_items_id_is_the_rows_where_that_is_a_name(files: Files) -> None:
    digest = hashlib.sha256(b"a b").hexdigest()[:8]
    assert item_ids(["key-1", "a b", "007"], files) == ["key-1", f"r2-{digest}", "007"]
    assert item_ids(["x" * 512], files)[0] == f"r1-{hashlib.sha256(b'x' * 512).hexdigest()[:8]}"
    assert files.read("a.jsonl", json.dumps({"id": "x" * 513, "task": "a"})).faults == [(1, "id", "is too long")]


def test_a_name_that_another_row_would_be_given_is_no_name_of_a_row(files: Files) -> None:
    made = f"r2-{hashlib.sha256(b'a b').hexdigest()[:8]}"
    found = item_ids([made, "a b"], files)
    assert found[1] == made
    assert found[0] != made


def test_two_rows_with_one_id_are_refused_unless_both_are_kept(files: Files) -> None:
    content = "id,task\na,1\nb,2\na,3\na,4\n"
    told = files.refused("a.csv", content)
    assert told == "a.csv line 4: id: 'a' is the id of line 2 already; `--duplicate-ids keep` takes both"
    read = files.read("a.csv", content, keep=True)
    assert read.ids == ["a", "b", "a", "a"]
    assert len({row.item and row.item.id for row in read.rows}) == 4


def test_the_number_of_a_row_is_no_duplicate_of_an_id(files: Files) -> None:
    """Whichever comes first, and where both are kept: no two items have the same id."""
    for content in ("id,task\n2,a\n,b\n3,c\n", "id,task\n,a\n1,b\n,c\n"):
        for keep in (False, True):
            read = files.read("a.csv", content, keep=keep)
            assert read.tasks == ["a", "b", "c"]
            assert len({row.item and row.item.id for row in read.rows}) == 3
    assert [row.item and row.item.id for row in files.read("a.csv", "id,task\n,a\n,b\n").rows] == ["1", "2"]
    assert "is the id of line 3" in files.refused("a.csv", "id,task\n,a\n1,b\n1,c\n")


def test_a_row_without_the_id_that_was_asked_for_is_bad(files: Files) -> None:
    read = files.read("a.csv", "key,task\n,a\nk,b\n", Columns(id="key"))
    assert (read.faults, read.tasks) == ([(2, "id", "is empty")], [None, "b"])
    read = files.read("a.jsonl", '{"task": "a"}\n{"task": "b", "id": null}\n{"task": "c", "id": 0}\n', Columns(id="id"))
    assert (read.faults, read.ids[-1]) == ([(1, "id", "is empty"), (2, "id", "is empty")], "0")


def test_a_file_has_a_bound_of_rows(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad ones are rows, too."""
    monkeypatch.setattr(rows, "MAX_ROWS", 2)
    for content in ("task,n\na,\nb,\nc,\n", "task,n\na\n,\nc\n"):
        assert "a.csv line 4: more than 2 rows" in files.refused("a.csv", content)


def test_a_template_makes_a_task_of_columns(files: Files) -> None:
    template = TaskTemplate("{{ title | upper }}: {{ body }}{% if n %} ({{ n }}){% endif %}")
    read = files.read("a.csv", "title,body,n\na,{{ title }},\nb,<x>,3\n", Columns(template=template))
    assert read.tasks == ["A: {{ title }}", "B: <x> (3)"]
    lines = (
        '{"title": "a", "body": [1, "x"], "n": null}\n{"title": "a", "n": 1.10, "body": "b"}\n{"title": "a", "n": 1}\n'
    )
    read = files.read("a.jsonl", lines, Columns(template=template))
    assert read.tasks == ['A: [1, "x"]', "A: b (1.10)", None]
    assert read.rows[2].fault is not None
    assert "'body' is undefined" in read.rows[2].fault.text
    assert "no column 'body'" in files.refused("a.csv", "title,n\na,\n", Columns(template=template))
    assert files.read("a.csv", "title,body,n\n,, \n", Columns(template=template)).faults == [
        (2, "task-template", "is empty")
    ]


@pytest.mark.parametrize(
    "source",
    [
        "{{ title",
        "{% for x in title %}{{ x }}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ 10 ** 1000000000 }}{{ title }}",
        "{{ title.__class__ }}",
        "{{ title['x'] }}",
        "{{ title() }}",
        "{{ title | center(1000000000) }}",
        "{{ '%999999999d' | format(title) }}",
        "{{ range(3) }}",
        "{% include '/etc/passwd' %}{{ title }}",
        "{% set x = title %}{{ x }}",
        "no column",
        "",
        "{{ title }}" * 1_000,
        "{{ title }}" * 100,
        "{{ title | default(1e999) }}",
        "{% if title == 3 %}{{ title }}{% endif %}",
        "{{ self }}",
        "{{ loop }}{{ title }}",
        "{{ " + "(" * 4_000 + "title" + ")" * 4_000 + " }}",
        "{% if a %}" * 300 + "{{ a }}" + "{% endif %}" * 300,
        "{{" + "not " * 2_000 + " a }}",
    ],
)
def test_a_template_can_neither_repeat_nor_compute(source: str) -> None:
    with pytest.raises(BatchFileError, match=r"^--task-template: ") as error:
        TaskTemplate(source)
    assert str(error.value).count("--task-template") == 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ a | center }}", "line 1: the filter 'center' is unknown; there are capitalize, default,"),
        ("{{ a.b }}", "line 1: a dot behind a name is no part of a template here, which has columns, if,"),
        ("{{ first name }}", "; a column's name has to be letters, digits and _"),
        ("{{ first-name }}", "line 1: - is no part of a template here"),
        ("{{ first-name }}", "; a column's name has to be letters, digits and _"),
        ("\n{{ super }}", "line 2: super is a word of Jinja's"),
        ("{{ a | default(1.5) }}", "line 1: a number is no part"),
        ("{{ a }}" * 101, "has more than 100 parts"),
    ],
)
def test_what_is_wrong_in_a_template_is_told_in_words(source: str, told: str) -> None:
    with pytest.raises(BatchFileError) as error:
        TaskTemplate(source)
    assert told in str(error.value)


def test_a_template_takes_texts_and_no_more_of_them_than_a_task(files: Files) -> None:
    template = TaskTemplate("{{ a | trim | default('x', true) }}{% if b == '3' %}!{% endif %}")
    read = files.read("a.csv", f"a,b\n,3\nx{' ' * MAX_TEXT},3\n", Columns(template=template))
    assert (read.tasks, read.faults) == (["x!", None], [(3, "task-template", "is too long")])


def test_a_template_writes_no_more_than_a_bound(files: Files) -> None:
    template = TaskTemplate("{{ a | upper }}" * 45)
    began = time.process_time()
    read = files.read("a.csv", f"a,b\n{'x' * MAX_TEXT},\n", Columns(template=template))
    assert read.faults == [(2, "task-template", "is too long")]
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"PAR1\x15\x04", "is Parquet; name it so, or say `--input-format parquet`"),
        ("a.jsonl", b"PK\x03\x04\x14\0", "is a spreadsheet or a ZIP archive; name it so"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a spreadsheet; name it so"),
        ("a.parquet.zst", b"", "is compressed"),
        ("a.csv", b"\x1f\x8b\x08\0", "is compressed"),
        ("a.csv.gz", b"", "is compressed"),
        ("a.txt", b"task\na\n", "has to be one of .csv, .tsv, .jsonl"),
    ],
)
def test_what_is_not_read_is_told_by_name_and_by_content(files: Files, name: str, content: bytes, told: str) -> None:
    assert told in files.refused(name, content)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "absent.csv", tmp_path / "folder.csv", tmp_path / "a\0.csv"):
        with pytest.raises(BatchFileError, match="cannot be read: "), opened(path):
            pass


def test_a_path_is_told_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(BatchFileError) as error, opened(tmp_path / "a\n\x1b[31m.csv"):
        pass
    assert str(error.value).isprintable()


def test_a_file_that_fails_or_is_too_large_is_told(tmp_path: Path) -> None:
    """The memory of a process is a regular file whose first bytes cannot be read."""
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).symlink_to("/proc/self/mem")
        with pytest.raises(BatchFileError, match=f"^{name} cannot be read: "), opened(tmp_path / name):
            pass
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(BatchFileError, match=r"^large.csv has more than 64,000,000,000 bytes"):
        opened(tmp_path / "large.csv").__enter__()


def test_a_file_that_has_nothing_to_give_is_told() -> None:
    class Waiting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return None  # type: ignore[return-value]

    with pytest.raises(BatchFileError, match=r"^a cannot be read: it has nothing to give yet"):
        Lines(Waiting(), "a", None, "")


@SLOW
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_as_many_rows_come_out_as_records_go_in(files: Files, pairs: list[tuple[str, str]], end: str) -> None:
    """In both formats, with the same ids and tasks, and lines that rise."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "task"], *pairs])
    jsonl = "".join(json.dumps({"id": one, "task": task}, ensure_ascii=False) + end for one, task in pairs)
    for name, content in (("a.csv", text.getvalue()), ("a.jsonl", jsonl)):
        read = files.read(name, content, keep=True)
        assert [row.number for row in read.rows] == list(range(1, len(pairs) + 1))
        assert read.lines == sorted(set(read.lines))
        for row, (one, task) in zip(read.rows, pairs, strict=True):
            if "\0" not in one + task:
                assert row.id == (one or str(row.number))
                assert (row.item is None) == (not task.strip())
            if row.item is not None:
                assert row.item.task.strip() == task.strip()
                assert re.fullmatch(NAME_PATTERN, row.item.id or "")


@SLOW
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from('task,;\t"\n\r\0{}[]:\\u d83\ufeff\u2028\x85\u00e9'), max_size=60).map(
            lambda text: b"task,id\n" + text.encode()
        ),
    ),
    st.sampled_from(["a.csv", "a.jsonl"]),
    st.sampled_from([None, "utf-16", "cp1252", "utf-7", "idna", "raw_unicode_escape", "hz"]),
)
def test_whatever_stands_there_nothing_else_is_raised(
    files: Files, content: bytes, name: str, encoding: str | None
) -> None:
    try:
        read = files.read(name, content, encoding=encoding)
    except BatchFileError as error:
        assert str(error)
    else:
        assert [row.item is None for row in read.rows] == [row.fault is not None for row in read.rows]


@SLOW
@given(TEXTS.map(lambda text: "{{ a }}{% if a %}" + text))
def test_whatever_a_template_is_nothing_else_is_raised(source: str) -> None:
    try:
        TaskTemplate(source).filled({"a": "x"})
    except BatchFileError as error:
        assert str(error)


ROWS = 100_000


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_large_file_is_read_as_a_stream(tmp_path: Path, name: str) -> None:
    """100 000 rows of 200 characters: only what tells their ids apart stays, not the rows."""
    task = "x" * 200
    path = tmp_path / name
    with path.open("w") as file:
        file.write("" if name.endswith("jsonl") else "id,task\n")
        form = '{{"id": "key-{0}", "task": "{1}"}}\n' if name.endswith("jsonl") else "key-{0},{1}\n"
        file.writelines(form.format(number, task) for number in range(ROWS))
    with opened(path) as records:
        read = iter(read_rows(records, Columns()))
        next(read)
        tracemalloc.start()
        for _ in range(4_000):
            next(read)
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        for _ in range(4_000):
            next(read)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        good = sum(row.item is not None for row in read)
    assert good == ROWS - 8_001
    assert peak - held < 4_000 * 250


def test_a_check_counts_all_and_keeps_the_first_bad_ones(files: Files) -> None:
    path = files.folder / "a.csv"
    path.write_text("id,task,n\n" + "".join(f"{number},,\n" for number in range(50)) + "x,good,7\ny\n")
    with opened(path) as records:
        found = check_rows(records, Columns(context=("n",)))
    assert (found.rows, found.good, found.bad, len(found.first_bad)) == (52, 1, 51, SHOWN)
    assert found.reasons == {"task is empty": 50, "row has too few cells": 1}
    assert found.characters == len("good") + len('{"n": "7"}')


def test_calls_are_told_by_stage() -> None:
    council = CouncilSpec(name="c", members=tuple(Member(agent_id=f"m{n}", role="DEV") for n in range(4)))
    for strategy, rounds, calls in (
        ("propose", 0, {"propose-0": 40}),
        ("synthesize", 1, {"propose-0": 40, "review-0": 40, "revise-1": 40, "review-1": 40, "synthesize": 10}),
        ("escalate", 0, {"propose-0": 20, "propose-1": 10, "propose-2": 20, "propose-3": 10, "review-0": 40}),
    ):
        spec = council.model_copy(update={"rounds": rounds})
        request = DeliberationRequest.read({"task": "a", "strategy": strategy})
        assert calls_by_stage(Deliberation.plan("a", request, spec), 10) == calls
