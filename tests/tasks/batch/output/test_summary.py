"""The figures of a batch and its report: they say what the rows say, and nothing in them is anybody's Markdown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from tasks.batch.output.pictures import pictures_of
from tasks.batch.output.report import batch_report, write_report
from tasks.batch.output.rows import RowResult
from tasks.batch.output.schema import record_of, table_of
from tasks.batch.output.summary import OTHERS, Problem, Summary, reason_of, summary_of
from tests.tasks.batch.output.finished import bad, decided, failed, row, voted
from tests.tasks.batch.output.outputs import Outputs

MIXED = (
    *(row(number, decided(at=number, degraded=number == 1)) for number in range(1, 8)),
    row(8, voted()),
    row(9, failed("agent-3 ran out of time after 31.5 s", at=9), item_id="x"),
    row(10, failed("agent-1 ran out of time after 9 s in id-10", at=9)),
    bad(11),
    row(12, error="budget: 1,000 calls are used up"),
    row(13, error="budget: 2,000 calls are used up"),
    row(14, decided(), copied_from="id-1"),
)


def summed(*rows: RowResult, elapsed_s: float | None = None) -> Summary:
    return summary_of([table_of([record_of(one)]) for one in rows], elapsed_s)


def test_the_figures_are_those_of_the_rows() -> None:
    found = summed(*MIXED)
    assert (found.rows, found.decided, found.degraded, found.failed) == (14, 9, 1, 2)
    assert (found.bad, found.pending, found.copied) == (1, 2, 1)
    assert found.statuses == {"COMPLETED": 9, "TIMEOUT": 2, "INVALID": 1, "PENDING": 2}
    assert found.problems[0] == Problem("PENDING", "budget: # calls are used up", 2)
    assert set(found.problems[1:]) == {
        Problem("TIMEOUT", "agent-# ran out of time after # s", 1),
        Problem("TIMEOUT", "agent-# ran out of time after # s in #", 1),
        Problem("INVALID", "task: is empty", 1),
    }


def test_copies_cost_nothing_a_second_time() -> None:
    found = summed(row(1, decided()), row(2, decided(), copied_from="id-1"))
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (6, 30, 15)
    assert found.latency_s is not None
    assert found.latency_s.values == 1
    assert found.scores is not None
    assert found.scores.values == 2


def test_the_pace_is_that_from_the_first_begin_to_the_last_end() -> None:
    found = summed(*(row(number, decided(at=number)) for number in range(1, 11)))
    assert found.elapsed_s == 9 + 1.5
    assert found.rows_per_s == pytest.approx(10 / 10.5)
    assert found.calls_per_s == pytest.approx(60 / 10.5)
    assert summed(*MIXED, elapsed_s=100).rows_per_s == pytest.approx(8 / 100)


def test_quantiles_and_counts_hold_every_value() -> None:
    times = [100 * number for number in range(1, 101)]
    found = summed(*(row(number, decided(duration_ms=took)) for number, took in enumerate(times, 1))).latency_s
    assert found is not None
    assert (found.p50, found.p90) == (pytest.approx(5.05), pytest.approx(9.01))
    assert (sum(found.counts), len(found.edges)) == (100, len(found.counts) + 1)


@pytest.mark.parametrize("took", [0, 1, 10**15])
def test_one_value_and_odd_ones_are_drawn(took: int) -> None:
    found = summed(row(1, decided(duration_ms=took)))
    assert found.latency_s is not None
    assert sum(found.latency_s.counts) == 1
    assert len(list(pictures_of(found))) == 3


def test_councils_are_told_apart() -> None:
    found = summed(row(1, decided()), row(2, decided(council="ops")), row(3, failed()), row(4))
    assert [(one.council, one.rows, one.decided, one.calls, one.tokens) for one in found.groups] == [
        ("dev", 2, 1, 12, 90),
        ("ops", 1, 1, 6, 45),
    ]


def test_many_chunks_come_to_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summed(*MIXED)
    monkeypatch.setattr("tasks.batch.output.summary._AT_ONCE", 2)
    parted = summed(*MIXED)
    assert parted == whole


def test_reasons_that_differ_in_numbers_and_ids_are_one_and_their_number_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        reason_of("row abc: d-41f: 30.5 s, 1,000 of 0123abcdef, abcd", ["abc", "x", None])
        == "row #: d-#f: # s, # of #, abcd"
    )
    monkeypatch.setattr("tasks.batch.output.summary.MAX_REASONS", 2)
    words = ("one", "two", "three", "four", "one")
    found = summed(*(row(number, error=word) for number, word in enumerate(words, 1)))
    assert [(one.reason, one.rows) for one in found.problems] == [("one", 2), (OTHERS, 2), ("two", 1)]


def test_a_batch_of_nothing_has_a_summary_and_a_report() -> None:
    found = summed()
    assert (found.rows, found.elapsed_s, found.latency_s, found.groups) == (0, None, None, ())
    assert found.lines()[0] == "rows         0: 0 decided, 0 failed, 0 bad, 0 pending"
    assert batch_report(found, "a.csv").startswith("# Batch a\\.csv\n")


def test_a_summary_is_json_and_lines() -> None:
    found = summed(*MIXED)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["groups"][0]["council"] == "dev"
    told = found.lines()
    assert told[0] == "rows         14: 9 decided (1 degraded), 2 failed, 1 bad, 2 pending"
    assert told[1] == "  pending    2: budget: # calls are used up"
    assert "copied       1" in told
    assert "calls        60; tokens 300 in, 150 out" in told


def test_the_simulator_is_said_at_the_head() -> None:
    found = summed(row(1, decided(engine="simulator")), row(2, decided()))
    assert found.lines()[0].startswith("SIMULATED ")
    assert batch_report(found, "a").split("\n\n")[1].startswith("**Simulated: these texts come from the simulator")
    assert "imulat" not in batch_report(summed(row(1, decided())), "a", pictures=())


def test_nothing_in_a_report_is_anybodys_markdown() -> None:
    hostile = "<img src=x> | [a](javascript:b) **c**\n# d `e`"
    found = summed(row(1, failed(hostile)), row(2, decided(strategy=hostile, engine=hostile)))
    told = batch_report(found, hostile, pictures=())
    assert "<img" not in told
    assert "](" not in told
    assert "**c" not in told
    assert [line for line in told.splitlines() if line.startswith("# ")] == [told.splitlines()[0]]
    table = [line for line in told.splitlines() if line.startswith("| TIMEOUT")]
    assert [line.replace("\\|", "").count("|") for line in table] == [4]


def test_three_pictures_can_be_embedded_and_are_the_same_each_time() -> None:
    found = summed(*MIXED)
    pictures = list(pictures_of(found))
    assert [one.title for one in pictures] == [
        "Rows by seconds until their end",
        "Rows by the score of the winner",
        "Rows by how far members agreed",
    ]
    for one in pictures:
        kind, _, data = one.address.partition(",")
        svg = base64.b64decode(data).decode()
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(svg)
        assert "fill: #ffffff" in svg
        assert f">{one.title}<" in svg
        assert f"![{one.title}]({one.address})" in batch_report(found, "a")
    assert list(pictures_of(found)) == pictures


def test_the_finished_output_says_what_the_running_one_says(outputs: Outputs) -> None:
    outputs.written(row(3, failed()), *MIXED)
    with outputs.open(resume=True) as output:
        running = output.summary()
        assert output.finish(14, order="input").summary == running
    assert summary_of([pq.read_table(outputs.folder / "a.parquet")]) == running == summed(*MIXED)
    assert running.failed == 2


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "a.md", "# Batch \u00fc\n")
    assert (tmp_path / "a.md").read_text() == "# Batch \u00fc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
