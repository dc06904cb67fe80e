"""What the benchmark is judged by, and the further figures that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from deployments.bench.figures import FLOOR_SHARE, FloorCheck, Row
from deployments.bench.options import SIZES

Verdict = Literal["reached", "missed", "floor weak", "not measured", "not asked for", "shown"]
REACHED, MISSED, NOT_JUDGED = 0, 1, 3
"""Exit codes: every target reached; at least one missed; none missed, but not all could be judged."""


class Medians:
    """The medians of a run by peer, size and figure, in seconds. Raises KeyError for what was not measured."""

    def __init__(self, rows: Iterable[Row], floors: Mapping[int, FloorCheck]) -> None:
        self._rows = {(row.peer, row.size): row.figures for row in rows}
        self.floors = floors

    def ours(self, size: int, figure: str = "wall_s") -> float:
        """Conclave's median, with this many members."""
        return self.of("conclave", size, figure)

    def of(self, peer: str, size: int, figure: str = "wall_s") -> float:
        """A peer's median, with this many members."""
        return self._rows[peer, size][figure].median

    def over(self, peer: str, size: int, figure: str = "wall_s") -> float:
        """Conclave's figure less the peer's."""
        return self.ours(size, figure) - self.of(peer, size, figure)

    def beyond(self, peer: str, answers: int) -> float:
        """A peer's wall with 3 members, less so many floors, one after the other."""
        return self.of(peer, 3) - answers * self.of("floor", 3)


@dataclass(frozen=True)
class Target:
    """One figure with its bound; without a bound it is shown and not judged. `sizes` need floors that count."""

    name: str
    sizes: tuple[int, ...]
    figure: Callable[[Medians], float]
    bound: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Judged:
    """A target, what was measured, and the verdict; no figure where something it needs was left out.

    "not measured" is a hole in the verdict, "not asked for" is what a run by default does not measure.
    """

    target: str
    figure: float | None
    bound: str | None
    verdict: Verdict


TARGETS = (
    Target("floor: share of latency / wall, 3 members", (3,), lambda found: found.floors[3].share, FLOOR_SHARE, True),
    Target("3 members, wall over the floor (s)", (3,), lambda found: found.over("floor", 3), 0.08),
    Target("3 members, spread of first requests (s)", (3,), lambda found: found.ours(3, "spread_s"), 0.05),
    Target("3 members, last answer sent to decision (s)", (3,), lambda found: found.ours(3, "tail_s"), 0.1),
    Target("5 members over 1", (1, 5), lambda found: found.ours(5) / found.ours(1), 1.1),
    Target("64 members, wall over its floor (s)", (64,), lambda found: found.over("floor", 64), 0.3),
    Target("3 members, rank, wall over 2 floors (s)", (3,), lambda found: found.beyond("rank", 2), 0.35),
    Target("3 members, synthesize, wall over 3 floors (s)", (3,), lambda found: found.beyond("synthesize", 3), 0.35),
    Target("15 members, wall over the floor (s)", (15,), lambda found: found.over("floor", 15)),
    Target("3 members over LangGraph, from the call (s)", (3,), lambda found: found.over("langgraph", 3, "call_s")),
    Target("15 members over LangGraph, from the call (s)", (15,), lambda found: found.over("langgraph", 15, "call_s")),
    Target("64 members over LangGraph, from the call (s)", (64,), lambda found: found.over("langgraph", 64, "call_s")),
    Target("stock runner over Conclave, 3 members (times)", (3,), lambda found: found.of("stock", 3) / found.ours(3)),
)


def judge(rows: Iterable[Row], floors: Mapping[int, FloorCheck]) -> list[Judged]:
    """Every target with its verdict."""
    found = Medians(rows, floors)
    return [_judged(target, found) for target in TARGETS]


def exit_code(judged: Iterable[Judged]) -> int:
    """What the verdicts come to, over the targets that have a bound and belong to the run."""
    verdicts = {each.verdict for each in judged if each.bound is not None} - {"not asked for"}
    if "missed" in verdicts:
        return MISSED
    return REACHED if verdicts == {"reached"} else NOT_JUDGED


def _judged(target: Target, found: Medians) -> Judged:
    bound = _bound(target)
    try:
        figure = target.figure(found)
    except KeyError:
        return Judged(target.name, None, bound, "not measured" if set(target.sizes) <= set(SIZES) else "not asked for")
    return Judged(target.name, round(figure, 4), bound, _verdict(target, figure, found))


def _bound(target: Target) -> str | None:
    if target.bound is None:
        return None
    return f"{'>=' if target.at_least else '<='} {target.bound:g}"


def _verdict(target: Target, figure: float, found: Medians) -> Verdict:
    if not all(found.floors[size].counts for size in target.sizes):
        return "floor weak"
    if target.bound is None:
        return "shown"
    reached = figure >= target.bound if target.at_least else figure <= target.bound
    return "reached" if reached else "missed"
