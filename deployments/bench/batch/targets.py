"""What a batch is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from deployments.bench.batch.figures import BESIDE, OURSELVES, Found, Measured, NotMeasured
from deployments.bench.batch.options import Case
from deployments.bench.batch.usage import OURS
from deployments.bench.targets import Judged, Verdict

SHARE, SHARE_CHANGING, SHARE_RANK, SHARE_LIVE = 0.97, 0.9, 0.92, 0.85
"""Of the rate of the plain client on the same calls: constant slots, changing ones, ballots, a server of one's own."""
TYPED = {1000: 0.9, 10_000: 0.97}
"""The same from the typed command to OUTPUT, by rows."""
CPU_MS = 1.5
AGENDA_OVER_LANGGRAPH = 0.8
GROWTH = 1.1
NATS_KIB = 1.0
STATUS_MS = 10.0
LARGE = 10_000
"""Rows at which memory and looks at items are judged."""


@dataclass(frozen=True)
class Target:
    """A figure with its bound, of these cases; without a bound it is shown. `floor`: its floor has to count."""

    name: str
    cases: tuple[Case, ...]
    figure: Callable[[Found], float]
    bound: float | None = None
    at_least: bool = False
    floor: bool = False


def targets(cases: Sequence[Case]) -> list[Target]:
    """The targets of a run with these cases."""
    found: list[Target] = []
    for case in cases:
        found += _OF[case.kind](case)
    short = sorted((case for case in cases if case.kind == "short"), key=attrgetter("rows"))
    return [*found, *(_slopes(short[0], short[-1]) if len(short) > 1 else [])]


def judge(cases: Sequence[Case], measured: Sequence[Measured]) -> list[Judged]:
    """Every target with its verdict."""
    found = Found(measured)
    return [_judged(target, found) for target in targets(cases)]


def _batch(case: Case) -> list[Target]:
    made = [
        Target(f"floor: share of its bound, {case.name}", (case,), lambda found: found.of_bound(case, "floor")),
        Target(f"of the floor's rate, {case.name}", (case,), lambda found: found.share(case), SHARE, True, True),
        Target(
            f"the same, typed command to OUTPUT, {case.name}",
            (case,),
            lambda found: found.share_typed(case),
            TYPED.get(case.rows),
            True,
            True,
        ),
    ]
    return [*made, *_large(case)] if case.rows >= LARGE else made


def _large(case: Case) -> list[Target]:
    def growth(found: Found) -> float:
        return max(value for name, value in found.growth(case).items() if name != "nats")

    return [
        Target(f"memory, the part that grew most but NATS, end over 1000, {case.name}", (case,), growth, GROWTH),
        Target(f"NATS: KiB a stored subject, {case.name}", (case,), lambda found: found.nats_kib(case), NATS_KIB),
        Target(
            f"state of an item meanwhile, 99 of 100 (ms), {case.name}",
            (case,),
            lambda found: found.status_ms(case),
            STATUS_MS,
        ),
    ]


def _share_of(bound: float) -> Callable[[Case], list[Target]]:
    def made(case: Case) -> list[Target]:
        return [
            Target(f"of the floor's rate, {case.name}", (case,), lambda found: found.share(case), bound, True, True)
        ]

    return made


def _agenda(case: Case) -> list[Target]:
    name = f"one agenda over LangGraph with its checkpointer, {case.name}"
    return [Target(name, (case,), lambda found: found.over(case, "langgraph"), AGENDA_OVER_LANGGRAPH)]


def _short(case: Case) -> list[Target]:
    return []


def _slopes(few: Case, many: Case) -> list[Target]:
    """Processor time of a call more."""

    def slope(peer: str, groups: Sequence[str] | None = None) -> Callable[[Found], float]:
        return lambda found: found.slope_ms(few, many, peer, groups)

    span = f"{few.rows} to {many.rows} rows (ms)"
    made = [Target(f"CPU a call, driver, agent hosts, gateway, {span}", (few, many), slope(OURSELVES, OURS), CPU_MS)]
    made.append(Target(f"CPU a call, with the command, {span}", (few, many), slope(OURSELVES)))
    for name in BESIDE:
        made.append(Target(f"CPU a call, {name} beside, {span}", (few, many), slope(OURSELVES, [name])))
    for peer in ("floor", "langgraph"):
        if peer in many.peers:
            made.append(Target(f"CPU a call, {peer}, {span}", (few, many), slope(peer)))
    return made


_OF: dict[str, Callable[[Case], list[Target]]] = {
    "batch": _batch,
    "changing": _share_of(SHARE_CHANGING),
    "rank": _share_of(SHARE_RANK),
    "live": _share_of(SHARE_LIVE),
    "short": _short,
    "agenda": _agenda,
}


def _judged(target: Target, found: Found) -> Judged:
    sign = ">=" if target.at_least else "<="
    bound = None if target.bound is None else f"{sign} {target.bound:g}"
    try:
        figure = target.figure(found)
        return Judged(target.name, round(figure, 4), bound, _verdict(target, figure, found))
    except NotMeasured:
        return Judged(target.name, None, bound, _without_figure(target, found))


def _without_figure(target: Target, found: Found) -> Verdict:
    """A target is missed where our own side failed; else it is a hole."""
    if not all(OURSELVES in case.peers for case in target.cases):
        return "not asked for"
    failed = target.bound is not None and any((case, OURSELVES) in found.failed for case in target.cases)
    return "missed" if failed else "not measured"


def _verdict(target: Target, figure: float, found: Found) -> Verdict:
    if target.floor and not all(found.floor_counts(case) for case in target.cases):
        return "floor weak"
    if target.bound is None:
        return "shown"
    reached = figure >= target.bound if target.at_least else figure <= target.bound
    return "reached" if reached else "missed"
