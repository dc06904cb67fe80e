"""The benchmark of batches: its bounds, its workload, the plain client, our side's adapter, figures and verdicts."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from blocks.background import background
from deployments.bench import main
from deployments.bench.batch import command
from deployments.bench.batch.bounds import Narrow, bound_s, slots_at
from deployments.bench.batch.figures import Found, Measured, NotMeasured
from deployments.bench.batch.options import (
    KINDS,
    Case,
    Options,
    cases,
    read_kinds,
    read_peers,
    read_rows,
    read_slots,
)
from deployments.bench.batch.ours import Conclave, Heard, Told, percentiles
from deployments.bench.batch.peers.protocol import Job
from deployments.bench.batch.plot import draw, plotted
from deployments.bench.batch.report import Report, remarks, report_rows, show
from deployments.bench.batch.sides import Outcome, SideFailed, command_of, measured
from deployments.bench.batch.targets import judge
from deployments.bench.batch.usage import Meter, tree, used
from deployments.bench.batch.workload import PROMPT_CHARS, Questions, row_of, write_calls, write_rows
from deployments.bench.targets import MISSED, NOT_JUDGED, REACHED, Judged, exit_code
from infra.simulator import SimulatorSettings, simulator
from tasks.batch.checking import check_rows
from tasks.batch.files import opened
from tasks.batch.rows import Columns
from tasks.council.council import CouncilSpec

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def council(importable_prefect: None) -> CouncilSpec:
    """The default council of three."""
    from deployments.provisioning.councils import DEFAULTS, read_councils

    return read_councils(DEFAULTS)["dev"].spec("dev")


# --- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calls", "slots", "waves"), [(3000, 256, 12), (3000, 64, 47), (3000, 700, 5), (1, 256, 1)])
def test_calls_take_whole_waves(calls: int, slots: int, waves: int) -> None:
    assert bound_s(calls, slots, 2.0) == waves * 2.0
    assert bound_s(calls, slots, 2.0, Narrow(slots, 1.0, 5.0)) == waves * 2.0, "slots that stay change nothing"


def test_fewer_slots_let_what_runs_end_and_more_are_taken_at_once() -> None:
    """4 calls to 2 s; at 1 s 2 slots: those of 2 to 4 and 4 to 6 s; at 5 s 4 again: 2 at 5 s, 4 at 6 s."""
    narrow = Narrow(2, 1.0, 4.0)
    assert [slots_at(moment, 4, narrow) for moment in (0.0, 1.0, 4.9, 5.0)] == [4, 2, 2, 4]
    assert bound_s(4, 4, 2.0, narrow) == 2.0
    assert bound_s(8, 4, 2.0, narrow) == 6.0
    assert bound_s(10, 4, 2.0, narrow) == 7.0
    assert bound_s(12, 4, 2.0, narrow) == 8.0


# --- options ----------------------------------------------------------------------------------------------


def test_options_are_read_and_refused_in_words() -> None:
    assert read_rows("1000, 100,100") == (100, 1000)
    assert read_slots("256,64,256") == (256, 64)
    assert read_peers("langgraph") == ("floor", "langgraph")
    assert read_kinds("rank,batch") == ("batch", "rank")


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (read_rows, "many", "such as 100,1000"),
        (read_rows, "0", "from 1 on"),
        (read_rows, "1000000", "too many"),
        (read_slots, "", "such as 256,64,700"),
        (read_peers, "autogen", "autogen; there are floor"),
        (read_kinds, "fast", "fast is no kind"),
        (read_kinds, "", "nothing is no kind"),
    ],
)
def test_what_cannot_be_measured_is_refused(read: Callable[[str], Any], text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(text)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """What the command line would measure, without measuring it."""

    def ask(*arguments: str) -> Options:
        seen: list[Options] = []
        monkeypatch.setattr(command, "measure", lambda options: seen.append(options) or 3)
        assert main(["batch", *arguments]) == 3
        return seen[0]

    return ask


def test_the_command_line_defaults_are_the_documented_ones(asked: Callable[..., Options]) -> None:
    assert asked() == Options()
    assert asked("--quick", "--rows", "7") == replace(command.QUICK, rows=(7,))
    assert asked("--peers", "conclave").peers == ("floor", "conclave")


@pytest.mark.parametrize(
    "arguments", [("--rows", "none"), ("--model", "m"), ("--latency", "1", "--url", "http://gpu:8000")]
)
def test_wrong_use_ends_with_two_and_names_the_option(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_run_has_every_kind_of_case_and_prefect_only_few_rows() -> None:
    planned = cases(Options(rows=(100, 1000)))
    assert tuple(dict.fromkeys(case.kind for case in planned)) == KINDS
    assert [case.rows for case in planned if "prefect" in case.peers] == [100]
    assert {case.slots for case in planned if case.kind == "batch"} == {256, 64, 700}
    assert [case.calls for case in planned if case.kind == "rank"] == [6000]
    assert len({case.name for case in planned}) == len(planned)
    assert {case.kind for case in cases(Options(only=("rank",)))} == {"rank"}


def test_a_server_of_ones_own_has_its_own_pace() -> None:
    (case,) = cases(Options(url="http://gpu:8000", rows=(20,), slots=(64,)), members=5)
    assert (case.kind, case.latency_s, case.calls, case.slots) == ("live", None, 100, 64)


# --- workload ---------------------------------------------------------------------------------------------


def test_prompts_have_their_length_and_the_batch_file_is_good(council: CouncilSpec, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 50, council)
    with opened(rows, None, None) as records:
        checked = check_rows(records, Columns("task", None, (), None, False), False)
    assert (checked.rows, checked.bad) == (50, 0)
    calls = write_calls(tmp_path / "calls", 50, council, "simulated", "run").read_text().splitlines()
    heads, bodies = zip(*(map(json.loads, line.split("\t")) for line in calls), strict=True)
    assert len({head["request_id"] for head in heads}) == len(calls) == 150
    lengths = [sum(len(message["content"]) for message in body["messages"]) for body in bodies]
    assert PROMPT_CHARS * 0.8 < min(lengths) <= max(lengths) <= PROMPT_CHARS
    questions = Questions(council)
    assert [row_of(questions.item(row).id) for row in (0, 49)] == [0, 49]


# --- the floor and its program ----------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    """A simulator with a book of calls; 4 slots, answers at once."""
    async with simulator(SimulatorSettings(latency_s=0.02, slots=4)) as running, aiohttp.ClientSession() as http:

        async def ask(method: str, path: str, **body: Any) -> Any:
            async with http.request(method, f"{running.url}{path}", json=body or None) as answer:
                return await answer.json()

        yield running.url, ask


def job_for(url: str, council: CouncilSpec, folder: Path, rows: int, **more: Any) -> Job:
    """A job of so many rows."""
    calls = write_calls(folder / "calls", rows, council, "simulated", "floor")
    whole = {"slots": 4, "council": council.model_dump(mode="json"), **more}
    return Job(url=url, model="simulated", calls=str(calls), rows=rows, folder=str(folder), **whole)


def most_at_once(book: Mapping[str, Any]) -> int:
    """The most requests that the server had at one moment."""
    changes = [(one["received_at"], 1) for one in book["requests"]]
    changes += [(one["sent_at"], -1) for one in book["requests"]]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


@pytest.mark.servers
async def test_the_floor_makes_each_call_once_with_a_full_window(
    server: Any, council: CouncilSpec, tmp_path: Path
) -> None:
    url, ask = server
    outcome = await measured(command_of("floor"), job_for(url, council, tmp_path, 10), 30, PATIENCE_S)
    book = await ask("GET", "/sim/calls")
    assert set(book["calls"].values()) == {1}
    assert len(book["calls"]) == outcome.calls == 30
    assert most_at_once(book) == 4
    assert outcome.seconds > 0
    assert outcome.cpu_s["itself"] > 0
    assert outcome.memory_mib["itself"] > 1


@pytest.mark.servers
async def test_ballots_follow_their_own_proposals_before_others_are_asked(
    server: Any, council: CouncilSpec, tmp_path: Path
) -> None:
    """Each ballot's call is one that our own agents would make, so the simulator gives a ballot."""
    url, ask = server
    job = job_for(url, council, tmp_path, 6, reviews=True)
    await measured(command_of("floor"), job, 36, PATIENCE_S)
    book = (await ask("GET", "/sim/calls"))["requests"]
    assert {one["status"] for one in book} == {200}
    at = {one["request_id"]: one for one in book}
    for row in range(6):
        item = f"q{row:06d}"
        proposals = [one["sent_at"] for name, one in at.items() if f":{item}:propose" in name]
        ballots = [one for name, one in at.items() if f":{item}:review-0:" in name]
        assert (len(proposals), len(ballots)) == (3, 3)
        assert all("response_format:json_schema" in "".join(one["asked"]) for one in ballots)
        assert min(one["received_at"] for one in ballots) >= max(proposals)
    first_ballot = min(one["received_at"] for name, one in at.items() if ":review-0:" in name)
    assert first_ballot < max(one["received_at"] for name, one in at.items() if ":propose" in name)


