"""From a file of rows to a file of decisions: what is asked, and what is not asked again whatever the file became."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.batch.asked import AskedRow
from tasks.batch.job import DecidedLine, InputFile, Job
from tasks.batch.output.folder import Limits, open_output
from tasks.batch.records import BatchFileError
from tasks.batch.rows import Columns
from tests.tasks.batch.output.finished import decided, failed

SAME = {"council": "dev"}
"""Of a batch: what has to be the same where it goes on."""
Decide = Callable[[AskedRow], Any]


class Jobs:
    """One input and one output; each run of it asks what is left."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output = folder / "rows.csv", folder / "out.parquet"
        self.asks = "a council"
        self.job: Job | None = None

    def write(self, *rows: tuple[str, str]) -> None:
        """The input: ids and tasks."""
        self.input.write_text("id,task\n" + "".join(f"{id_},{task}\n" for id_, task in rows))

    def run(
        self,
        decide: Decide = lambda _: decided(),
        *,
        limit: int | None = None,
        reason: str | None = None,
        asked: Any = SAME,
        keep: bool = False,
        rows_a_part: int = 1_000,
        order: Any = "completion",
        retry: Any = "none",
        resume: bool = False,
        replace: bool = False,
        **how: Any,
    ) -> list[str]:
        """Ask all that is left; the ids that were asked. `limit`: it is killed after so many decisions."""
        source = InputFile(str(self.input), Columns(), keep_duplicates=keep)
        limits = Limits(rows=rows_a_part)
        with open_output(self.output, asked, resume=resume, replace=replace, limits=limits) as output:
            job = self.job = Job(source, output, self.asks, retry, **how)
            rows = [row for agenda in job.agendas() for row in agenda]
            for number, row in enumerate(rows):
                if number == limit:
                    return [one.id for one in rows]
                result = decide(row)
                if result is not None:
                    job.take(line(row, result))
            job.finish(reason, order)
        return [one.id for one in rows]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished file, in the order of the input."""
        found: list[dict[str, Any]] = pq.read_table(self.output).to_pylist()
        return sorted(found, key=lambda one: one["row"])

    def column(self, name: str) -> list[Any]:
        """A column of it."""
        return [row[name] for row in self.rows]

    @property
    def parts(self) -> bool:
        """Whether there is something to go on with."""
        return self.output.with_name("out.parquet.parts").exists()


def line(row: AskedRow, result: Any) -> DecidedLine:
    """A row as it is told once it is decided."""
    where = (row.id, row.row, row.line, row.key, str(row.item.id))
    return DecidedLine(*where, "b-0001", "c" * 64, "1-1", result)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written here need not outlive the machine."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """An input of three rows."""
    made = Jobs(tmp_path)
    made.write(("a", "one"), ("b", "two"), ("c", "three"))
    return made


def only(*ids: str) -> Decide:
    """Decide these rows, and leave the others."""
    return lambda row: decided(text=row.item.task) if row.id in ids else None


def test_every_row_is_asked_and_written(jobs: Jobs) -> None:
    assert jobs.run(lambda row: decided(text=row.item.task)) == ["a", "b", "c"]
    assert jobs.column("id") == ["a", "b", "c"]
    assert jobs.column("decision") == ["one", "two", "three"]
    assert jobs.column("deliberation_id") == ["b-0001"] * 3
    assert jobs.column("line") == [2, 3, 4]
    assert not jobs.parts


def test_bad_rows_are_written_and_told_and_not_asked(jobs: Jobs) -> None:
    jobs.write(("a", "one"), ("b", ""), ("", "three"), *((f"x{number}", "") for number in range(30)))
    assert jobs.run() == ["a", "3"]
    assert jobs.job is not None
    assert (jobs.job.rows, jobs.job.bad, jobs.job.asked) == (33, 31, 2)
    assert len(jobs.job.first_bad) == 20
    assert jobs.job.reasons == {"task is empty": 31}
    assert Counter(jobs.column("status")) == {"COMPLETED": 2, "INVALID": 31}
    assert jobs.rows[1]["error"] == "task: is empty"
    assert not jobs.parts


def test_rows_that_were_not_decided_say_why(jobs: Jobs) -> None:
    jobs.run(only("b"), reason="budget: 3 of 4 calls are used")
    assert jobs.column("status") == ["PENDING", "COMPLETED", "PENDING"]
    assert jobs.column("error") == ["budget: 3 of 4 calls are used", None, "budget: 3 of 4 calls are used"]
    assert jobs.parts
    assert jobs.run(resume=True) == ["a", "c"]
    assert jobs.column("status") == ["COMPLETED"] * 3
    assert jobs.column("error") == [None] * 3
    assert not jobs.parts


def test_without_a_reason_they_say_that_they_were_not(jobs: Jobs) -> None:
    jobs.run(only("a"))
    assert jobs.column("error") == [None, "it was not decided", "it was not decided"]


@pytest.mark.parametrize("limit", range(4))
def test_after_a_kill_the_rest_is_asked(jobs: Jobs, limit: int) -> None:
    asked = jobs.run(limit=limit) if limit < 3 else jobs.run(only("a", "b", "c"), limit=3)
    if limit == 3:
        return
    assert asked == ["a", "b", "c"]
    assert not jobs.output.exists()
    assert jobs.run(resume=True) == ["a", "b", "c"][limit:]
    assert jobs.column("status") == ["COMPLETED"] * 3


def test_rows_that_were_put_between_moved_or_taken_out_change_nothing_for_the_others(jobs: Jobs) -> None:
    jobs.run(only("a", "b"), limit=2)
    jobs.write(("new", "nothing"), ("c", "three"), ("b", "two"))
    assert jobs.run(lambda row: decided(text=row.item.task), resume=True) == ["new", "c"]
    assert jobs.column("id") == ["new", "c", "b"]
    assert jobs.column("row") == [1, 2, 3]
    assert jobs.column("line") == [2, 3, 4]
    assert jobs.column("decision") == ["nothing", "three", "two"]


def test_a_row_that_asks_something_else_is_asked_again(jobs: Jobs) -> None:
    jobs.run(only("a", "b"), limit=2)
    jobs.write(("a", "one"), ("b", "another"), ("c", "three"))
    assert jobs.run(resume=True) == ["b", "c"]
    assert len(jobs.rows) == 3


def test_another_council_asks_all_again(jobs: Jobs) -> None:
    """Its name may be the same."""
    jobs.run(only("a", "b"), limit=2)
    jobs.asks = "another council"
    assert jobs.run(resume=True) == ["a", "b", "c"]
    assert len(jobs.rows) == 3


def test_other_options_are_refused(jobs: Jobs) -> None:
    jobs.run(limit=2)
    with pytest.raises(BatchFileError, match="was begun otherwise"):
        jobs.run(resume=True, asked={"council": "qa"})
    with pytest.raises(BatchFileError, match="--resume goes on"):
        jobs.run()
    assert jobs.run(replace=True) == ["a", "b", "c"]


def test_a_file_with_no_row_of_before_goes_through_too(jobs: Jobs) -> None:
    """What stands there of others is left out."""
    jobs.run(only("a"), limit=1)
    jobs.write(("x", "one"), ("y", "two"))
    assert jobs.run(resume=True) == ["x", "y"]
    assert jobs.column("id") == ["x", "y"]


def test_bad_rows_that_were_mended_are_asked(jobs: Jobs) -> None:
    jobs.write(("a", ""), ("b", ""))
    assert jobs.run(limit=0) == []
    jobs.write(("a", ""), ("b", ""))
    jobs.run(replace=True)
    assert jobs.column("status") == ["INVALID"] * 2
    jobs.write(("a", "one"), ("b", ""))
    jobs.run(only(), replace=True)
    jobs.write(("a", "one"), ("b", "two"))
    assert jobs.run(resume=True) == ["a", "b"]
    assert jobs.column("status") == ["COMPLETED"] * 2
    assert not jobs.parts


# --- failed ones ----------------------------------------------------------------------------------


def test_rows_that_failed_are_asked_again_where_that_is_wanted(jobs: Jobs) -> None:
    jobs.run(lambda row: failed() if row.id == "b" else decided())
    assert jobs.column("status") == ["COMPLETED", "TIMEOUT", "COMPLETED"]
    assert jobs.parts
    assert jobs.run(resume=True) == []
    assert jobs.parts
    assert jobs.run(resume=True, retry="failed") == ["b"]
    assert jobs.column("status") == ["COMPLETED"] * 3
    assert not jobs.parts  # nothing is left that a later run could change


def test_a_row_that_is_told_twice_has_its_last_result(jobs: Jobs) -> None:
    """As one that was asked again meanwhile."""

    def twice(row: AskedRow) -> Any:
        if row.id == "b" and jobs.job is not None:
            jobs.job.take(line(row, failed()))
        return decided()

    jobs.run(twice)
    assert jobs.column("status") == ["COMPLETED"] * 3
    assert not jobs.parts


# --- equal rows -----------------------------------------------------------------------------------


def test_rows_that_ask_the_same_are_asked_once(jobs: Jobs) -> None:
    jobs.write(("a", "one"), ("b", "two"), ("c", "one"), ("d", "one"))
    assert jobs.run(lambda row: decided(text=row.item.task), dedupe=True) == ["a", "b"]
    assert jobs.column("decision") == ["one", "two", "one", "one"]
    assert jobs.column("copied_from") == [None, None, "a", "a"]
    assert jobs.column("item_id") == ["a", "b", None, None]


def test_copies_of_a_row_that_failed_failed_too(jobs: Jobs) -> None:
    jobs.write(("a", "one"), ("b", "one"))
    jobs.run(lambda _: failed(), dedupe=True)
    assert jobs.column("status") == ["TIMEOUT"] * 2
    assert jobs.run(dedupe=True, resume=True, retry="failed") == ["a"]
    assert jobs.column("status") == ["COMPLETED"] * 2


def test_copies_of_a_row_that_was_not_decided_say_why(jobs: Jobs) -> None:
    jobs.write(("a", "one"), ("b", "one"))
    jobs.run(only(), dedupe=True, reason="cancelled")
    assert jobs.column("error") == ["cancelled"] * 2
    assert jobs.run(dedupe=True, resume=True) == ["a"]


def test_two_rows_with_one_id_are_refused_or_kept_apart(jobs: Jobs) -> None:
    jobs.write(("a", "one"), ("a", "one"), ("a", "two"))
    with pytest.raises(BatchFileError, match="'a'"):
        jobs.run()
    assert jobs.run(lambda row: decided(text=row.item.task), keep=True, replace=True) == ["a", "a", "a"]
    assert jobs.column("decision") == ["one", "one", "two"]
    assert len(set(jobs.column("key"))) == 3


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_they_are_kept_apart_where_it_goes_on(jobs: Jobs, limit: int) -> None:
    jobs.write(("a", "one"), ("a", "one"), ("a", "two"))
    jobs.run(keep=True, limit=limit)
    assert len(jobs.run(keep=True, resume=True)) == 3 - limit
    assert jobs.column("status") == ["COMPLETED"] * 3


# --- a sample -------------------------------------------------------------------------------------


def test_a_sample_asks_the_first_rows_and_leaves_the_others(jobs: Jobs) -> None:
    assert jobs.run(first=2, reason="a sample") == ["a", "b"]
    assert jobs.job is not None
    assert jobs.job.undecided == 1
    assert jobs.column("status") == ["COMPLETED", "COMPLETED", "PENDING"]
    assert jobs.run(resume=True) == ["c"]


def test_a_sample_of_more_rows_than_there_are_asks_all(jobs: Jobs) -> None:
    assert jobs.run(first=9) == ["a", "b", "c"]
    assert jobs.job is not None
    assert jobs.job.undecided == 0


# --- in all ---------------------------------------------------------------------------------------


def test_a_file_that_became_another_meanwhile_is_told(jobs: Jobs) -> None:
    """Rows would be missing in what is written."""

    def changes(row: AskedRow) -> None:
        jobs.write(("a", "one"))

    with pytest.raises(BatchFileError, match="has 1 rows, and had 3 before"):
        jobs.run(changes)
    assert not jobs.output.exists()


def test_the_output_may_have_the_order_of_the_input(jobs: Jobs) -> None:
    rows = [(f"r{number}", f"task {number}") for number in range(50)]
    jobs.write(*rows)
    source = InputFile(str(jobs.input))
    with open_output(jobs.output, SAME, limits=Limits(rows=7)) as output:
        job = Job(source, output, "x")
        asked = [row for agenda in job.agendas() for row in agenda]
        random.Random(4).shuffle(asked)
        for row in asked:
            job.take(line(row, decided()))
        job.finish(None, "input")
    assert pq.read_table(jobs.output).column("row").to_pylist() == list(range(1, 51))


Rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["one", "two", ""])), max_size=8)


def unique(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows of which no two have one id."""
    return list(dict(rows).items())


