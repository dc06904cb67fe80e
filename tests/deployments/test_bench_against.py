"""Two checkouts compared: what pairs of measurements say, what is a loss, and how both sides are driven."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.bench import command, main, quiet
from deployments.bench.against import program, sides
from deployments.bench.against.pairs import LEAST_PAIRS, Estimate, difference, ratio, shift
from deployments.bench.against.program import figures
from deployments.bench.against.sides import NotUpError, checked, interpreter, side
from deployments.bench.against.verdict import TOLERATED, Comparison, Key, Walls, compare
from deployments.bench.options import Options
from deployments.bench.program import BenchError
from deployments.bench.targets import MISSED, NOT_JUDGED, REACHED

# --- pairs ------------------------------------------------------------------------------------------------

CRITICAL = {6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 12: 13, 15: 25, 20: 52}
"""Wilcoxon's signed-rank table, 5 % two-sided: the largest statistic that is beyond chance."""


@pytest.mark.parametrize(("pairs", "critical"), CRITICAL.items())
def test_the_interval_is_that_of_the_published_table(pairs: int, critical: int) -> None:
    chance = random.Random(pairs)
    values = [chance.gauss(0, 1) for _ in range(pairs)]
    walsh = sorted((values[i] + values[j]) / 2 for i in range(pairs) for j in range(i, pairs))
    found = shift(values)
    assert (found.low, found.high) == (walsh[critical], walsh[-1 - critical])
    assert found.value == statistics.median(walsh)


def test_the_interval_has_the_truth_as_often_as_it_says() -> None:
    """All 1024 signs that ten differences can have: each is as likely, where nothing has changed."""
    sizes = [1.0, 2.3, 3.1, 4.7, 5.2, 6.9, 7.4, 8.8, 9.6, 11.5]
    inside = sum(
        shift([size * sign for size, sign in zip(sizes, signs, strict=True)]).contains(0)
        for signs in product((1, -1), repeat=10)
    )
    assert 0.95 <= inside / 1024 < 0.96


@pytest.mark.parametrize("pairs", range(1, LEAST_PAIRS))
def test_too_few_pairs_have_no_interval(pairs: int) -> None:
    found = shift([0.1] * pairs)
    assert (found.value, found.low, found.high) == (0.1, -math.inf, math.inf)


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=12), st.floats(0.2, 5))
def test_a_change_of_all_by_one_factor_is_that_factor_without_doubt(walls: list[float], factor: float) -> None:
    found = ratio(walls, [wall * factor for wall in walls])
    assert (found.low, found.value, found.high) == pytest.approx((factor, factor, factor))


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=6, max_size=12))
def test_sides_exchanged_turn_ratio_and_interval_over(pairs: list[tuple[float, float]]) -> None:
    old, new = zip(*pairs, strict=True)
    there, back = ratio(old, new), ratio(new, old)
    assert (1 / back.value, 1 / back.high, 1 / back.low) == pytest.approx((there.value, there.low, there.high))
    assert there.low <= there.value <= there.high


def test_one_disturbed_pair_moves_the_estimate_little() -> None:
    old = [0.50, 0.52, 0.49, 0.51, 0.50, 0.53, 0.50, 0.48, 0.51, 0.50]
    new = [0.51, 0.51, 0.50, 0.50, 0.51, 0.52, 0.51, 0.49, 0.50, 5.00]
    assert ratio(old, new).value == pytest.approx(1, abs=0.03)
    assert difference(old, new).value == pytest.approx(0, abs=0.02)


# --- verdicts ---------------------------------------------------------------------------------------------

UI, THREE, FLOOR = Key("ui", 3), Key("conclave", 3), Key("floor", 3)
ROUNDS = 12


def noisy(middle: float, spread: float = 0.01, seed: int = 0) -> list[float]:
    """Walls of some rounds around a middle."""
    chance = random.Random(f"{middle} {seed}")
    return [middle * (1 + chance.uniform(-spread, spread)) for _ in range(ROUNDS)]


