"""How far a tally can be trusted: whether the voters agree, and whether places in the list decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.council.base import Frozen
from tasks.council.voting.election import Ballot
from tasks.council.voting.pairs import Pairs

DIGITS = 6
"""Decimals of a figure in a tally."""


class PositionBias(Frozen):
    """How far the place in the list, rather than the proposal, decided the comparisons of two proposals.

    A voter sees one order only, so a flip is seen between voters: of two that were shown a pair in opposite
    orders, both prefer the one in the same place, and so disagree about the proposals. `flip_rate` is the
    share of such pairs of voters, averaged over the `pairs` of proposals judged in both orders. Honest
    disagreement is in it too; `baseline` is the same share among voters who were shown the same order, so
    what `flip_rate` has above it is the position's. `first_share` is the share of all `comparisons` won by
    the one shown first: one half is no bias, given that labels are drawn and do not follow quality.

    In a council of 3 each pair has one judge, so only `first_share` can be told, over many items.
    The usual measure swaps the order for the same judge (Shi et al., arXiv 2406.07791), at twice the cost.
    """

    flip_rate: float | None
    baseline: float | None
    first_share: float | None
    pairs: int
    comparisons: int


def agreement_of(pairs: Pairs, ballots: Sequence[Ballot]) -> tuple[float | None, float | None]:
    """W and what it is by chance.

    With m(i, j) the mean preference of i over j, -1 to 1, and c(i) its sum over j: W = 3 * sum of c(i)^2 /
    (n (n^2 - 1)), Durbin's and, where all rank all, Kendall's coefficient. By chance it is (k + 1) / (l (n + 1))
    for ballots of k and l judges a pair, which is exact where these are the same for all.
    """
    count = len(pairs.wins)
    compared = [pairs.compared(i, j) for i, j in pairs.each()]
    if not compared or not all(compared):
        return None, None
    leads = [0.0] * count
    for (i, j), judges in zip(pairs.each(), compared, strict=True):
        mean = pairs.lead(i, j) / judges
        leads[i] += mean
        leads[j] -= mean
    agreement = 3 * sum(lead * lead for lead in leads) / (count * (count * count - 1))
    size = sum(len(ballot.shown) for ballot in ballots) / len(ballots)
    chance = (size + 1) / (sum(compared) / len(compared) * (count + 1))
    return round(agreement, DIGITS), round(min(chance, 1.0), DIGITS)


def position_bias(pairs: Pairs) -> PositionBias:
    """What the comparisons say of the place in the list."""
    flips: list[float] = []
    same: list[float] = []
    for i, j in pairs.each():
        ahead, behind = (_shown_first(pairs, i, j), _shown_first(pairs, j, i))
        if ahead.total and behind.total:
            flips.append(ahead.share * behind.share + (1 - ahead.share) * (1 - behind.share))
        same += [group.disagreement for group in (ahead, behind) if group.total > 1]
    comparisons = sum(map(sum, pairs.wins))
    return PositionBias(
        flip_rate=_mean(flips),
        baseline=_mean(same),
        first_share=round(sum(map(sum, pairs.first)) / comparisons, DIGITS) if comparisons else None,
        pairs=len(flips),
        comparisons=comparisons,
    )


class _Judges(NamedTuple):
    """Voters who were shown a pair in the same order: how many preferred the one shown first, and of how many."""

    for_first: int
    total: int

    @property
    def share(self) -> float:
        return self.for_first / self.total

    @property
    def disagreement(self) -> float:
        """Probability that two of them disagree."""
        return 2 * self.for_first * (self.total - self.for_first) / (self.total * (self.total - 1))


def _shown_first(pairs: Pairs, i: int, j: int) -> _Judges:
    """Those who were shown i before j."""
    for_first = pairs.first[i][j]
    return _Judges(for_first, for_first + pairs.wins[j][i] - pairs.first[j][i])


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), DIGITS) if values else None