@pytest.mark.servers
async def test_the_floor_keeps_the_window_that_the_server_has(
    server: Any, council: CouncilSpec, tmp_path: Path
) -> None:
    """From 4 to 1 and to 6 slots: after each change there are as many requests as slots, and all are answered."""
    url, ask = server
    await ask("PUT", "/sim/pace", latency_s=0.1)
    seen: list[int] = []

    async def change() -> None:
        while not (await ask("GET", "/load"))["server_load"]:
            await asyncio.sleep(0.01)
        for slots in (1, 6):
            await ask("PUT", "/sim/pace", slots=slots)
            async with asyncio.timeout(PATIENCE_S):
                while (load := (await ask("GET", "/load"))["server_load"]) != slots:
                    await asyncio.sleep(0.005)
            seen.append(load)

    async with background(change()):
        await measured(command_of("floor"), job_for(url, council, tmp_path, 40, follow=True), 120, PATIENCE_S)
    assert seen == [1, 6]


@pytest.mark.servers
async def test_a_side_that_is_not_installed_or_fails_says_why(
    server: Any, council: CouncilSpec, tmp_path: Path
) -> None:
    url, ask = server
    job = job_for(url, council, tmp_path, 4)
    if importlib.util.find_spec("langgraph") is None:
        with pytest.raises(SideFailed, match="No module named 'langgraph'"):
            await measured(command_of("langgraph"), job, 12, PATIENCE_S)
    else:
        assert (await measured(command_of("langgraph"), job, 12, PATIENCE_S)).calls == 12
    await ask("POST", "/sim/faults", kind="500")
    with pytest.raises(SideFailed, match="500"):
        await measured(command_of("floor"), job, 12, PATIENCE_S)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("raise SystemExit('no such thing')", "ended early: no such thing"),
        ("print('hello')", "ended early: without a word"),
        ("import time; time.sleep(60)", "not done within 1 s"),
        ('input(); print("{}"); input(); print(\'{"answered": 2, "seconds": 1}\')', "2 of 3 calls"),
    ],
)
async def test_a_side_that_does_not_keep_the_protocol_is_told_and_ended(
    program: str, told: str, council: CouncilSpec, tmp_path: Path
) -> None:
    job = job_for("http://127.0.0.1:1", council, tmp_path, 1)
    with pytest.raises(SideFailed, match=told):
        await measured([sys.executable, "-c", program], job, 3, 1 if "sleep" in program else PATIENCE_S)