def judged(slower: float = 1.0, spread: float = 0.01, of: Sequence[Key] = (UI, THREE)) -> Comparison:
    """A comparison in which some figures are slower by that factor."""
    measured = {
        key: Walls(
            noisy(0.5, spread, at), [(slower if key in of else 1) * wall for wall in noisy(0.5, spread, at + 50)]
        )
        for at, key in enumerate((UI, THREE, FLOOR))
    }
    return compare(measured)


def test_equal_sides_show_no_loss_and_say_ratio_and_interval() -> None:
    found = judged()
    assert (found.verdict, found.exit_code) == ("no loss", REACHED)
    (sentence,) = found.sentences()
    assert sentence.startswith(f"no loss shown: ratio {found.together.value:.3f}, {found.together.low:.3f} to ")


def test_a_gain_is_no_loss() -> None:
    found = judged(0.8)
    assert found.verdict == "no loss"
    assert found.together.high < 1


def test_a_loss_of_all_is_shown_by_each_figure_and_all_together() -> None:
    found = judged(1.1)
    assert (found.verdict, found.exit_code) == ("loss", MISSED)
    assert {figure.key for figure in found.figures if figure.loss} == {UI, THREE}
    assert [line.partition(":")[0] for line in found.sentences()] == [
        "LOSS SHOWN at ui, 3 members",
        "LOSS SHOWN at conclave, 3 members",
        "LOSS SHOWN, all figures together",
    ]


def test_a_loss_of_one_figure_is_one_even_where_another_gains_as_much() -> None:
    measured = {UI: Walls(noisy(0.5), noisy(0.6)), THREE: Walls(noisy(0.5), noisy(0.4))}
    found = compare(measured)
    assert found.together.low < 1
    assert (found.verdict, found.exit_code) == ("loss", MISSED)
    assert "LOSS SHOWN at ui" in found.sentences()[0]


def test_a_loss_of_one_figure_says_nothing_of_the_others() -> None:
    found = compare({UI: Walls(noisy(0.5), noisy(0.6)), THREE: Walls(noisy(0.5, 0.4), noisy(0.4, 0.4, 1))})
    assert (found.verdict, found.of_all) == ("loss", "cannot tell")
    assert [line.partition(",")[0] for line in found.sentences()] == ["LOSS SHOWN at ui", "cannot tell"]


def test_a_wide_interval_is_no_acquittal() -> None:
    found = judged(spread=0.4)
    assert found.together.high > TOLERATED
    assert (found.verdict, found.exit_code) == ("cannot tell", NOT_JUDGED)
    assert "--samples" in found.sentences()[0]


def test_the_floor_is_a_control_and_never_a_loss() -> None:
    found = judged(1.5, of=(FLOOR,))
    assert found.verdict == "no loss"
    control = next(figure for figure in found.figures if figure.key == FLOOR)
    assert (control.judged, control.loss) == (False, False)
    assert control.ratio.low > 1


def test_many_equal_figures_show_a_loss_no_more_often_than_one_in_twenty() -> None:
    """Each is judged more strictly, the more there are; with the 95 % of each alone, most such runs would be losses."""
    chance, losses, runs = random.Random(1), 0, 60
    for _ in range(runs):
        walls = {
            Key("conclave", size): Walls(*([chance.gauss(0.5, 0.02) for _ in range(ROUNDS)] for _ in range(2)))
            for size in range(1, 31)
        }
        losses += any(figure.loss for figure in compare(walls).figures)
    assert losses <= runs * 0.15


# --- turns ------------------------------------------------------------------------------------------------

OPTIONS = Options(samples=6, warmup=1, latency_s=0.2, settle_s=0, sizes=(1, 3), stock_sizes=(), peers=("floor", "rank"))


