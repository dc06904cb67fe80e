"""What yes-or-no scores come to: shares and paired differences with 95 % intervals, and exact p-values.

Pure functions of counts. A question is the unit: an interval says what other questions like these could have given.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist

from tasks.council.base import Frozen

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Share(Frozen):
    """`count` of `of`, as a share from 0 to 1 with its 95 % interval from `low` to `high`."""

    count: int
    of: int
    value: float
    low: float
    high: float


class PairedDifference(Frozen):
    """The difference of two shares over the same questions, -1 to 1, with its 95 % interval from `low` to `high`.

    `gained` were right here and wrong there, `lost` the other way round, `of` is all questions. `p_value` is how
    likely a split at least as uneven as gained to lost would be if both were equally good.
    """

    gained: int
    lost: int
    of: int
    value: float
    low: float
    high: float
    p_value: float


def share(count: int, of: int) -> Share | None:
    """A share with Wilson's score interval; None of nothing.

    Wilson, Journal of the American Statistical Association 22 (1927); recommended over the textbook's interval at
    every size by Brown, Cai and DasGupta, Statistical Science 16 (2001), since it holds its level for few questions
    and for shares near 0 and 1.
    """
    if of == 0:
        return None
    value = count / of
    centre = (value + Z * Z / (2 * of)) / (1 + Z * Z / of)
    reach = Z * math.sqrt(value * (1 - value) / of + Z * Z / (4 * of * of)) / (1 + Z * Z / of)
    low = 0.0 if count == 0 else centre - reach
    high = 1.0 if count == of else centre + reach
    return Share(count=count, of=of, value=value, low=low, high=high)


def paired_difference(gained: int, lost: int, of: int) -> PairedDifference | None:
    """A difference over the same questions; None of nothing.

    The interval is Wald's with one question added to each kind of disagreement (Bonett and Price, Journal of
    Educational and Behavioral Statistics 37, 2012); it is not centred on the difference. The p-value is McNemar's
    exact one: the two-sided sign test on the questions that only one of both got right. Fagerland, Lydersen and
    Laake, Statistics in Medicine 33 (2014), compare both with their rivals.
    """
    if of == 0:
        return None
    more, less = (gained + 1) / (of + 2), (lost + 1) / (of + 2)
    reach = Z * math.sqrt((more + less - (more - less) ** 2) / (of + 2))
    return PairedDifference(
        gained=gained,
        lost=lost,
        of=of,
        value=(gained - lost) / of,
        low=max(-1.0, more - less - reach),
        high=min(1.0, more - less + reach),
        p_value=sign_test(gained, lost),
    )


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact p-value of so uneven a split under a fair coin; 1 where nothing differs."""
    tosses = gained + lost
    ways = tail = 1
    for number in range(1, min(gained, lost) + 1):
        ways = ways * (tosses - number + 1) // number
        tail += ways
    return min(1.0, 2 * tail / 2**tosses)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, in their order, so that one of chance alone passes a level no more often.

    Holm, Scandinavian Journal of Statistics 6 (1979): the least times their number, the next times one less, and so on;
    none below the one before it.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def percentile_95(values: Sequence[float]) -> float | None:
    """The 95th percentile, interpolated between the two nearest values; None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
