"""A folder of files: each is done once, what changed is new, and what did not take place is told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.batch.records import BatchFileError
from tasks.council.exceptions import InvalidRequest
from tests.tasks.batch.world import Batches

pytestmark = pytest.mark.usefixtures("importable_prefect")
Look = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the operator's with two files, and one for what is written."""
    monkeypatch.setenv("CONCLAVE_BATCHES", str(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    for name in ("in/a.csv", "in/b.csv", "in/c.txt", "out/.keep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("task\none\n")
    return tmp_path


@pytest.fixture
def look(folder: Path) -> Look:
    """Look at the folder: `run = look(every_hours=1.0)`."""

    def looked(**more: Any) -> Any:
        from tasks.batch.folder_run import FolderRun

        run = FolderRun(parameters(folder, **more))
        asyncio.run(run.look())
        return run

    return looked


def parameters(folder: Path, **more: Any) -> dict[str, Any]:
    """Of the flow `batch_files`, with its defaults."""
    import inspect

    from flows.batch_files import batch_files

    defaults = {name: one.default for name, one in inspect.signature(batch_files.fn).parameters.items()}
    return {**defaults, "pattern": f"{folder}/in/*.csv", "output_folder": f"{folder}/out", **more}


def names(run: Any) -> list[str]:
    """The files that are new, by name."""
    return [Path(file.path).name for file in run.new_files]


def done(run: Any, *which: str, rows: int = 3, decided: int = 3, reason: str | None = None) -> None:
    """Let these files have come to this."""
    from tasks.batch.output.folder import Finished

    async def work(file: Any) -> Any:
        summary: Any = SimpleNamespace(rows=rows, decided=decided)
        return Finished(file.batch.output, rows, summary), "report", reason

    for file in run.new_files:
        if Path(file.path).name in which:
            asyncio.run(run.note(file, work(file)))


def manifest(folder: Path) -> dict[str, Any]:
    """What stands in it."""
    found: dict[str, Any] = json.loads((folder / "out/batches.json").read_text())
    return found


def test_files_that_match_are_done_once(look: Look, folder: Path) -> None:
    run = look()
    assert names(run) == ["a.csv", "b.csv"]
    done(run, "a.csv", "b.csv")
    assert names(look()) == []
    assert {Path(one).name: told["rows"] for one, told in manifest(folder)["files"].items()} == {"a.csv": 3, "b.csv": 3}
    (folder / "in/d.csv").write_text("task\ntwo\n")
    assert names(look()) == ["d.csv"]


def test_without_a_word_they_are_those_of_two_folders(look: Look, folder: Path) -> None:
    """`in` and `out` below the operator's; what is no file of rows by its name is left alone."""
    (folder / "out/.keep").unlink()
    (folder / "out").rmdir()
    run = look(pattern="in/*", output_folder=None)
    assert names(run) == ["a.csv", "b.csv"]
    assert {Path(file.batch.output).parent for file in run.new_files} == {folder / "out"}


def test_a_file_that_was_changed_is_new(look: Look, folder: Path) -> None:
    done(look(), "a.csv", "b.csv")
    (folder / "in/a.csv").write_text("task\ntwo, and longer\n")
    assert names(look()) == ["a.csv"]
    done(look(), "a.csv")
    os.utime(folder / "in/b.csv", ns=(1, 1))
    assert names(look()) == ["b.csv"]


def test_each_file_has_an_output_of_its_own(look: Look, folder: Path) -> None:
    """Also two of one name in two folders."""
    (folder / "in/deep").mkdir()
    (folder / "in/deep/a.csv").write_text("task\none\n")
    run = look(pattern=f"{folder}/in/**/*.csv", output_format="jsonl", council="qa", budget={"max_calls": 3})
    outputs = {file.batch.output for file in run.new_files}
    assert len(outputs) == len(run.new_files) == 3
    assert {Path(one).parent for one in outputs} == {folder / "out"}
    assert {Path(one).suffix for one in outputs} == {".jsonl"}
    assert all(file.batch.replace and not file.batch.resume for file in run.new_files)
    assert run.new_files[0].batch.asked == {"council": "qa", "budget": {"max_calls": 3}}


def test_one_that_was_begun_is_gone_on_with(look: Look, folder: Path) -> None:
    """By the next run, where the one before was killed."""
    first = look()
    Path(f"{first.new_files[0].batch.output}.parts").mkdir()
    again = look().new_files[0].batch
    assert (again.resume, again.replace) == (True, False)


def test_what_was_left_undecided_is_done_the_next_time(look: Look) -> None:
    run = look()
    done(run, "a.csv", decided=2, reason="budget: 9 of 9 calls are used")
    done(run, "b.csv")
    assert run.came_to[0]["outcome"] == "budget: 9 of 9 calls are used; 2 of 3 rows decided"
    assert run.is_cancelled is False
    assert names(look()) == ["a.csv"]


def test_a_file_that_fails_keeps_nobody_from_the_others(look: Look) -> None:
    run = look()

    async def fails() -> Any:
        raise BatchFileError("in/a.csv has no column of tasks")

    asyncio.run(run.note(run.new_files[0], fails()))
    done(run, "b.csv")
    assert run.came_to[0]["outcome"] == "failed: BatchFileError: in/a.csv has no column of tasks"
    assert names(look()) == ["a.csv"]


def test_what_is_written_is_not_read_as_new(look: Look, folder: Path) -> None:
    """Where the pattern names the folder of the outputs, too: else each run would make a batch of the last one's."""
    asked = {"pattern": f"{folder}/in/*.csv", "output_folder": f"{folder}/in", "output_format": "csv"}
    run = look(**asked)
    assert names(run) == ["a.csv", "b.csv"]
    for file in run.new_files:
        Path(file.batch.output).write_text("id,decision\n")
    done(run, "a.csv")
    assert names(look(**asked)) == ["b.csv"]
    (folder / "in/a.csv").unlink()
    assert names(look(**asked)) == ["b.csv"]


@pytest.mark.parametrize(("hours", "is_missed"), [(1.0, False), (1.4, False), (1.6, True), (30.0, True)])
def test_a_run_that_was_missed_is_told(look: Look, folder: Path, hours: float, is_missed: bool) -> None:
    assert look(every_hours=1.0).missed is None
    at = datetime.now(UTC) - timedelta(hours=hours)
    (folder / "out/batches.json").write_text(json.dumps({**manifest(folder), "looked_at": at.isoformat()}))
    run = look(every_hours=1.0)
    assert bool(run.missed) is is_missed
    if is_missed:
        assert run.missed == f"runs were missed: the last one was at {at.isoformat()[:16]} UTC, {hours} hours ago"
    assert look(every_hours=1.0).missed is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", '"text"', '{"files": []}', '{"files": {"a": 7}}', '{"files": null}', "\x80".encode("latin-1")],
    ids=repr,
)
def test_a_manifest_that_cannot_be_read_is_told(look: Look, folder: Path, text: str | bytes) -> None:
    """All files would be asked again."""
    (folder / "out/batches.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BatchFileError, match=r"batches\.json"):
        look()


@pytest.mark.parametrize("looked_at", ["yesterday", "2026-01-01", 7, None, ""])
def test_a_time_that_is_none_is_told_and_is_no_fault(look: Look, folder: Path, looked_at: object) -> None:
    (folder / "out/batches.json").write_text(json.dumps({"files": {}, "looked_at": looked_at}))
    run = look()
    assert names(run) == ["a.csv", "b.csv"]
    assert (run.missed is None) == (not isinstance(looked_at, str))


def test_a_manifest_that_is_too_large_is_told(look: Look, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.batch import folder_run

    monkeypatch.setattr(folder_run, "MAX_MANIFEST", 10)
    (folder / "out/batches.json").write_text(" " * 11)
    with pytest.raises(BatchFileError, match="has more than 10 bytes"):
        look()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pattern", value) for value in (None, 7, ["*.csv"])),
        *(("output_folder", value) for value in (7, ["out"])),
        *(("output_format", value) for value in (None, "openai", "word", 7, ["csv"])),
        *(("every_hours", value) for value in (None, 0, -1, "24", float("nan"), float("inf"), 1e300, 10_001)),
        *(("task_column", value) for value in (7, [])),
        ("context_columns", "a,b"),
    ],
)
def test_a_parameter_that_is_none_is_refused_by_its_name(look: Look, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        look(**{name: value})
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"output_folder": "/etc"}, "does not lie in a folder"),
        ({"output_folder": "{}/none"}, "is no folder"),
        ({"output_folder": "{}/in/a.csv"}, "is no folder"),
        ({"pattern": "/etc/*"}, "lies in no folder"),
        ({"pattern": "{}/in/../../*"}, "without `..`"),
    ],
    ids=str,
)
def test_what_lies_elsewhere_is_refused(look: Look, folder: Path, more: dict[str, str], told: str) -> None:
    with pytest.raises(BatchFileError, match=told):
        look(**{name: value.format(folder) for name, value in more.items()})


def test_two_runs_over_the_same_files_do_not_overlap(batches: Batches, folder: Path) -> None:
    """The second one is left out, and says so; other files are nothing to it."""
    from tasks.batch.folder_run import FolderRun, overlap

    run, other = FolderRun(parameters(folder)), FolderRun(parameters(folder, pattern=f"{folder}/in/*.txt"))
    assert run.key == FolderRun(parameters(folder, every_hours=3.0)).key != other.key

    async def both() -> list[bool]:
        async with overlap(run.key) as first, overlap(run.key) as second, overlap(other.key) as third:
            found = [first, second, third]
        async with overlap(run.key) as again:
            return [*found, again]

    assert batches.run(both()) == [True, False, True, True]
    assert run.left_out().name == "Skipped"
    assert run.left_out().is_completed()
