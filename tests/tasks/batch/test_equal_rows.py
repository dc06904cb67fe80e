"""What of a file is still to be asked: rows that ask the same, before and after a run that was killed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tasks.batch.asked import AskedRow
from tasks.batch.job import DecidedLine, InputFile, Job
from tasks.batch.output.folder import open_output
from tasks.batch.output_batches import OutputBatches, Spent
from tests.tasks.batch.output.finished import decided

ROWS = ("a,Choose a queue", "b,Choose a queue", "c,Name it", "d,Name it", "e,Choose a queue")


class Run:
    """One run over a file, as the command or a worker makes it."""

    def __init__(self, folder: Path, *rows: str) -> None:
        source = folder / "rows.csv"
        source.write_text("\n".join(["id,task", *rows]) + "\n")
        self._path = folder / "out.parquet"
        self.output = open_output(self._path, {"council": "dev"}, resume=True)
        self.job = Job(InputFile(str(source)), self.output, "dev", dedupe=True)
        self.asked = [row for rows in self.job.agendas() for row in rows]

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.asked]

    def take(self, *ids: str) -> None:
        """Decisions come for these rows."""
        for row in self.asked:
            if row.id in ids:
                self.job.take(_line(row))

    def killed(self) -> None:
        """It ends, with what it had written."""
        self.output.__exit__(None, None, None)

    def finished(self) -> dict[str, tuple[str, str | None, str | None]]:
        """Status, decision and whose answer it is, of each row of OUTPUT."""
        with self.output:
            self.job.finish(None)
        rows = pq.read_table(self._path).to_pylist()
        return {row["id"]: (row["status"], row["decision"], row["copied_from"]) for row in rows}


def _line(row: AskedRow) -> DecidedLine:
    where = (row.id, row.row, row.line, row.key, str(row.item.id))
    return DecidedLine(*where, "d-1", "digest", "1-1", decided(f"Of {row.id}"))


def test_equal_rows_are_asked_once_and_all_have_the_answer(tmp_path: Path) -> None:
    run = Run(tmp_path, *ROWS)
    assert run.ids == ["a", "c"]
    run.take("a", "c")
    told = run.finished()
    assert told == {
        "a": ("COMPLETED", "Of a", None),
        "b": ("COMPLETED", "Of a", "a"),
        "c": ("COMPLETED", "Of c", None),
        "d": ("COMPLETED", "Of c", "c"),
        "e": ("COMPLETED", "Of a", "a"),
    }


def test_a_run_that_goes_on_asks_for_no_row_that_is_equal_to_a_decided_one(tmp_path: Path) -> None:
    """Its copies were not written, or are new in the file; the others are asked."""
    first = Run(tmp_path, *ROWS[:1], *ROWS[2:4])
    first.take("a")
    first.killed()
    second = Run(tmp_path, *ROWS)
    assert second.ids == ["c"]
    second.take("c")
    assert second.finished() == {
        "a": ("COMPLETED", "Of a", None),
        "b": ("COMPLETED", "Of a", "a"),
        "c": ("COMPLETED", "Of c", None),
        "d": ("COMPLETED", "Of c", "c"),
        "e": ("COMPLETED", "Of a", "a"),
    }


def test_what_is_left_of_a_budget_is_that_of_all_batches_of_an_output() -> None:
    spent = Spent.of(
        [{"id": "1", "spent": {"calls": 6, "tokens": 70}}, {"id": "2"}, {"id": "3", "spent": {"calls": 3}}]
    )
    assert spent.left_of({"max_calls": 12, "max_tokens": None, "max_s": 5.0}) == {"max_calls": 3, "max_s": 5.0}
    assert spent.used_up({"max_calls": 12, "max_tokens": 100}) is None
    assert spent.used_up({"max_calls": 9}) == "budget: 9 of 9 calls are used"
    assert spent.used_up({"max_tokens": 60}) == "budget: 70 of 60 tokens are used"


def test_no_two_batches_of_an_output_have_one_id(tmp_path: Path) -> None:
    """Rows that were sent for one that never began may be others than those that are sent now."""
    with open_output(tmp_path / "out.parquet", {"council": "dev"}) as output:
        ids = {OutputBatches(output).new_id() for _ in range(50)}
    assert len(ids) > 45
    assert all(len(one) <= 48 for one in ids)


def test_the_batches_of_an_output_are_found_again(tmp_path: Path) -> None:
    """One that ended is not gone on with; how far another was written, and what was used, is known to the next run."""
    with open_output(tmp_path / "out.parquet", {"council": "dev"}) as output:
        batches = OutputBatches(output)
        assert not batches
        batches.add("one")
        batches.ended("one", {"calls": 6, "tokens": None})
        batches.add("two")
        batches.written("two", "1:7")
        batches.add("three")
    with open_output(tmp_path / "out.parquet", {"council": "dev"}, resume=True) as output:
        again = OutputBatches(output)
        assert again.not_ended == [("two", "1:7"), ("three", None)]
        assert again.spent == Spent(calls=6)
        again.ended("three")
        assert again.not_ended == [("two", "1:7")]
        assert again.spent == Spent(calls=6)


def test_a_run_that_is_told_to_stop_before_it_read_the_file_tells_of_all_rows(tmp_path: Path) -> None:
    """It followed an earlier batch, and was stopped there."""
    first = Run(tmp_path, *ROWS)
    first.take("a")
    first.killed()
    with open_output(tmp_path / "out.parquet", {"council": "dev"}, resume=True) as output:
        Job(InputFile(str(tmp_path / "rows.csv")), output, "dev", dedupe=True).finish("cancelled")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    left = {row["id"]: row["error"] for row in rows if row["status"] == "PENDING"}
    assert left == {"c": "cancelled", "d": "cancelled"}