# --- processor time and memory ----------------------------------------------------------------------------


async def test_a_process_that_ends_still_counts() -> None:
    program = "sum(range(10**7)); print(1, flush=True); input()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    meter = Meter(lambda: {"it": tree(process.pid)})
    await process.stdout.readline()
    alive = meter.cpu_s()["it"]
    assert meter.memory_mib()["it"] > 1
    await process.communicate(b"\n")
    assert meter.cpu_s()["it"] == alive > 0
    assert meter.memory_mib() == {"it": 0.0}
    assert used({"it": 3.0, "new": 1.0}, {"it": 1.0}) == {"it": 2.0, "new": 1.0}


# --- our side ---------------------------------------------------------------------------------------------

FAKE = """
import json, sys, time
_, verb, rows, output, *options = sys.argv
assert verb == "batch" and options == ["--council", "dev", "--strategy", "propose", "--replace", "--json"], sys.argv
lines = open(rows).read().splitlines()
time.sleep(0.8)
if MODE == "fails":
    print("\\u256d Error \\u256e\\n\\u2502 no such council \\u2502\\n\\u2570\\u2500\\u256f", file=sys.stderr)
    sys.exit(1)
with open(output, "w") as file:
    file.writelines(json.dumps({"id": json.loads(line)["id"]}) + "\\n" for line in lines[MODE == "loses a row":])
print(json.dumps({"id": "b1", "seconds": {"run": 0.5}}) if MODE != "mute" else "done")
"""
"""`conclave batch` as its contract says, or not."""


