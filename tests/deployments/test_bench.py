"""The benchmark: how it reads options, sums up and judges; then one quick run of the real command."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deployments.bench import command, main, quiet
from deployments.bench.figures import (
    FLOOR_SHARE,
    FloorCheck,
    Measured,
    check_floor,
    check_floors,
    difference,
    rows,
    summary,
)
from deployments.bench.options import Options, read_peers, read_sizes, turns
from deployments.bench.quiet import Reading, Watch
from deployments.bench.report import Report, remarks, show
from deployments.bench.samples import Sample
from deployments.bench.targets import MISSED, NOT_JUDGED, REACHED, Judged, exit_code, judge
from deployments.stack.processes import family

LATENCY_S = 0.5
ROUNDS = 5
LANGGRAPH = "3 members over LangGraph, from the call (s)"
STRONG, WEAK = 0.505, 0.56
"""Wall times of a floor that counts, and of one that does not."""


def measured(walls: Mapping[tuple[str, int], float], **figures: float) -> list[Measured]:
    """Rounds of a run in which every peer takes the wall time given for it, a little more in each round."""
    seen = {"spread_s": 0.01, "tail_s": 0.02, "server_s": LATENCY_S, **figures}
    return [
        Measured(peer, size, number, Sample(wall_s=wall, call_s=wall, **seen), 0.0, True, 0.1)
        for number in range(ROUNDS)
        for (peer, size), wall in ((key, wall + number * 1e-4) for key, wall in walls.items())
    ]


def whole(**other: float) -> dict[tuple[str, int], float]:
    """Wall times with which every target is reached; `floor_64=0.6` sets one of them."""
    walls = {("floor", size): STRONG for size in (1, 3, 5, 15, 64)}
    walls |= {("conclave", size): 0.55 for size in (1, 3, 5, 15)} | {("conclave", 64): 0.75}
    walls |= {("rank", 3): 1.3, ("synthesize", 3): 1.8}
    return walls | {(name.rpartition("_")[0], int(name.rpartition("_")[2])): wall for name, wall in other.items()}


def judged(walls: Mapping[tuple[str, int], float], **figures: float) -> dict[str, Judged]:
    """The verdicts on such a run, by target."""
    found = measured(walls, **figures)
    floors = check_floors(found, LATENCY_S)
    return {each.target: each for each in judge(rows(found, floors), floors)}


def report(walls: Mapping[tuple[str, int], float], **other: Any) -> Report:
    """A whole report of such a run."""
    found = measured(walls)
    floors = check_floors(found, LATENCY_S)
    found_rows = rows(found, floors)
    fields: dict[str, Any] = {
        "taken_at": "2026-11-01T00:00:00+00:00",
        "latency_s": LATENCY_S,
        "machine": {"cores": 2},
        "git": None,
        "versions": {},
        "options": {},
        "peers": {name: {"title": name.capitalize(), "options": {}} for name, _ in walls},
        "left_out": {},
        "others_cores": 0.1,
        "floors": floors,
        "rows": found_rows,
        "targets": judge(found_rows, floors),
        "samples": found,
    }
    return Report(**(fields | other))


# --- options ----------------------------------------------------------------------------------------------


def test_sizes_are_read_in_order_and_each_once() -> None:
    assert read_sizes("64, 1,3,1") == (1, 3, 64)


@pytest.mark.parametrize("text", ["", "one", "0,3", "3,1001", "1.5"])
def test_sizes_that_no_council_has_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="members"):
        read_sizes(text)


def test_the_floor_always_belongs_to_the_peers() -> None:
    assert read_peers("langgraph") == ("floor", "langgraph")
    assert read_peers("conclave,floor,conclave") == ("floor", "conclave")


def test_an_unknown_peer_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no peer autogen.*langgraph"):
        read_peers("conclave,autogen")


def test_every_round_has_everyone_once_and_some_at_their_own_sizes() -> None:
    options = Options(sizes=(1, 3, 5))
    for number in range(4):
        order = turns(options, number)
        assert len(order) == len(set(order)) == 3 * 3 + 3
        assert sorted((peer, size) for peer, size in order if peer not in ("floor", "conclave", "langgraph")) == [
            ("rank", 3),
            ("stock", 3),
            ("synthesize", 3),
        ]


def test_rounds_rotate_so_that_everyone_comes_first_and_last() -> None:
    options = Options(sizes=(3,))
    first = {turns(options, number)[0][0] for number in range(len(options.peers))}
    last = {turns(options, number)[-1][0] for number in range(len(options.peers))}
    assert first == last == set(options.peers)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """What the command line would measure, without measuring it."""

    def ask(*arguments: str) -> Options:
        seen: list[Options] = []
        monkeypatch.setattr(command, "measure", lambda options: seen.append(options) or 3)
        assert main(list(arguments)) == 3
        return seen[0]

    return ask


def test_the_command_line_defaults_are_the_documented_ones(asked: Callable[..., Options]) -> None:
    assert asked() == Options()


def test_given_options_go_before_those_of_quick(asked: Callable[..., Options]) -> None:
    options = asked("--quick", "--sizes", "5", "--json", "out.json")
    assert (options.sizes, options.json) == ((5,), Path("out.json"))
    assert (options.samples, options.latency_s) == (command.QUICK.samples, command.QUICK.latency_s)


@pytest.mark.parametrize(
    "arguments",
    [("--sizes", "many"), ("--peers", "autogen"), ("--samples", "0"), ("--latency", "0"), ("--frobnicate",)],
)
def test_wrong_use_ends_with_two_and_names_the_option(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_tells_every_option_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for option in (
        "samples",
        "warmup",
        "latency",
        "settle",
        "sizes",
        "stock-sizes",
        "peers",
        "json",
        "plot",
        "quick",
        "against",
        "doors",
    ):
        assert f"--{option}" in told
    for code in (
        "0 every target",
        "1 a target missed",
        "2 wrong use",
        "3 none missed",
        "6 the stack",
        "1 a loss shown",
    ):
        assert code in " ".join(told.split())


# --- figures ----------------------------------------------------------------------------------------------


def test_a_summary_has_median_range_and_the_distance_of_the_quartiles() -> None:
    found = summary([5.0, 1.0, 2.0, 4.0, 100.0])
    assert (found.median, found.min, found.max, found.iqr) == (4.0, 1.0, 100.0, 3.0)


def test_one_sample_has_no_spread() -> None:
    assert summary([0.5]).iqr == 0


def test_a_constant_difference_has_no_interval() -> None:
    floor = [0.5, 0.6, 0.7, 0.5, 0.55]
    found = difference([wall + 0.2 for wall in floor], floor)
    assert (found.median, found.low, found.high) == (0.2, 0.2, 0.2)


def test_one_disturbed_round_widens_the_interval_and_leaves_the_median() -> None:
    floor = [0.5] * 7
    found = difference([0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 3.0], floor)
    assert found.median == 0.2
    scattered = difference([0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2], floor)
    assert scattered.low < scattered.median < scattered.high


def floor_of(wall_s: float, server_s: float = LATENCY_S) -> FloorCheck:
    """The check of a floor with this wall time."""
    sample = Sample(wall_s=wall_s, call_s=wall_s, spread_s=0, tail_s=0, server_s=server_s)
    return check_floor(64, [sample] * 3, LATENCY_S)


def test_a_floor_counts_from_its_share_on() -> None:
    assert floor_of(LATENCY_S / FLOOR_SHARE - 1e-6).counts
    assert not floor_of(LATENCY_S / FLOOR_SHARE + 1e-6).counts


def test_a_weak_floor_tells_what_the_server_itself_left() -> None:
    found = floor_of(0.6, server_s=0.55)
    assert found.share == pytest.approx(LATENCY_S / 0.6, abs=1e-4)
    assert found.server_share == pytest.approx(LATENCY_S / 0.55, abs=1e-4)


@given(st.floats(0.001, 2.0))
def test_with_the_latency_that_it_asks_for_a_weak_floor_would_count(overhead_s: float) -> None:
    needed = floor_of(LATENCY_S + overhead_s).latency_needed_s
    assert needed / (needed + overhead_s) >= FLOOR_SHARE - 1e-9


def test_rows_stand_by_size_and_know_whether_their_floor_counts() -> None:
    found = measured(whole(floor_64=WEAK, langgraph_3=0.52))
    table = rows(found, check_floors(found, LATENCY_S))
    assert [(row.peer, row.size) for row in table][:5] == [
        *(("floor", 1), ("conclave", 1)),
        *(("floor", 3), ("conclave", 3), ("rank", 3)),
    ]
    assert {row.size for row in table if row.weak_floor} == {64}
    assert {row.samples for row in table} == {ROUNDS}


# --- verdicts ---------------------------------------------------------------------------------------------


def test_all_reached_ends_with_zero_also_without_peers_that_are_only_shown() -> None:
    found = judged(whole())
    assert {each.verdict for each in found.values() if each.bound} == {"reached"}
    assert found["15 members, wall over the floor (s)"].verdict == "shown"
    assert found[LANGGRAPH] == Judged(LANGGRAPH, None, None, "not measured")
    assert exit_code(found.values()) == REACHED


def test_the_figures_are_differences_and_shares_of_medians() -> None:
    found = judged(whole(langgraph_3=0.52))
    assert found["3 members, wall over the floor (s)"].figure == pytest.approx(0.55 - STRONG)
    assert found[LANGGRAPH].figure == pytest.approx(0.03)
    assert found["5 members over 1"].figure == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("walls", "figures", "target"),
    [
        ({"conclave_3": 0.9}, {}, "3 members, wall over the floor (s)"),
        ({"conclave_5": 0.8}, {}, "5 members over 1"),
        ({"conclave_64": 2.0}, {}, "64 members, wall over its floor (s)"),
        ({}, {"spread_s": 0.06}, "3 members, spread of first requests (s)"),
        ({"rank_3": 1.5}, {}, "3 members, rank, wall over 2 floors (s)"),
        ({"synthesize_3": 2.0}, {}, "3 members, synthesize, wall over 3 floors (s)"),
        ({}, {"tail_s": 0.2}, "3 members, last answer sent to decision (s)"),
    ],
)
def test_a_target_beyond_its_bound_is_missed_and_ends_with_one(
    walls: dict[str, float], figures: dict[str, float], target: str
) -> None:
    found = judged(whole(**walls), **figures)
    assert [name for name, each in found.items() if each.verdict == "missed"] == [target]
    assert exit_code(found.values()) == MISSED


def test_a_weak_floor_leaves_its_own_size_unjudged_and_no_other() -> None:
    found = judged(whole(floor_64=WEAK, conclave_64=9.0))
    unjudged = {name for name, each in found.items() if each.verdict == "floor weak"}
    assert unjudged == {"64 members, wall over its floor (s)"}
    assert exit_code(found.values()) == NOT_JUDGED


def test_a_weak_floor_at_one_member_leaves_the_ratio_to_it_unjudged() -> None:
    assert judged(whole(floor_1=WEAK))["5 members over 1"].verdict == "floor weak"


def test_a_weak_floor_at_three_is_never_reached_or_missed_whatever_is_measured_against_it() -> None:
    found = judged(whole(floor_3=WEAK, conclave_3=0.57), spread_s=9.0, tail_s=9.0)
    assert {each.verdict for name, each in found.items() if "3 members" in name and each.bound} == {"floor weak"}


def test_a_miss_goes_before_what_could_not_be_judged() -> None:
    assert exit_code(judged(whole(floor_64=WEAK, conclave_3=0.9)).values()) == MISSED


def test_a_size_that_was_left_out_is_not_judged() -> None:
    walls = {key: wall for key, wall in whole().items() if key[1] != 3}
    found = judged(walls)
    assert found["3 members, wall over the floor (s)"].verdict == "not measured"
    assert exit_code(found.values()) == NOT_JUDGED


def test_what_a_run_by_default_does_not_measure_is_missed_by_nobody_but_judged_where_it_is_asked_for() -> None:
    def by_default(**other: float) -> dict[tuple[str, int], float]:
        return {key: wall for key, wall in whole(**other).items() if key[1] in Options().sizes}

    found = judged(by_default())
    assert found["64 members, wall over its floor (s)"].verdict == "not asked for"
    assert exit_code(found.values()) == REACHED
    assert exit_code(judged(by_default(conclave_3=0.9)).values()) == MISSED
    assert exit_code(judged(whole(conclave_64=9.0)).values()) == MISSED


def test_a_run_that_measures_nothing_judged_has_not_reached_anything() -> None:
    assert exit_code(judged({("floor", 1): STRONG, ("conclave", 1): 0.65}).values()) == NOT_JUDGED
    assert exit_code(judged({("floor", 64): STRONG, ("conclave", 64): 0.65}).values()) == NOT_JUDGED


# --- report -----------------------------------------------------------------------------------------------


def test_the_document_is_json_with_every_sample() -> None:
    document = json.loads(json.dumps(report(whole(floor_64=WEAK)).document()))
    assert document["schema"] == "conclave-bench/1"
    assert len(document["samples"]) == len(whole()) * ROUNDS
    assert document["samples"][0].keys() >= {"peer", "size", "round", "wall_s", "tail_s", "settled_s", "others_cores"}
    assert {floor["size"]: floor["counts"] for floor in document["floors"]}[64] is False
    assert all(row["weak_floor"] == (row["size"] == 64) for row in document["rows"])


def test_the_terminal_tells_weak_floors_and_peers_that_were_left_out() -> None:
    found = report(whole(floor_64=WEAK), left_out={"langgraph": "not installed"}, warnings=("BUSY MACHINE: very",))
    out = StringIO()
    show(found, Console(file=out, width=100))
    marked = [line.split()[:2] for line in out.getvalue().splitlines() if line.rstrip().endswith(" weak")]
    assert marked == [["64", "Floor"], ["64", "Conclave"]]
    assert "targets: 7 reached, 0 missed, 1 not judged" in out.getvalue()
    weak, left_out, busy = remarks(found)
    assert weak.startswith("WEAK FLOOR at 64 members")
    assert (left_out, busy) == ("left out: langgraph: not installed", "BUSY MACHINE: very")


def test_the_plot_is_drawn_as_svg_and_png(tmp_path: Path) -> None:
    from deployments.bench.plot import draw

    svg, png = draw(report(whole(floor_64=WEAK, stock_3=4.0, langgraph_3=0.52)), tmp_path / "bench.svg")
    assert b"</svg>" in svg.read_bytes()
    assert png.read_bytes().startswith(b"\x89PNG")


# --- what it needs ----------------------------------------------------------------------------------------


def test_prefect_is_imported_only_after_the_stack_told_where_it_is() -> None:
    """Prefect reads its settings when it is imported: earlier, it would start a temporary server of its own."""
    code = "import sys, deployments.bench.program, deployments.bench.command; print('prefect' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert asked.stdout.strip() == "False"


# --- quiet ------------------------------------------------------------------------------------------------


def test_what_others_use_is_the_machine_less_ours() -> None:
    before, after = Reading(at=10, machine_s=100, ours_s=20), Reading(at=12, machine_s=103, ours_s=22)
    assert after.others(before) == 0.5
    assert Reading(at=12, machine_s=101, ours_s=22).others(before) == 0


@pytest.mark.servers
@pytest.mark.parametrize(("code", "calm"), [("while True: pass", False), ("import time; time.sleep(60)", True)])
async def test_settling_waits_for_a_server_that_works_and_ends_at_its_bound(
    code: str, calm: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "QUIET_S", 1.0)
    with subprocess.Popen([sys.executable, "-S", "-c", code]) as server:
        try:
            settled = await Watch(tmp_path, server.pid).settle(30.0 if calm else 2.0)
        finally:
            server.kill()
    assert settled.quiet is calm


STEADY = """
import time
while True:
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    time.sleep(0.08)
"""
"""Asked all the time, as by a worker."""


@pytest.mark.servers
async def test_a_server_that_is_asked_all_the_time_can_be_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known what it uses at rest; what comes on top of that is work."""
    monkeypatch.setattr(quiet, "QUIET_S", 1.0)
    monkeypatch.setattr(quiet, "REST_S", 3.0)
    with subprocess.Popen([sys.executable, "-S", "-c", STEADY]) as server:
        try:
            watch = Watch(tmp_path, server.pid)
            before = await watch.settle(2.0)
            await watch.rest()
            after = await watch.settle(60.0)
        finally:
            server.kill()
    assert (before.quiet, after.quiet) == (False, True)


