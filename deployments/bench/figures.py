"""What samples come to: medians with their spread, the floor's own check, and differences with an interval.

Pure functions. Medians are compared, since one disturbed sample of seven must not decide.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product

from deployments.bench.options import PEERS
from deployments.bench.samples import Sample

FLOOR_SHARE = 0.98
"""Share of latency / wall from which on the plain client counts as a floor."""
RESAMPLES = 2000
_CENTRAL = 0.95


@dataclass(frozen=True)
class Measured:
    """One sample with its circumstances: the round (from 0), how long the stack took to settle, others' cores."""

    peer: str
    size: int
    round: int
    sample: Sample
    settled_s: float
    quiet: bool
    others_cores: float


@dataclass(frozen=True)
class Summary:
    """Values in one line; `iqr` is the distance between the quartiles."""

    median: float
    min: float
    max: float
    iqr: float


@dataclass(frozen=True)
class Difference:
    """A difference of two medians, in seconds, with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class FloorCheck:
    """Whether the floor of a size counts.

    `share` is latency / wall of the plain client; `server_share` is the most that any client could have
    reached, since the server itself took the rest; `latency_needed_s` is the answer time at which the same
    overhead would leave FLOOR_SHARE.
    """

    size: int
    share: float
    server_share: float
    counts: bool
    latency_needed_s: float


@dataclass(frozen=True)
class Row:
    """One peer at one size; `weak_floor` says that its floor does not count."""

    peer: str
    size: int
    samples: int
    weak_floor: bool
    figures: Mapping[str, Summary]
    over_floor: Difference


def summary(values: Sequence[float]) -> Summary:
    """Median, range and distance between the quartiles of at least one value."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Summary(*(round(each, 4) for each in (statistics.median(values), min(values), max(values), high - low)))


def difference(ours: Sequence[float], floor: Sequence[float]) -> Difference:
    """Median of `ours` less median of `floor`, two series of the same rounds; rounds are drawn anew together."""
    drawn = [_between([ours[at] for at in picked], [floor[at] for at in picked]) for picked in _redrawn(len(ours))]
    drawn.sort()
    beyond = round(RESAMPLES * (1 - _CENTRAL) / 2)
    return Difference(*(round(each, 4) for each in (_between(ours, floor), drawn[beyond], drawn[-1 - beyond])))


@cache
def _redrawn(rounds: int) -> list[list[int]]:
    """The rounds of each resample: the same ones for every peer and size."""
    chance = random.Random(0)
    return [chance.choices(range(rounds), k=rounds) for _ in range(RESAMPLES)]


def check_floor(size: int, samples: Sequence[Sample], latency_s: float) -> FloorCheck:
    """Judge the plain client's own samples."""
    wall_s = statistics.median(sample.wall_s for sample in samples)
    server_s = statistics.median(sample.server_s for sample in samples)
    share = latency_s / wall_s
    return FloorCheck(
        size=size,
        share=round(share, 4),
        server_share=round(latency_s / server_s, 4),
        counts=share >= FLOOR_SHARE,
        latency_needed_s=math.ceil(10 * (wall_s - latency_s) * FLOOR_SHARE / (1 - FLOOR_SHARE)) / 10,
    )


def check_floors(measured: Iterable[Measured], latency_s: float) -> dict[int, FloorCheck]:
    """The check of every size's floor."""
    floors: dict[int, list[Sample]] = {}
    for each in measured:
        if each.peer == "floor":
            floors.setdefault(each.size, []).append(each.sample)
    return {size: check_floor(size, samples, latency_s) for size, samples in sorted(floors.items())}


def rows(measured: Sequence[Measured], floors: Mapping[int, FloorCheck]) -> list[Row]:
    """One row for each peer and size, by size."""
    series: dict[tuple[str, int], list[Measured]] = {}
    for each in sorted(measured, key=lambda each: each.round):
        series.setdefault((each.peer, each.size), []).append(each)
    return [
        Row(
            peer=peer,
            size=size,
            samples=len(series[peer, size]),
            weak_floor=not floors[size].counts,
            figures=_figures(series[peer, size]),
            over_floor=difference(_walls(series[peer, size]), _walls(series["floor", size])),
        )
        for size, peer in product(floors, PEERS)
        if (peer, size) in series
    ]


def _figures(series: Sequence[Measured]) -> dict[str, Summary]:
    samples = [asdict(each.sample) for each in series]
    return {name: summary([sample[name] for sample in samples]) for name in samples[0]}


def _walls(series: Sequence[Measured]) -> list[float]:
    return [each.sample.wall_s for each in series]


def _between(ours: Sequence[float], floor: Sequence[float]) -> float:
    return statistics.median(ours) - statistics.median(floor)
