"""A batch whose files a worker reads and writes: killed at any moment, it goes on with the output that it left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.batch.records import BatchFileError
from tests.tasks.batch.world import ANSWER_S, Batches

pytestmark = pytest.mark.usefixtures("importable_prefect")


class Files:
    """An input and an output of a worker, and runs over them."""

    def __init__(self, folder: Path, batches: Batches) -> None:
        self.batches, self.input, self.output = batches, folder / "rows.csv", folder / "out.parquet"
        self.write(*range(1, 7))

    def write(self, *numbers: int) -> None:
        """The input: rows by their numbers."""
        self.input.write_text("id,task\n" + "".join(f"r{number},Decide task-{number} now\n" for number in numbers))

    def run(self, run: str = "run-1", host: str = "here", seconds: float | None = None, **how: Any) -> Any:
        """A run to its end, or killed after so many seconds; the reason why rows are left."""
        from blocks.background import cancel_and_wait
        from tasks.batch.file_run import FileBatch, FileRun
        from tasks.batch.job import InputFile

        asked = how.pop("asked", {})
        batch = FileBatch(InputFile(str(self.input)), str(self.output), asked, **how)

        async def decide(batch_id: str) -> dict[str, Any]:
            await self.batches.decided(batch_id, window=2, run=run)
            body: dict[str, Any] = await self.batches.record.batches.read(batch_id)
            return body

        async def work() -> Any:
            running = asyncio.create_task(FileRun(self.batches.record, batch, run, decide, host).decided())
            if seconds is not None:
                await asyncio.sleep(seconds)
                await cancel_and_wait([running])
                return None
            return (await running)[2]

        return self.batches.run(work())

    @property
    def statuses(self) -> dict[str, str]:
        """What each row came to, in the order of the input."""
        rows = sorted(pq.read_table(self.output).to_pylist(), key=lambda one: one["row"])
        return {row["id"]: row["status"] for row in rows}

    @property
    def asked(self) -> int:
        """Calls that were made."""
        return sum(self.batches.server.asked.values())


@pytest.fixture
def files(tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Six rows."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    return Files(tmp_path, batches)


ALL = {f"r{number}": "COMPLETED" for number in range(1, 7)}


def test_all_rows_are_asked_and_written(files: Files) -> None:
    assert files.run() is None
    assert files.statuses == ALL
    assert files.asked == 6
    assert not Path(f"{files.output}.parts").exists()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("seconds", [0.5, 1.1, 1.5, 1.9])
def test_a_run_that_was_killed_goes_on_with_what_it_left(files: Files, seconds: float, replace: bool) -> None:
    """Also one that replaces another output: that was before it began."""
    if replace:
        files.run("run-0")
        files.write(*range(11, 17))
    files.run(seconds=seconds, replace=replace)
    in_flight = files.asked - files.batches.answers
    assert in_flight > 0
    before = files.batches.answers
    assert files.run(replace=replace) is None
    assert len(files.statuses) == 6
    assert set(files.statuses.values()) == {"COMPLETED"}
    assert files.batches.answers == (12 if replace else 6) > before
    assert files.asked == files.batches.answers + in_flight


def test_another_run_does_not_take_it_up_by_itself(files: Files) -> None:
    files.run(seconds=1.5 * ANSWER_S)
    with pytest.raises(BatchFileError, match="--resume goes on"):
        files.run("run-2")
    assert files.run("run-2", resume=True) is None
    assert files.statuses == ALL


def test_a_run_goes_on_only_where_its_files_are(files: Files) -> None:
    from tasks.batch.file_run import OtherHost

    files.run(seconds=1.5 * ANSWER_S, host="ant")
    with pytest.raises(OtherHost, match="files of the host ant, and this worker is on bee"):
        files.run(host="bee")
    assert files.run(host="ant") is None


def test_a_file_that_was_edited_after_the_kill_goes_through(files: Files) -> None:
    """What was sent of the old one, and never started, is nobody's."""
    from tasks.batch import file_run

    put, started = file_run.put_batch, list[str]()

    async def dies(_record: Any, batch_id: str, *_: Any) -> bool:
        started.append(batch_id)
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_run, "put_batch", dies)
        with pytest.raises(asyncio.CancelledError):
            files.run()
    assert file_run.put_batch is put
    assert len(started) == 1
    files.write(9, 1, 2)
    assert files.run() is None
    assert files.statuses == {"r9": "COMPLETED", "r1": "COMPLETED", "r2": "COMPLETED"}


def test_a_budget_leaves_rows_which_say_why(files: Files) -> None:
    reason = files.run(asked={"budget": {"max_calls": 4}})
    assert str(reason).startswith("budget: 4 of 4 calls")
    assert list(files.statuses.values()).count("COMPLETED") == 4
    assert files.run("run-2", resume=True) is None
    assert files.statuses == ALL
    assert files.asked == 6


def test_with_bad_rows_nothing_is_asked_where_that_is_wanted(files: Files) -> None:
    """And nothing is left behind."""
    files.input.write_text("id,task\na,Decide task-1 now\nb,\n")
    with pytest.raises(BatchFileError, match="row 2: task: is empty; nothing was asked"):
        files.run(stop_at_bad=True)
    assert files.asked == 0
    assert not files.output.exists()
    assert not Path(f"{files.output}.parts").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "rows.csv"), ("id,text\na,b\n", "no column 'task'"), ("id,task\na,one\na,two\n", "'a'")],
)
def test_an_input_that_is_refused_leaves_nothing_behind(files: Files, text: str, told: str) -> None:
    files.input.write_text(text)
    with pytest.raises(BatchFileError, match=told):
        files.run()
    assert not Path(f"{files.output}.parts").exists()
    files.write(1)
    assert files.run() is None


def test_what_deciding_raises_is_raised_and_the_output_stays(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from blocks.exceptions import AgentsUnavailable

    async def fails(*_: Any) -> Any:
        raise AgentsUnavailable("no host has room")

    with monkeypatch.context() as patch:
        patch.setattr(files.batches, "ask", fails)
        with pytest.raises(AgentsUnavailable):
            files.run()
    assert files.run() is None
    assert files.statuses == ALL


def test_a_url_needs_a_folder_for_its_parts(files: Files) -> None:
    files.output = "memory://out.parquet"  # type: ignore[assignment]
    with pytest.raises(BatchFileError, match="a URL needs a folder of CONCLAVE_BATCHES"):
        files.run()