def test_every_round_has_every_figure_once() -> None:
    for number in range(4):
        found = figures(OPTIONS, ("ui",), number)
        assert Counter(found) == Counter([Key("ui", 3), Key("floor", 1), Key("floor", 3), Key("rank", 3)])


# --- the two sides ----------------------------------------------------------------------------------------

FAKE = """
import json, os, sys
from pathlib import Path

root = Path(__file__).parents[3]
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
plan = json.loads((root / "plan.json").read_text())


def tell(answer):
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()


if plan.get("not_up"):
    sys.exit("StackError: no room for " + root.name)
print("what parts print is no answer")
found = {name: os.environ.get(name) for name in ("PREFECT_API_AUTH_STRING", "NATS_URL", "PYTHONPATH")}
(root / "environ.json").write_text(json.dumps({**found, "latency": sys.argv[1]}))
tell({"root": plan.get("root", str(root)), "git": None, "python": "x", "versions": {}, "home": str(root),
      "prefect_pid": None})
for number, line in enumerate(sys.stdin):
    order = json.loads(line)
    with (root.parent / "orders").open("a") as orders:
        orders.write(f"{root.name} {order['peer']} {order['size']}\\n")
    if number == plan.get("dies_at"):
        sys.exit("RuntimeError: the deliberation ended Failed")
    tell({"wall_s": plan["wall_s"] * (1 + (number * 7 % 10) / 1000)})
while plan.get("stays"):
    pass
(root / "down").touch()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[..., Path]:
    """`checkout(name, wall_s=0.5, ...)`: a folder that passes for one, with a side that measures nothing."""

    def make(name: str, **plan: Any) -> Path:
        root = tmp_path / name
        (root / "deployments" / "bench" / "worker").mkdir(parents=True)
        (root / "plan.json").write_text(json.dumps({"wall_s": 0.5, **plan}))
        script = root / sides.SIDE
        script.parent.mkdir()
        script.write_text(FAKE)
        return root

    return make


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """`against(old, new, ...)`: the command's exit code, with nothing to settle."""
    monkeypatch.setattr(quiet, "QUIET_S", 0.0)

    def run(old: Path, new: Path, *arguments: str) -> int:
        monkeypatch.setattr(program, "OURS", new)
        given = ("--samples", "8", "--sizes", "1", "--settle", "0", "--json", str(tmp_path / "out.json"))
        return main(["--against", str(old), *given, *arguments])

    return run