# --- the whole --------------------------------------------------------------------------------------------


@pytest.mark.stack
@pytest.mark.timeout(400)
async def test_a_quick_run_measures_a_stack_of_its_own_and_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = ("--quick", "--sizes", "1", "--warmup", "0", "--settle", "1", "--peers", "conclave,langgraph")
    files = ("--json", str(tmp_path / "out" / "bench.json"), "--plot", str(tmp_path / "out" / "bench"))
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("conclave")),
        *("bench", *arguments, *files),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "VLLM_URL": "http://127.0.0.1:9"},  # somebody's own server is never measured
    )
    out, err = (text.decode() for text in await process.communicate())
    assert process.returncode == NOT_JUDGED, err
    document = json.loads((tmp_path / "out" / "bench.json").read_text())

    installed = importlib.util.find_spec("langgraph") is not None
    peers = {"floor", "conclave"} | ({"langgraph"} if installed else set())
    assert {(sample["peer"], sample["size"]) for sample in document["samples"]} == {(peer, 1) for peer in peers}
    assert set(document["left_out"]) == (set() if installed else {"langgraph"})
    assert document["versions"].keys() >= {"prefect", "ray", "nats-server"}
    for sample in document["samples"]:
        assert sample["wall_s"] >= sample["server_s"] >= document["latency_s"]
    assert {target["verdict"] for target in document["targets"]} == {"not measured", "not asked for"}
    assert "Conclave" in out
    assert (tmp_path / "out" / "bench.png").is_file()
    home = re.search(r"starting .* in (\S+)", err)
    assert home is not None
    assert not family(Path(home[1])).everyone
