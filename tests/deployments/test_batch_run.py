"""The verb batch at work: rows go to a gateway, decisions come back, and OUTPUT and the code say what they came to."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deployments.cli import app, batch_checks, batch_run, gateway
from deployments.client import GatewayAway, GatewayError
from tests.tasks.batch.output.finished import decided, failed

DEV = {"name": "dev", "members": [{"agent_id": f"m{number}", "role": "DEV"} for number in (1, 2, 3)]}
CALLS = 6
"""That a decided row takes, two stages of three members."""
Run = Callable[..., Result]


class FakeGateway:
    """Takes rows and decides them one by one as they are asked for, as a worker would that is just as fast.

    A task with `fail` in it fails, one with `degrade` is degraded. `breaks`: what is raised once before a row is told,
    by how many rows were told before it.
    """

    def __init__(self) -> None:
        self.sent: dict[str, dict[int, list[Any]]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.asked: Counter[str] = Counter()
        """How often a row was decided, by its id."""
        self.breaks: dict[int, BaseException] = {}
        self.rows_told = 0
        self.calls: list[str] = []
        self.engine = "vllm"

    def councils(self) -> dict[str, Any]:
        return {"dev": DEV, "qa": {**DEV, "name": "qa"}}

    def send_rows(self, batch_id: str, number: int, agenda: Any) -> None:
        self.calls.append("send")
        assert batch_id not in self.batches
        self.sent.setdefault(batch_id, {})[number] = agenda["rows"]

    def start_batch(self, batch_id: str, **fields: Any) -> dict[str, Any]:
        self.calls.append("start")
        if batch_id not in self.batches:
            assert sorted(self.sent[batch_id]) == list(range(1, fields["agendas"] + 1))
            rows = sum(map(len, self.sent[batch_id].values()))
            body = {"id": batch_id, "status": "IN_PROGRESS", "asked": fields, "rows": rows, "calls": 0, "tokens": 0}
            self.batches[batch_id], self.told[batch_id] = body, []
        return self.batches[batch_id]

    def batch(self, batch_id: str) -> dict[str, Any]:
        if batch_id not in self.batches:
            raise GatewayError(404, {"type": "unknown-batch", "detail": "there is no such batch"})
        return dict(self.batches[batch_id])

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        self.calls.append("cancel")
        self.batches[batch_id]["cancel_requested"] = True
        return self.batches[batch_id]

    def batch_results(self, batch_id: str, after: str | None = None) -> Iterator[dict[str, Any] | None]:
        told, rows = self.told[batch_id], [row for agenda in self.sent[batch_id].values() for row in agenda]
        place = int(after.partition("-")[2]) if after else 0
        yield None
        while place < len(rows):
            if place == len(told):
                told.append(self._line(batch_id, rows[place], place + 1))
            if broken := self.breaks.pop(self.rows_told, None):
                raise broken
            self.rows_told += 1
            yield told[place]
            place += 1
        body = self.batches[batch_id]
        body["status"] = "CANCELLED" if body.get("cancel_requested") else "COMPLETED"
        body |= {"error": "cancelled"} if body.get("cancel_requested") else {}

    def _line(self, batch_id: str, row: dict[str, Any], place: int) -> dict[str, Any]:
        body = self.batches[batch_id]
        most = (body["asked"].get("budget") or {}).get("max_calls")
        left = None
        if body.get("cancel_requested"):
            left = "cancelled"
        elif most is not None and body["calls"] + CALLS > most:
            left = body["error"] = f"budget: {body['calls']} of {most} calls are used"
        result = self._left(left) if left else self._result(row)
        if not left:
            self.asked[row["id"]] += 1
            body["calls"] += CALLS
        told = {name: row[name] for name in ("id", "row", "line", "key")}
        return {
            **told,
            "item": row["item"]["id"],
            "deliberation_id": f"{batch_id}-0001",
            "council_digest": "c" * 64,
            "after": f"1-{place}",
            "result": result.model_dump(mode="json"),
        }

    def _result(self, row: dict[str, Any]) -> Any:
        task = row["item"]["task"]
        if "fail" in task:
            return failed()
        return decided(f"Of {task}", degraded="degrade" in task, engine=self.engine)

    def _left(self, reason: str) -> Any:
        nothing: dict[str, Any] = {"results": (), "members": (), "ballots": None, "stages": (), "decided_by": None}
        return decided(status="CANCELLED", decision=None, winner_id=None, error_message=reason, **nothing)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    """The gateway that every verb asks."""
    made = FakeGateway()
    for module in (gateway, batch_run):
        monkeypatch.setattr(module, "client", lambda *_arguments, **_options: made)
    monkeypatch.setattr(batch_run, "_prepare_end", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    assert batch_checks is not None
    return made


@pytest.fixture
def run(fake: FakeGateway, tmp_path: Path) -> Run:
    """`run("--resume")`: the verb over rows.csv, into out.parquet."""
    (tmp_path / "rows.csv").write_text("id,task\na,one\nb,two\nc,three\n")

    def invoke(*more: str, input_: str = "rows.csv", output: str = "out.parquet", stdin: bytes = b"") -> Result:
        named = input_ if input_ == "-" or "://" in input_ else str(tmp_path / input_)
        made = output if "://" in output else str(tmp_path / output)
        return CliRunner().invoke(app, ["batch", named, made, *more], input=stdin, catch_exceptions=False)

    return invoke


def write(folder: Path, *rows: str) -> None:
    """The input: a row `id,task` each."""
    (folder / "rows.csv").write_text("\n".join(["id,task", *rows]) + "\n")


def rows_in(folder: Path) -> dict[str, str]:
    """Status of each row of OUTPUT, by its id, in the order of the input."""
    rows = sorted(pq.read_table(folder / "out.parquet").to_pylist(), key=lambda one: one["row"])
    return {row["id"]: row["status"] for row in rows}


def left_behind(folder: Path) -> list[str]:
    """Whatever is there beside the input."""
    return sorted(path.name for path in folder.iterdir() if path.name != "rows.csv")


# --- what it says ---------------------------------------------------------------------------------


def test_all_rows_are_decided(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    ended = run()
    assert (ended.exit_code, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "rows         3: 3 decided, 0 failed, 0 bad, 0 pending"
    assert lines[1].startswith("calls        18; tokens 90 in, 45 out")
    assert lines[-2:] == [
        f"output       {tmp_path}/out.parquet",
        f"report       {tmp_path}/out.parquet.report.md",
    ]
    assert left_behind(tmp_path) == ["out.parquet", "out.parquet.report.md"]
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")
    assert fake.calls == ["send", "start"]
    (asked,) = (body["asked"] for body in fake.batches.values())
    assert {name: value for name, value in asked.items() if value} == {"agendas": 1, "council": "dev"}


def test_what_is_asked_goes_along(run: Run, fake: FakeGateway) -> None:
    more = ("--council", "qa", "--strategy", "synthesize", "--rounds", "1", "--members", "2", "--quorum", "2")
    more += ("--grace", "3", "--deadline", "9", "--answer-format", "yes,no", "--window", "12")
    more += ("--max-calls", "100", "--max-tokens-total", "9000", "--max-minutes", "2")
    assert run(*more).exit_code == 0
    (body,) = fake.batches.values()
    assert {name: value for name, value in body["asked"].items() if value is not None} == {
        "agendas": 1,
        "council": "qa",
        "strategy": "synthesize",
        "rounds": 1,
        "members": 2,
        "quorum": 2,
        "grace_s": 3.0,
        "deadline_s": 9.0,
        "answer_format": {"type": "choice", "options": ["yes", "no"]},
        "window": 12,
        "budget": {"max_calls": 100, "max_tokens": 9_000, "max_s": 120.0},
    }


def test_json_is_one_document(run: Run, tmp_path: Path) -> None:
    ended = run("--json")
    assert (ended.exit_code, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    assert document["output"] == f"{tmp_path}/out.parquet"
    assert (document["error"], document["errors"]) == (None, None)
    assert document["summary"]["rows"] == document["summary"]["decided"] == 3
    assert document["seconds"]["command"] >= 0


def test_a_rehearsal_says_so_first(run: Run, fake: FakeGateway) -> None:
    fake.engine = "simulator"
    assert run().stdout.startswith("SIMULATED")


@pytest.mark.parametrize(
    ("rows", "code", "first"),
    [
        (["a,one", "b,degrade"], 3, "rows         2: 2 decided (1 degraded), 0 failed, 0 bad, 0 pending"),
        (["a,one", "b,fail"], 3, "rows         2: 1 decided, 1 failed, 0 bad, 0 pending"),
        (["a,one", "b,"], 3, "rows         2: 1 decided, 0 failed, 1 bad, 0 pending"),
        (["a,fail", "b,fail"], 1, "rows         2: 0 decided, 2 failed, 0 bad, 0 pending"),
        (["a,", "b,"], 1, "rows         2: 0 decided, 0 failed, 2 bad, 0 pending"),
    ],
)
def test_the_code_says_what_rows_came_to(run: Run, tmp_path: Path, rows: list[str], code: int, first: str) -> None:
    write(tmp_path, *rows)
    ended = run()
    assert (ended.exit_code, ended.stdout.splitlines()[0]) == (code, first)
    assert len(rows_in(tmp_path)) == 2


def test_bad_rows_stop_it_where_that_is_wanted(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, "a,one", "b,")
    ended = run("--bad-rows", "stop")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "line 3 (row 2, id 'b'): task: is empty; nothing was asked" in ended.stderr
    assert left_behind(tmp_path) == []
    assert fake.calls == []


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_other_formats_are_written(run: Run, tmp_path: Path, output: str) -> None:
    assert run(output=output).exit_code == 0
    assert (tmp_path / output).read_text().count("COMPLETED") == 3


def test_openais_format_has_a_second_file(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "a,one", "b,fail")
    document = json.loads(run("--output-format", "openai", "--json", output="out.jsonl").stdout)
    assert document["errors"] == f"{tmp_path}/out.jsonl.errors.jsonl"
    assert json.loads((tmp_path / "out.jsonl.errors.jsonl").read_text())["custom_id"] == "b"


def test_the_order_of_the_input_can_be_had(run: Run, tmp_path: Path) -> None:
    assert run("--output-order", "input").exit_code == 0
    assert pq.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["a", "b", "c"]


def test_standard_input_is_read(run: Run, tmp_path: Path) -> None:
    ended = run("--input-format", "csv", input_="-", stdin=b"id,task\nx,one\n")
    assert (ended.exit_code, rows_in(tmp_path)) == (0, {"x": "COMPLETED"})


def test_standard_input_has_a_bound(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept in a file: what never ends would fill the disk."""
    monkeypatch.setattr(batch_run, "MAX_FILE", 12)
    ended = run("--input-format", "csv", input_="-", stdin=b"id,task\nx,one\n")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "INPUT: standard input cannot be kept: it is larger than 12 bytes" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_url_is_written_and_its_parts_lie_at_home(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("CONCLAVE_HOME", str(tmp_path / "home"))
    system = fsspec.filesystem("memory")
    try:
        ended = run("--json", output="memory://bucket/out.jsonl")
        assert (ended.exit_code, json.loads(ended.stdout)["report"]) == (0, None)
        assert system.cat("/bucket/out.jsonl").count(b"COMPLETED") == 3
        assert list((tmp_path / "home/batches").iterdir()) == []
    finally:
        system.store.clear()


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        (["a,one", "a,two"], [], "'a'"),
        (["a,one"], ["--task", "text"], "has no column 'text'"),
        (["a,one"], ["--council", "none"], "council: 'none' is unknown"),
        (["a,one"], ["--members", "0"], "members: "),
        (["a,one"], ["--quorum", "9"], "quorum: "),
        (["a,one"], ["--answer-format", "x"], "answer_format: "),
        (["a,one"], ["--output-format", "parquet", "--resume", "--replace"], "--resume goes on"),
        ([], [], "rows.csv"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    run: Run, fake: FakeGateway, tmp_path: Path, rows: list[str], more: list[str], told: str
) -> None:
    write(tmp_path, *rows)
    ended = run(*more)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert left_behind(tmp_path) == []
    assert "start" not in fake.calls
    write(tmp_path, "a,one")
    assert run().exit_code == 0


def test_an_output_that_ends_in_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    ended = run(output="out")
    assert ended.exit_code == 2
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("output", ["rows.csv", "./rows.csv", "link.csv"])
def test_the_input_is_not_written_over(run: Run, tmp_path: Path, output: str) -> None:
    """However it is named."""
    (tmp_path / "link.csv").symlink_to("rows.csv")
    before = (tmp_path / "rows.csv").read_text()
    ended = run("--replace", output=output)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "OUTPUT: is INPUT itself" in ended.stderr
    assert (tmp_path / "rows.csv").read_text() == before


def test_what_is_there_is_not_written_over(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    run()
    before = (tmp_path / "out.parquet").read_bytes()
    ended = run()
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--replace writes another in its place" in ended.stderr
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert run("--resume").exit_code == 2  # it is finished
    assert run("--replace").exit_code == 0
    assert fake.asked == dict.fromkeys("abc", 2)


# --- going on -------------------------------------------------------------------------------------


def test_where_the_gateway_goes_away_it_goes_on_later(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    """With the batch that runs there: nothing is sent, and nothing is asked, twice."""
    fake.breaks[1] = GatewayAway("no gateway answers at http://x")
    ended = run()
    assert (ended.exit_code, ended.stdout) == (6, "")
    assert "no gateway answers" in ended.stderr
    assert left_behind(tmp_path) == ["out.parquet.parts"]
    assert run().exit_code == 2  # it is not finished
    assert run("--resume").exit_code == 0
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")
    assert fake.asked == dict.fromkeys("abc", 1)
    assert len(fake.batches) == 1
    assert left_behind(tmp_path) == ["out.parquet", "out.parquet.report.md"]


def test_rows_that_were_put_between_are_asked_in_a_further_batch(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    fake.breaks[1] = GatewayAway("it is away")
    run()
    write(tmp_path, "new,nothing", "c,three", "a,one")
    assert run("--resume").exit_code == 0
    assert list(rows_in(tmp_path)) == ["new", "c", "a"]
    assert fake.asked == {"a": 1, "b": 1, "c": 1, "new": 1}
    assert len(fake.batches) == 2


def test_a_kill_while_rows_are_sent_leaves_a_file_that_may_be_edited(
    run: Run, fake: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent under an id that never began is left there."""

    def killed(*sent: Any) -> None:
        FakeGateway.send_rows(fake, *sent)
        raise GatewayAway("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(batch_run.OutputFolder, "discard", lambda _self: None)  # who is killed takes nothing away
        patch.setattr(fake, "send_rows", killed)
        assert run().exit_code == 6
    write(tmp_path, "a,another", "b,two")
    assert run("--resume").exit_code == 0
    assert rows_in(tmp_path) == dict.fromkeys("ab", "COMPLETED")
    assert (len(fake.sent), len(fake.batches)) == (2, 1)


def test_a_batch_that_is_not_known_any_more_is_asked_anew(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    """As far as its rows were not written; those of the record have gone."""
    fake.breaks[1] = GatewayAway("it is away")
    run()
    fake.batches.clear()
    fake.asked.clear()
    assert run("--resume").exit_code == 0
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")
    assert fake.asked == {"b": 1, "c": 1}


def test_failed_rows_are_asked_again_where_that_is_wanted(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, "a,one", "b,fail")
    assert run().exit_code == 3
    assert run("--resume").exit_code == 3
    assert fake.asked == {"a": 1, "b": 1}
    fake._result = lambda _row: decided()  # type: ignore[method-assign]
    assert run("--resume", "--retry", "failed").exit_code == 0
    assert fake.asked == {"a": 1, "b": 2}
    assert left_behind(tmp_path) == ["out.parquet", "out.parquet.report.md"]


def test_other_options_are_refused_with_what_differs(run: Run, fake: FakeGateway) -> None:
    fake.breaks[1] = GatewayAway("it is away")
    run()
    ended = run("--resume", "--strategy", "propose")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "strategy" in ended.stderr
    assert run("--resume").exit_code == 0


def test_what_the_gateway_refuses_is_a_line_and_its_code(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    for status, code in ((422, 2), (401, 6), (403, 6), (429, 6), (500, 1)):

        def refuses(*_: Any, status: int = status) -> None:
            raise GatewayError(status, {"detail": "rows.0.item.task: is too long"})

        fake.send_rows = refuses  # type: ignore[method-assign]
        ended = run()
        assert (ended.exit_code, ended.stdout) == (code, "")
        assert "rows.0.item.task: is too long" in ended.stderr
        assert left_behind(tmp_path) == []


# --- budgets, samples, equal rows -----------------------------------------------------------------


def test_a_budget_is_that_of_all_runs_of_an_output(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, *(f"r{number},task {number}" for number in range(5)))
    ended = run("--max-calls", "13")
    assert ended.exit_code == 3
    assert "stopped early: budget: 12 of 13 calls are used; --resume goes on" in ended.stderr
    assert Counter(rows_in(tmp_path).values()) == {"COMPLETED": 2, "CANCELLED": 3}
    ended = run("--resume", "--max-calls", "13")  # one call is left, which no row can be decided by
    assert (ended.exit_code, fake.asked.total()) == (3, 2)
    ended = run("--resume", "--max-calls", "12")
    assert (ended.exit_code, fake.asked.total()) == (3, 2)
    assert "budget: 12 of 12 calls are used" in ended.stderr
    assert len(rows_in(tmp_path)) == 5
    assert run("--resume", "--max-calls", "20").exit_code == 3
    assert fake.asked.total() == 3
    assert run("--resume").exit_code == 0
    assert fake.asked == {f"r{number}": 1 for number in range(5)}
    budgets = [(body["asked"].get("budget") or {}).get("max_calls") for body in fake.batches.values()]
    assert budgets == [13, 1, 8, None]


def test_a_budget_that_is_used_up_sends_nothing(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    run("--max-calls", "6")
    sent = fake.calls.count("send")
    assert run("--resume", "--max-calls", "6").exit_code == 3
    assert fake.calls.count("send") == sent
    assert Counter(rows_in(tmp_path).values())["COMPLETED"] == 1


def test_a_sample_says_what_all_rows_take_and_keeps_its_own(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, *(f"r{number},task {number}" for number in range(10)))
    ended = run("--sample", "2")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[0] == "sampled      2 of 10 rows"
    assert "calls                 60 for all rows" in ended.stdout
    assert left_behind(tmp_path) == ["out.parquet.parts"]
    ended = run("--sample", "2", "--resume", "--json")
    assert json.loads(ended.stdout)["estimate"]["calls"] == 60
    assert fake.asked.total() == 4
    assert run("--resume").exit_code == 0
    assert fake.asked == {f"r{number}": 1 for number in range(10)}


def test_a_sample_of_all_rows_is_the_whole(run: Run, tmp_path: Path) -> None:
    assert run("--sample", "3").exit_code == 0
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")


def test_equal_rows_are_asked_once(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, "a,one", "b,two", "c,one")
    assert run("--dedupe").exit_code == 0
    assert fake.asked == {"a": 1, "b": 1}
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")


def test_two_rows_with_one_id_are_kept_where_that_is_wanted(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    write(tmp_path, "a,one", "a,one")
    assert run("--duplicate-ids", "keep").exit_code == 0
    assert fake.asked == {"a": 2}
    assert len(pq.read_table(tmp_path / "out.parquet")) == 2


# --- Ctrl-C ---------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_batch_and_writes_what_it_came_to(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    """No other one begins with the rows that are left."""
    fake.breaks[1] = KeyboardInterrupt()
    ended = run()
    assert ended.exit_code == 5
    assert ended.stderr.splitlines()[0] == "stopping the batch; once more leaves it running"
    assert fake.calls == ["send", "start", "cancel"]
    assert list(rows_in(tmp_path)) == ["a", "b", "c"]
    assert Counter(rows_in(tmp_path).values()) == {"COMPLETED": 2, "CANCELLED": 1}
    assert run("--resume").exit_code == 0
    assert rows_in(tmp_path) == dict.fromkeys("abc", "COMPLETED")
    assert fake.asked == dict.fromkeys("abc", 1)


def test_ctrl_c_twice_leaves_it_running(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    fake.breaks |= {1: KeyboardInterrupt(), 2: KeyboardInterrupt()}
    ended = run()
    assert (ended.exit_code, ended.stdout) == (5, "")
    (batch_id,) = fake.batches
    assert f"batch {batch_id} goes on; --resume writes what it comes to" in ended.stderr
    assert left_behind(tmp_path) == ["out.parquet.parts"]
    assert run("--resume").exit_code == 5
    assert len(rows_in(tmp_path)) == 3


def test_ctrl_c_before_anything_is_asked_leaves_nothing_behind(run: Run, fake: FakeGateway, tmp_path: Path) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    fake.send_rows = interrupted  # type: ignore[method-assign]
    ended = run()
    assert ended.exit_code not in (0, 3)
    assert left_behind(tmp_path) == []


def test_progress_is_told_now_and_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "TELL_S", 0.0)
    ended = run()
    assert "1 of 3 rows, " in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("3 of 3 rows, ")
