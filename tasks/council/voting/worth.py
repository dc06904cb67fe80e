"""What ballots are worth: whether they follow the places in which proposals were shown, and agree at all.

Both are read against chance, and hold for ballots that prefer anything to anything; others say nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import factorial, prod
from typing import TYPE_CHECKING

from tasks.council.base import Frozen
from tasks.council.voting.reliability import DIGITS

if TYPE_CHECKING:
    from tasks.council.voting.election import Ballot

LEVEL = 0.05
"""Probability up to which something is not taken for chance."""
MIN_DRAWS, MAX_DRAWS = 19, 199
"""Elections by lot that ballots are compared with; 19 are the fewest that can tell at that level."""
MAX_PLACES = 40_000
"""Places that all the elections by lot draw together, where that leaves enough of them."""
SAME = 1e-9
"""Sums of floats that differ by less are the same."""


class BallotWorth(Frozen):
    """How the `of` ballots that were counted stand against chance; probabilities are 0 to 1.

    `first_shown` put first what they were shown first; `first_shown_p` is how likely at least so many would, if each
    put a random one first. `agreement_p` is how likely drawn lots agree at least as far. `least_p` is the least
    that so few ballots can have there: above 0.05 they are too few to tell.
    """

    first_shown: int
    of: int
    first_shown_p: float
    agreement_p: float
    least_p: float

    @property
    def follows_order(self) -> bool:
        """Whether more put first what was shown first than chance explains."""
        return self.first_shown_p <= LEVEL

    @property
    def agrees(self) -> bool:
        """Whether the ballots agree more than drawn lots."""
        return self.agreement_p <= LEVEL


def worth_of(ballots: Iterable[Ballot], seed: int) -> BallotWorth | None:
    """The worth of those of the ballots that compare anything, None without one.

    `seed` is what lots are drawn with; the order of the ballots changes nothing.
    """
    listed = [ballot for ballot in ballots if ballot.compares]
    if not listed:
        return None
    return BallotWorth(
        first_shown=sum(_puts_first_shown_first(ballot) for ballot in listed),
        of=len(listed),
        first_shown_p=round(first_shown_p(listed), DIGITS),
        agreement_p=round(agreement_p(listed, seed), DIGITS),
        least_p=round(least_p(listed), DIGITS),
    )


# --- the place ------------------------------------------------------------------------------------


def first_shown_p(ballots: Sequence[Ballot]) -> float:
    """Probability that at least so many of the ballots put first what they were shown first.

    Exact: the sum of their chances is a Poisson binomial variable. A ballot's chance is one in those that it was
    shown. Where that proposal is put first by a larger share of those who were shown it in another place, its chance
    is that share: what all like is not liked for its place, though half of them be shown it first.
    """
    elsewhere, liked = Counter[str](), Counter[str]()
    for ballot in ballots:
        elsewhere.update(ballot.shown[1:])
        if not _puts_first_shown_first(ballot):
            liked[ballot.ranking[0]] += 1
    chances = []
    for ballot in ballots:
        first = ballot.shown[0]
        share = liked[first] / elsewhere[first] if elsewhere[first] else 0.0
        chances.append(max(1 / len(ballot.shown), share))
    return at_least(sum(map(_puts_first_shown_first, ballots)), chances)


def at_least(count: int, chances: Sequence[float]) -> float:
    """Probability that at least `count` of independent events of these chances happen (Poisson binomial)."""
    exactly = [1.0]
    for chance in chances:
        shifted = [0.0, *(chance * one for one in exactly)]
        kept = [*((1 - chance) * one for one in exactly), 0.0]
        exactly = [more + same for more, same in zip(shifted, kept, strict=True)]
    return min(sum(exactly[count:]), 1.0) if count else 1.0


def _puts_first_shown_first(ballot: Ballot) -> bool:
    return ballot.ranking[0] == ballot.shown[0]


# --- agreement ------------------------------------------------------------------------------------


def agreement_p(ballots: Sequence[Ballot], seed: int, enough: float = 1.0) -> float:
    """Probability that ballots which draw lots for their order agree at least as far as these; no less than `least_p`.

    A permutation test (Fisher, The Design of Experiments, 1935; counted with the ballots themselves, as Phipson and
    Smyth have it, Statistical Applications in Genetics and Molecular Biology 9, 2010). Agreement is the spread around
    one half of the mean share of the others that ballots rank below a candidate. Once it is known to be above
    `enough`, no more is drawn.
    """
    listed = sorted(ballots, key=lambda ballot: ballot.voter)
    shares = [_shares(ballot) for ballot in listed]
    places = _places(listed)
    seen = Counter(chain.from_iterable(places))
    observed = _spread(places, shares, seen) - SAME
    draws = max(MIN_DRAWS, min(MAX_DRAWS, MAX_PLACES // seen.total()))
    least = least_p(listed)
    lots = random.Random(seed)
    as_far = 1
    for _ in range(draws):
        as_far += _spread(places, [_drawn(one, lots) for one in shares], seen) >= observed
        if as_far > enough * (1 + draws):
            break
    return max(as_far / (1 + draws), least)


def least_p(ballots: Iterable[Ballot], further: Iterable[int] = ()) -> float:
    """The least `agreement_p` of these ballots, and of further ones that rank so many proposals each, 0 to 1.

    Of all the ways to fill them in, one agrees as far; and its reverse too, where every ballot ranks all but one.
    """
    listed = list(ballots)
    tied = [max(1, len(ballot.shown) - len(ballot.ranking)) for ballot in listed]
    ways = prod(map(factorial, [*(len(ballot.shown) for ballot in listed), *further])) // prod(map(factorial, tied))
    as_far = 1 if any(count > 1 for count in tied) else 2
    return min(1.0, as_far / ways)


def _shares(ballot: Ballot) -> list[float]:
    """By place the share of the others that a ballot ranks below, 0 to 1; what it leaves out is tied last."""
    most = len(ballot.shown) - 1
    tied = most - len(ballot.ranking)
    ranked = [(most - place) / most for place in range(len(ballot.ranking))]
    return [*ranked, *[tied / (2 * most)] * (tied + 1)]


def _drawn(shares: list[float], lots: random.Random) -> list[float]:
    """The shares in a random order; by `random()` alone, whose sequence for a seed is the same in every Python."""
    return sorted(shares, key=lambda _: lots.random())


def _places(ballots: Sequence[Ballot]) -> list[list[int]]:
    """By ballot the candidates that it was shown, by their numbers from 0, in the order of its ranking."""
    numbers: dict[str, int] = {}
    placed = []
    for ballot in ballots:
        ranked = set(ballot.ranking)
        order = (*ballot.ranking, *(one for one in ballot.shown if one not in ranked))
        placed.append([numbers.setdefault(one, len(numbers)) for one in order])
    return placed


def _spread(places: Sequence[Sequence[int]], shares: Sequence[Sequence[float]], seen: Mapping[int, int]) -> float:
    """Sum over the candidates of (mean share - 1/2)^2; `seen` says by candidate how many ballots showed it."""
    totals = [0.0] * len(seen)
    for numbers, gained in zip(places, shares, strict=True):
        for number, share in zip(numbers, gained, strict=True):
            totals[number] += share
    return sum((total / seen[number] - 0.5) ** 2 for number, total in enumerate(totals))
