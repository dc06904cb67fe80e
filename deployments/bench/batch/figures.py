"""What the measurements come to: shares, processor time a call, memory. Pure functions; medians over the samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from deployments.bench.batch.bounds import bound_s
from deployments.bench.batch.options import Case
from deployments.bench.batch.sides import Outcome
from deployments.bench.figures import FLOOR_SHARE
from tasks.council.exceptions import ConclaveError

OURSELVES = "conclave"
BESIDE = ("nats", "prefect", "simulator", "Ray's daemons")
"""Groups that are shown beside what a peer itself uses."""
_KIB = 1024


class Measured(NamedTuple):
    """One peer in one case: its outcome, or why there is none."""

    case: Case
    peer: str
    outcome: Outcome | None
    reason: str = ""


class NotMeasured(ConclaveError):
    """A figure that something is missing for."""


@dataclass(frozen=True)
class Row:
    """One line of the table. Times are seconds, memory MiB; `share` is that of the floor's rate in the same case."""

    case: str
    rows: int
    peer: str
    samples: int
    seconds: float
    calls_a_second: float
    share: float | None
    of_bound: float | None
    cpu_ms: float
    beside_ms: dict[str, float]
    memory_mib: float
    weak_floor: bool


class Found:
    """All that was measured, by case and peer. Figures raise NotMeasured for what was not."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._outcomes: dict[tuple[Case, str], list[Outcome]] = {}
        self.failed: dict[tuple[Case, str], str] = {}
        for one in measured:
            if one.outcome is None:
                self.failed[one.case, one.peer] = one.reason
            else:
                self._outcomes.setdefault((one.case, one.peer), []).append(one.outcome)

    def of(self, case: Case, peer: str) -> list[Outcome]:
        """A peer's outcomes, in the order of the samples."""
        try:
            return self._outcomes[case, peer]
        except KeyError:
            raise NotMeasured(f"{peer}: {case.name}") from None

    def seconds(self, case: Case, peer: str) -> float:
        """A peer's median."""
        return statistics.median(each.seconds for each in self.of(case, peer))

    def share(self, case: Case, peer: str = OURSELVES) -> float:
        """The peer's rate over that of the floor, sample by sample."""
        return self._over_floor(case, [each.seconds for each in self.of(case, peer)])

    def share_typed(self, case: Case) -> float:
        """The same of ours from the typed command to OUTPUT."""
        return self._over_floor(case, [each.more["typed_s"] for each in self.of(case, OURSELVES)])

    def over(self, case: Case, peer: str) -> float:
        """Our time over a peer's."""
        return self.seconds(case, OURSELVES) / self.seconds(case, peer)

    def of_bound(self, case: Case, peer: str) -> float:
        """The shortest time that is possible over the peer's own."""
        if case.latency_s is None:
            raise NotMeasured("whose answers take nobody knows how long")
        return bound_s(case.calls, case.slots, case.latency_s, case.narrow) / self.seconds(case, peer)

    def floor_counts(self, case: Case) -> bool:
        """Whether the plain client proved to be a floor; one of a server of unknown pace is taken as it is."""
        return case.latency_s is None or self.of_bound(case, "floor") >= FLOOR_SHARE

    def cpu_ms(self, case: Case, peer: str, groups: Sequence[str] | None = None) -> float:
        """Processor time a call in milliseconds, of these groups, or of all that are not shown beside."""
        return 1000 * statistics.median(_cpu_s(each, groups) / each.calls for each in self.of(case, peer))

    def slope_ms(self, few: Case, many: Case, peer: str, groups: Sequence[str] | None = None) -> float:
        """Processor time of one call more, in milliseconds."""
        sums = [statistics.median(_cpu_s(each, groups) for each in self.of(case, peer)) for case in (few, many)]
        return 1000 * (sums[1] - sums[0]) / (many.calls - few.calls)

    def growth(self, case: Case) -> dict[str, float]:
        """Memory at the end over that at the mark, by group."""
        (*_, last) = self.of(case, OURSELVES)
        first = _mark(last)["memory_mib"]
        return {name: round(value / first[name], 3) for name, value in last.memory_mib.items() if first.get(name)}

    def nats_kib(self, case: Case) -> float:
        """KiB of NATS' memory for each subject that it stores more at the end than at the mark."""
        (*_, last) = self.of(case, OURSELVES)
        mark = _mark(last)
        more = last.more["subjects"] - mark["subjects"]
        if more <= 0:
            raise NotMeasured("NATS stores no more than at the mark")
        return (last.memory_mib["nats"] - mark["memory_mib"]["nats"]) * _KIB / more

    def status_ms(self, case: Case) -> float:
        """99 of 100 looks at an item, in milliseconds."""
        (*_, last) = self.of(case, OURSELVES)
        if not last.more["status_ms"]:
            raise NotMeasured("no item was looked at")
        return float(last.more["status_ms"]["p99"])

    def rows(self) -> list[Row]:
        """The table, by case."""
        return [self._row(case, peer) for case, peer in self._outcomes]

    def _over_floor(self, case: Case, seconds: Sequence[float]) -> float:
        floors = [each.seconds for each in self.of(case, "floor")]
        return statistics.median(floor / own for floor, own in zip(floors, seconds, strict=False))

    def _row(self, case: Case, peer: str) -> Row:
        outcomes = self.of(case, peer)
        beside = {name: self.cpu_ms(case, peer, [name]) for name in BESIDE if name in outcomes[0].cpu_s}
        memory = (sum(value for name, value in each.memory_mib.items() if name not in BESIDE) for each in outcomes)
        return Row(
            case=case.name,
            rows=case.rows,
            peer=peer,
            samples=len(outcomes),
            seconds=round(self.seconds(case, peer), 3),
            calls_a_second=round(case.calls / self.seconds(case, peer), 1),
            share=_or_none(lambda: self.share(case, peer)),
            of_bound=_or_none(lambda: self.of_bound(case, peer)),
            cpu_ms=round(self.cpu_ms(case, peer), 3),
            beside_ms={name: round(value, 3) for name, value in beside.items()},
            memory_mib=round(statistics.median(memory), 1),
            weak_floor=not _or_none(lambda: self.floor_counts(case)),
        )


def _cpu_s(outcome: Outcome, groups: Sequence[str] | None) -> float:
    wanted = groups or outcome.cpu_s.keys() - set(BESIDE)
    return sum(outcome.cpu_s.get(name, 0.0) for name in wanted)


def _mark(outcome: Outcome) -> dict[str, Any]:
    mark = outcome.more.get("mark")
    if not mark:
        raise NotMeasured("there were too few rows for a mark")
    return dict(mark)


def _or_none(figure: Any) -> Any:
    try:
        found = figure()
    except NotMeasured:
        return None
    return round(found, 4) if isinstance(found, float) else found