@settings(max_examples=10)
@given(
    files=st.lists(Rows.map(unique).filter(bool), min_size=1, max_size=4),
    limits=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    dedupe=st.booleans(),
    rows_a_part=st.integers(1, 4),
)
def test_whatever_happens_to_the_file_between_kills_its_rows_are_all_written_once(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[str, str]]],
    limits: list[int],
    dedupe: bool,
    rows_a_part: int,
) -> None:
    """And no row is asked that was decided before."""
    jobs = Jobs(tmp_path_factory.mktemp("jobs"))
    done = set[tuple[str, str]]()

    def decide(row: AskedRow) -> Any:
        assert (row.id, row.item.task) not in done
        done.add((row.id, row.item.task))
        return decided(text=row.item.task)

    how: dict[str, Any] = {"dedupe": dedupe, "rows_a_part": rows_a_part}
    for number, (rows, limit) in enumerate(zip(files, limits, strict=False)):
        jobs.write(*rows)
        jobs.run(decide, limit=limit, resume=number > 0, **how)
        if jobs.output.exists():
            jobs.output.unlink()
        if not jobs.parts:  # it was finished, and what follows is another batch
            done.clear()
    jobs.write(*files[-1])
    jobs.run(decide, resume=jobs.parts, **how)
    assert [(row["id"], row["decision"] or "") for row in jobs.rows] == files[-1]