def test_two_sides_are_measured_in_turns_and_taken_down(
    checkout: Callable[..., Path],
    against: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:somebody-elses")
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:9")
    old, new = checkout("old"), checkout("new")
    assert against(old, new) == REACHED, capsys.readouterr()
    orders = [line.split() for line in (tmp_path / "orders").read_text().splitlines()]
    for first, second in zip(orders[::2], orders[1::2], strict=True):
        assert first[1:] == second[1:]  # a pair: one figure, on both sides
        assert {first[0], second[0]} == {"old", "new"}
    for figure in {tuple(order[1:]) for order in orders}:
        led = [first[0] for first in orders[::2] if tuple(first[1:]) == figure]
        assert all(one != other for one, other in pairwise(led))  # A B, then B A

    document = json.loads((tmp_path / "out.json").read_text())
    assert document["verdict"] == "no loss"
    assert {(figure["peer"], figure["size"]) for figure in document["figures"]} == {
        *(("ui", 3), ("floor", 1), ("conclave", 1)),
    }
    assert {len(figure["walls"][one]) for figure in document["figures"] for one in ("old", "new")} == {8}
    assert document["together"]["low"] <= 1 <= document["together"]["high"]
    assert "no loss shown: ratio" in capsys.readouterr().out
    for root in (old, new):
        assert (root / "down").is_file()
        found = json.loads((root / "environ.json").read_text())
        assert found == {"PREFECT_API_AUTH_STRING": None, "NATS_URL": None, "PYTHONPATH": str(root), "latency": "0.2"}


def test_a_slower_side_is_a_loss(
    checkout: Callable[..., Path], against: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(checkout("old"), checkout("new", wall_s=0.6)) == MISSED
    told = capsys.readouterr().out
    assert "LOSS SHOWN, all figures together: ratio 1.2" in told
    assert "The control, floor, 1 member, differs" in told


def test_a_stack_that_does_not_come_up_ends_with_six_and_its_own_words(
    checkout: Callable[..., Path], against: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    old = checkout("old")
    assert against(old, checkout("new", not_up=True)) == command.NOT_UP
    assert "new: its process ended" in (told := capsys.readouterr().err)
    assert "no room for new" in told
    assert (old / "down").is_file()


def test_a_sample_that_fails_names_side_and_figure(
    checkout: Callable[..., Path], against: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    new = checkout("new")
    assert against(checkout("old", dies_at=0), new) == MISSED
    assert "old, ui with 3 members: its process ended" in (told := capsys.readouterr().err)
    assert "the deliberation ended Failed" in told
    assert (new / "down").is_file()


async def test_what_was_measured_has_to_be_the_checkout_that_was_named(
    checkout: Callable[..., Path], tmp_path: Path
) -> None:
    old = checkout("old", root="/elsewhere")
    with pytest.raises(BenchError, match="would be /elsewhere"):
        async with side("old", old, 0.2, tmp_path):
            pass


async def test_a_side_that_does_not_end_is_ended(
    checkout: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "DOWN_TIMEOUT_S", 0.5)
    async with side("old", checkout("old", stays=True), 0.2, tmp_path) as found:
        process = psutil.Process(found.pid)
    assert not process.is_running()


async def test_a_side_that_is_silent_is_not_waited_for_without_end(
    checkout: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "UP_TIMEOUT_S", 0.5)
    old = checkout("old")
    (old / sides.SIDE).write_text("import sys; sys.stdin.read()")
    with pytest.raises(NotUpError, match="old: no answer"):
        async with side("old", old, 0.2, tmp_path):
            pass


async def test_an_older_checkout_runs_our_script_on_its_own_code(checkout: Callable[..., Path], tmp_path: Path) -> None:
    old = checkout("old")
    (old / sides.SIDE).unlink()
    for package in ("deployments", "deployments/bench", "deployments/bench/worker"):
        (old / package / "__init__.py").touch()
    (old / "deployments" / "bench" / "worker" / "stack.py").write_text("raise RuntimeError('the older code ran')")
    with pytest.raises(NotUpError, match="the older code ran"):
        async with side("old", old, 0.2, tmp_path):
            pass


def test_a_checkout_runs_on_its_own_environment_where_it_has_one(checkout: Callable[..., Path]) -> None:
    root = checkout("old")
    assert interpreter(root) == sys.executable
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").touch()
    assert interpreter(root) == str(root / ".venv" / "bin" / "python")


def test_a_folder_that_is_no_checkout_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no checkout"):
        checked(tmp_path)
    assert main(["--against", str(tmp_path)]) == 2
    assert "--against" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--samples", "5"), "--samples"),
        (("--quick",), "--against"),
        (("--plot", "out"), "--against"),
        (("--doors", "window"), "--doors"),
        (("--doors", "", "--peers", "floor"), "--peers"),
    ],
)
def test_what_does_not_go_with_it_is_wrong_use(
    arguments: tuple[str, ...], named: str, checkout: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--against", str(checkout("old")), *arguments]) == 2
    assert named in capsys.readouterr().err


def test_doors_belong_to_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--doors", "ui"]) == 2
    assert "--doors" in capsys.readouterr().err


def test_an_estimate_knows_what_it_contains() -> None:
    assert Estimate(1.0, 0.9, 1.1).contains(1)
    assert not Estimate(1.2, 1.1, 1.3).contains(1)