class Stack:
    """A gateway and decisions as a batch would have them, without one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.looked: list[str] = []

    @asynccontextmanager
    async def opened(self, mode: str) -> AsyncGenerator[Conclave, None]:
        """Our side on this stack."""
        program = self._folder / "conclave.py"
        program.write_text(f"MODE = {mode!r}\n{FAKE}")
        app = web.Application()
        app.router.add_get("/v1/batches/b1", self._batch)
        app.router.add_get("/v1/deliberations/{agenda}/items/{item}", self._item)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            meter = Meter(lambda: {"driver": tree(0), "nats": []})
            yield Conclave([sys.executable, str(program)], url, "token", meter, self._decisions, self._subjects)
        finally:
            await runner.cleanup()

    async def _batch(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer token"
        return web.json_response({"id": "b1", "status": "COMPLETED", "counts": {}, "agendas": 1})

    async def _item(self, request: web.Request) -> web.Response:
        self.looked.append(f"{request.match_info['agenda']} {request.match_info['item']}")
        return web.json_response({"status": "COMPLETED"})

    @asynccontextmanager
    async def _decisions(self, heard: Heard) -> AsyncGenerator[None, None]:
        for row in range(1200):
            heard("b1-0001", f"q{row:06d}")
        yield

    async def _subjects(self) -> int:
        return 100


CASE = Case("batch", 5, 4, 0.1, ("floor", "conclave"))


async def ours(mode: str, council: CouncilSpec, folder: Path) -> tuple[Stack, Outcome]:
    """A batch of five rows on a fake stack."""
    stack = Stack(folder)
    rows = write_rows(folder / "rows.jsonl", CASE.rows, council)
    async with stack.opened(mode) as conclave:
        return stack, await conclave.batch(CASE, rows, folder / "out.jsonl", "dev", PATIENCE_S)


@pytest.mark.servers
async def test_our_side_is_the_typed_command_and_what_is_seen_meanwhile(council: CouncilSpec, tmp_path: Path) -> None:
    stack, outcome = await ours("works", council, tmp_path)
    assert (outcome.seconds, outcome.calls) == (0.5, 15)
    assert outcome.more["typed_s"] >= 0.8
    assert outcome.more["decided"] == 1200
    assert outcome.more["ended"] | {"status": "COMPLETED", "agendas": 1} == outcome.more["ended"]
    assert outcome.more["mark"]["decided"] == 1200
    assert outcome.more["status_ms"]["looks"] == len(stack.looked) > 0
    assert all(look.startswith("b1-0001 q") for look in stack.looked)
    assert outcome.cpu_s["command"] > 0


@pytest.mark.servers
@pytest.mark.parametrize(
    ("mode", "told"),
    [("fails", "ended with 1: no such council"), ("loses a row", "4 rows of 5"), ("mute", "`id` and `seconds.run`")],
)
async def test_a_batch_that_fails_is_told(mode: str, told: str, council: CouncilSpec, tmp_path: Path) -> None:
    with pytest.raises(SideFailed, match=told):
        await ours(mode, council, tmp_path)


def test_what_the_command_tells_is_read_behind_other_lines() -> None:
    assert Told.read('note\n{"id": "b", "seconds": {"run": 2}}') == Told("b", 2.0)


def test_percentiles_are_those_of_the_looks() -> None:
    assert percentiles([]) == {}
    assert percentiles([0.001] * 99 + [0.02]) == {"p50": 1.0, "p99": 20.0, "max": 20.0, "looks": 100}


# --- figures, targets, report -----------------------------------------------------------------------------

OPTIONS = Options(rows=(100, 10_000), slots=(256, 64))
PLANNED = cases(OPTIONS)


def outcome_of(case: Case, over: float, cpu_ms: float, **more: Any) -> Outcome:
    """An outcome so many times as long as the bound."""
    seconds = bound_s(case.calls, case.slots, case.latency_s or 1.0, case.narrow) * over
    cpu_s = {"itself": cpu_ms * case.calls / 1000}
    return Outcome(seconds, case.calls, cpu_s, {"itself": 50.0}, more)


def ours_of(case: Case, over: float = 1.02, cpu_ms: float = 1.2, **other: Any) -> Outcome:
    """One of ours, with all that it has."""
    plain = outcome_of(case, over, cpu_ms)
    mark = {"memory_mib": {"driver": 100.0, "nats": 47.0}, "subjects": 4_000}
    more = {"typed_s": plain.seconds * 1.01, "status_ms": {"p99": 4.0}, "subjects": 50_000, "mark": mark}
    cpu_s = dict.fromkeys(("driver", "agent hosts", "gateway"), plain.cpu_s["itself"] / 3) | {
        "command": 0.5,
        "nats": 9,
    }
    return replace(plain, cpu_s=cpu_s, memory_mib={"driver": 105.0, "nats": 74.0}, more=more | other)


def whole(**changed: Callable[[Case], Outcome | None]) -> list[Measured]:
    """A run in which all is reached; `rank=...` changes our outcome in cases of that kind."""
    taken = []
    for case in PLANNED:
        for peer in case.peers:
            outcome: Outcome | None = outcome_of(case, 1.01, 0.3)
            if peer == "conclave":
                outcome = changed.get(case.kind, ours_of)(case)
            elif peer == "langgraph":
                outcome = outcome_of(case, 1.5, 4.2)
            taken.append(Measured(case, peer, outcome, "" if outcome else "it broke"))
    return taken


def verdicts(taken: list[Measured]) -> dict[str, Judged]:
    """By target."""
    return {one.target: one for one in judge(PLANNED, taken)}


def test_a_run_that_reaches_all_ends_with_zero() -> None:
    found = verdicts(whole())
    assert {one.verdict for one in found.values()} == {"reached", "shown"}
    assert exit_code(found.values()) == REACHED
    slope = next(one for name, one in found.items() if name.startswith("CPU a call, driver"))
    assert (slope.figure, slope.bound) == (1.2, "<= 1.5")


@pytest.mark.parametrize(
    ("kind", "changed", "missed"),
    [
        ("batch", {"over": 1.06}, "of the floor's rate, batch 100 "),
        ("batch", {"typed_s": 10_000}, "typed command to OUTPUT, batch 10000 "),
        ("batch", {"status_ms": {"p99": 11.0}}, "state of an item"),
        ("batch", {"subjects": 5_000}, "NATS: KiB"),
        ("changing", {"over": 1.2}, "of the floor's rate, changing"),
        ("rank", {"over": 1.2}, "of the floor's rate, rank"),
        ("agenda", {"over": 1.3}, "one agenda over LangGraph"),
        ("short", {"cpu_ms": 1.6}, "CPU a call, driver"),
    ],
)
def test_each_target_can_be_missed(kind: str, changed: dict[str, Any], missed: str) -> None:
    found = verdicts(whole(**{kind: lambda case: ours_of(case, **changed)}))
    assert any(missed in name for name, one in found.items() if one.verdict == "missed")
    assert exit_code(found.values()) == MISSED


def test_a_part_that_grows_is_missed_and_nats_may() -> None:
    def grown(case: Case) -> Outcome:
        return replace(ours_of(case), memory_mib={"driver": 111.0, "nats": 74.0})

    (one,) = [one for name, one in verdicts(whole(batch=grown)).items() if name.startswith("memory")]
    assert (one.figure, one.verdict) == (1.11, "missed")


def test_what_of_ours_failed_is_missed_and_what_others_lack_is_a_hole() -> None:
    found = verdicts(whole(rank=lambda case: None))
    assert [name for name, one in found.items() if one.verdict == "missed"] == [
        name for name in found if "rank" in name
    ]
    without = [one for one in whole() if one.peer != "langgraph"]
    holes = [one.target for one in judge(PLANNED, without) if one.verdict == "not measured"]
    assert any("LangGraph" in hole for hole in holes)
    assert exit_code(judge(PLANNED, without)) == NOT_JUDGED


def test_beside_a_weak_floor_nothing_is_judged() -> None:
    weak = [
        one._replace(outcome=outcome_of(one.case, 1.03, 0.3)) if (one.case.kind, one.peer) == ("rank", "floor") else one
        for one in whole()
    ]
    found = verdicts(weak)
    assert {one.verdict for name, one in found.items() if "rank" in name} == {"floor weak"}
    assert exit_code(found.values()) == NOT_JUDGED


def test_samples_are_compared_round_by_round() -> None:
    """A slow minute that hits both is none of ours."""
    case = PLANNED[0]
    slow = [outcome_of(case, 1.0, 1.0), outcome_of(case, 2.0, 1.0), outcome_of(case, 1.0, 1.0)]
    taken = [Measured(case, "floor", one) for one in slow]
    taken += [Measured(case, "conclave", replace(one, seconds=one.seconds * 1.25)) for one in slow]
    assert Found(taken).share(case) == 0.8
    with pytest.raises(NotMeasured, match="langgraph"):
        Found(taken).seconds(case, "langgraph")


def report_of(taken: list[Measured]) -> Report:
    """A whole report."""
    return Report(
        taken_at="2026-12-01T00:00:00+00:00",
        machine={"cores": 2},
        git=None,
        versions={},
        options={},
        others_cores=0.1,
        rows=report_rows(taken),
        targets=judge(PLANNED, taken),
        measured=taken,
        seconds=60.0,
        warnings=["BUSY MACHINE: it is."],
    )


def test_table_remarks_plot_and_document_tell_all(tmp_path: Path) -> None:
    report = report_of(whole(rank=lambda case: None))
    out = StringIO()
    show(report, Console(file=out, width=160))
    for told in ("langgraph", "prefect", "MISSED", "BUSY MACHINE", "it broke", "24.0 s"):
        assert told in out.getvalue()
    assert any(line.startswith("bound: batch 10000 x 3, 256 slots, 2 s: 236.0 s") for line in remarks(report))
    document = json.loads(json.dumps(report.document()))
    assert document["schema"] == "conclave-bench-batch/1"
    assert document["measured"][0]["case"]["rows"] == 100
    assert {row.case.partition(",")[2] for row in plotted(report)} == {" 256 slots, 2 s"}
    for file in draw(report, tmp_path / "plot.svg"):
        assert file.stat().st_size > 1000
