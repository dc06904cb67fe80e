"""The verb batch: a file of rows is checked, what is wrong is told, and nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deployments.cli import app, gateway
from tests.deployments.commands import OF_THE_STACK
from tests.tasks.batch.sheets import xlsx
from tests.tasks.batch.test_parquet import written

Command = Callable[..., Result]
DEV = {"name": "dev", "members": [{"agent_id": f"m{number}", "role": "DEV"} for number in (1, 2, 3)]}


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The verb with a gateway that knows one council, of three members; `--dry-run` is said."""
    monkeypatch.setattr(gateway, "client", lambda: SimpleNamespace(councils=lambda: {"dev": DEV}))
    return lambda path, *more, stdin=b"": CliRunner().invoke(app, ["batch", str(path), "--dry-run", *more], input=stdin)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows, of which the second has no task."""
    path = tmp_path / "rows.csv"
    path.write_text("id,task\n007,Choose a queue\n\x1b[31m,\nx,Name it\n")
    return path


def test_good_rows_are_counted_with_their_calls(batch: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"title": "a", "n": 1, "key": "k-1"}\n{"title": "b\\ud83d", "n": 2, "key": 2}\n')
    ended = batch(path, "--task-template", "{{title}}: {{n}}", "--id", "key", "--context", "n, title")
    assert (ended.exit_code, ended.stderr) == (0, "nothing was asked\n")
    told = [line.split() for line in ended.stdout.splitlines()]
    assert told[0][:4] == ["first", "k-1:", "a:", "1;"]
    assert told[1] == ["rows", "2:", "2", "good,", "0", "bad"]
    assert ["propose-0", "6"] in told
    assert ["review-0", "6"] in told
    assert ["calls", "12", "at", "most,", "of", "council", "dev", "by", "rank"] in told
    assert ["replaced", "1", "lone"] in [words[:3] for words in told]


def test_bad_rows_are_told_in_plain_text_with_line_id_and_field(batch: Command, rows: Path) -> None:
    ended = batch(rows, "--strategy", "synthesize")
    assert ended.exit_code == 3
    assert ended.stderr.splitlines()[0] == "rows.csv line 3 (row 2, id '\\x1b[31m'): task: is empty"
    assert "rows         3: 2 good, 1 bad\n  bad        1: task is empty\n" in ended.stdout
    assert "  synthesize 2\n" in ended.stdout


def test_json_is_one_document(batch: Command, rows: Path) -> None:
    ended = batch(rows, "--json", "--strategy", "propose")
    assert (ended.exit_code, ended.stderr) == (3, "")
    assert json.loads(ended.stdout) == {
        "input": "rows.csv",
        "council": "dev",
        "strategy": "propose",
        "rows": 3,
        "good": 2,
        "bad": 1,
        "bad_by_reason": {"task is empty": 1},
        "place": "line",
        "first_bad": [
            {"line": 3, "row": 2, "id": "\x1b[31m", "field": "task", "reason": "is empty", "text": "is empty"}
        ],
        "characters": len("Choose a queue" + "Name it"),
        "replaced_surrogates": 0,
        "notes": {},
        "most_calls": {"propose-0": 6},
        "most_calls_total": 6,
    }


def test_the_first_twenty_bad_rows_are_shown(batch: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,task\n" + "a\n" * 30)
    ended = batch(path)
    assert ended.exit_code == 3
    assert ended.stderr.count(": row: has 1 cells") == 20
    assert "and 10 more bad rows" in ended.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--council", "none"], "council: 'none' is unknown; known are dev"),
        (["--council", "a b"], "council: "),
        (["--strategy", "luck"], "strategy: "),
        (["--task", "text"], "rows.csv has no column 'text'; its columns are id, task"),
        (["--task", "task", "--task-template", "{{id}}"], "--task: "),
        (["--task-template", "{{"], "--task-template: "),
        (["--encoding", "none"], "--encoding: "),
        (["--delimiter", "ab"], "--delimiter: "),
        (["--delimiter", ""], "--delimiter: "),
        (["--encoding", ""], "--encoding: "),
        (["--id", ""], "--id: names no column"),
        (["--task", ""], "--task: names no column"),
        (["--messages", ""], "--messages: names no column"),
        (["--messages", "task", "--task", "task"], "--messages: says what the task is"),
        (["--messages", "task", "--task-template", "{{id}}"], "--messages: says what the task is"),
        (["--sheet", "x"], "--sheet: rows.csv is CSV, which has none"),
        (["--input-format", "word"], "--input-format: 'word' is unknown"),
        (["--input-format", "parquet"], "rows.csv is no Parquet"),
    ],
)
def test_wrong_use_is_a_line_and_code_2(batch: Command, rows: Path, more: list[str], told: str) -> None:
    ended = batch(rows, *more)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"conclave: {told}")
    assert ended.stderr.count("\n") == 1


FORMATS = {
    "rows.parquet": written({"id": ["007", "x"], "task": ["Choose a queue", None]}),
    "rows.xlsx": xlsx(("id", "task"), ("007", "Choose a queue"), ("x", None)),
}
BAD = {
    "rows.parquet": "rows.parquet row 2 (id 'x'): task: is empty",
    "rows.xlsx": "rows.xlsx sheet row 3 (row 2, id 'x'): task: cell B3: is empty",
}


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_are_checked_and_told_by_their_places(batch: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    ended = batch(tmp_path / name)
    assert (ended.exit_code, ended.stderr.splitlines()[0]) == (3, BAD[name])
    assert "rows         2: 1 good, 1 bad\n" in ended.stdout
    assert json.loads(batch(tmp_path / name, "--json").stdout)["input"] == name


def test_a_sheet_is_named(batch: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(xlsx(("x",), March=[("task",), ("a" * 32_767,)]))
    ended = batch(path, "--sheet", "March")
    assert ended.exit_code == 0
    assert "note         1: text of exactly 32,767 characters: Excel cuts longer ones there\n" in ended.stdout
    assert "its sheets are 'Sheet', 'March'" in batch(path, "--sheet", "May").stderr


def test_standard_input_and_urls_are_read(batch: Command) -> None:
    chat = b'{"messages": [{"role": "user", "content": "Name it"}]}\n'
    ended = batch("-", "--input-format", "jsonl", "--messages", "messages", stdin=chat)
    assert (ended.exit_code, ended.stdout.splitlines()[:2]) == (
        0,
        ["first        1: Name it", "rows         1: 1 good, 0 bad"],
    )
    assert "--input-format: has to say what standard input is" in batch("-").stderr
    system = fsspec.filesystem("memory")
    system.pipe("/rows.csv", b"task\na\n")
    assert batch("memory://rows.csv").exit_code == 0
    system.store.clear()
    assert batch("ftp://ann:pw@host/rows.csv").stderr.startswith(
        "conclave: ftp://host/rows.csv cannot be read: its scheme"
    )


REQUEST = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "council/dev:propose", "messages": [{"role": "user", "content": "Name it"}], "temperature": 0.1},
}


def test_a_batch_file_of_openais_names_its_council(batch: Command, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(REQUEST))
    ended = batch(path)
    assert ended.exit_code == 0
    assert "calls        3 at most, of council dev by propose" in ended.stdout
    assert "note         1: body.temperature passed over: " in ended.stdout
    assert batch(path, "--council", "dev", "--strategy", "propose").exit_code == 0
    for more, told in {
        ("--council", "qa"): "--council: requests.jsonl asks 'dev' itself; leave it out",
        ("--strategy", "rank"): "--strategy: requests.jsonl asks 'propose' itself; leave it out",
        ("--task", "task"): "requests.jsonl is a batch file of OpenAI's API",
        ("--id", "id"): "requests.jsonl is a batch file of OpenAI's API",
        ("--context", "x"): "requests.jsonl is a batch file of OpenAI's API",
    }.items():
        ended = batch(path, *more)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"conclave: {told}")
    path.write_text(json.dumps(REQUEST).replace("council/dev", "council/none"))
    assert "council: 'none' is unknown" in batch(path).stderr


def test_without_an_output_it_says_what_to_give(rows: Path) -> None:
    ended = CliRunner().invoke(app, ["batch", str(rows)])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "OUTPUT: name the file for the decisions; or --dry-run" in ended.stderr


def test_without_a_gateway_it_ends_with_6(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is wrong is told first."""
    for name in OF_THE_STACK:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONCLAVE_HOME", str(tmp_path / "home"))
    ended = CliRunner().invoke(app, ["batch", str(rows), "--dry-run"])
    assert (ended.exit_code, ended.stdout) == (6, "")
    assert "is not up: `conclave up" in ended.stderr
    assert CliRunner().invoke(app, ["batch", str(tmp_path / "none.csv"), "--dry-run"]).exit_code == 2
