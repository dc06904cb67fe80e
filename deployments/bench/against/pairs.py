"""What pairs of measurements say: the Hodges-Lehmann estimate with Wilcoxon's signed-rank interval.

Each pair is one figure measured on both sides, one right after the other, so that a slow minute hits both. The
estimate is the median of the Walsh averages (the means of every two differences, each with itself too), the interval
are those order statistics of theirs that the exact distribution of the signed-rank statistic gives: no shape is
assumed but that differences are symmetric about their middle, and one disturbed pair of ten moves little. After
Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition (2014), sections 3.2 and 3.3. A ratio is
the same on logarithms.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

CONFIDENCE = 0.95
LEAST_PAIRS = 6
"""Fewer have no interval of 95 %: even if all point one way, chance does that once in sixteen."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether the interval has this value."""
        return self.low <= value <= self.high


def ratio(old: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """New over old, pair by pair; all are above 0."""
    found = shift([math.log(b / a) for a, b in zip(old, new, strict=True)], confidence)
    return Estimate(*(math.exp(each) for each in (found.value, found.low, found.high)))


def difference(old: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """New less old, pair by pair."""
    return shift([b - a for a, b in zip(old, new, strict=True)], confidence)


def shift(differences: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The middle of these differences; an interval without bounds where they are too few for that confidence."""
    count = len(differences)
    walsh = sorted((first + second) / 2 for first, second in combinations_with_replacement(differences, 2))
    value = statistics.median(walsh)
    beyond = _beyond(count, 1 - confidence)
    if beyond == 0:
        return Estimate(value, -math.inf, math.inf)
    return Estimate(value, walsh[beyond - 1], walsh[-beyond])


def _beyond(count: int, error: float) -> int:
    """The rank, from each end, of the Walsh averages that bound the interval; 0 where there is none.

    The largest k so that the signed-rank statistic of `count` pairs is below k by chance in at most half the error.
    """
    ways = [1]  # how many of the 2^count choices of ranks have the sum 0, 1, 2, ...
    for rank in range(1, count + 1):
        longer = ways + [0] * rank
        for at, many in enumerate(ways):
            longer[at + rank] += many
        ways = longer
    below, allowed = 0, error / 2 * 2**count
    for k, many in enumerate(ways):
        below += many
        if below > allowed:
            return k
    return 0
