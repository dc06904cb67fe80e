"""What rules share: scores from who leads whom, and a winner from the bounds of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from tasks.council.voting.profile import Profile

UNJUDGED = Fraction(1, 2)
"""The score of a candidate that nobody could compare: neither good nor bad."""


def shares_led(ids: Sequence[str], lead: Callable[[int, int], int]) -> dict[str, Fraction]:
    """By candidate the share of the others that it leads, equal ones counting half."""
    if len(ids) == 1:
        return {ids[0]: UNJUDGED}
    everyone = range(len(ids))
    return {
        one: Fraction(sum(_points(lead(i, j)) for j in everyone if j != i), 2 * (len(ids) - 1))
        for i, one in enumerate(ids)
    }


def _points(lead: int) -> int:
    """Two for a win, one for a draw."""
    return (lead > 0) + (lead >= 0)


def open_ballots(profile: Profile, waiting: frozenset[str], i: int, j: int) -> int:
    """How many of the voters who are waited for may judge the pair; nobody judges its own proposal."""
    return len(waiting - {profile.ids[i], profile.ids[j]})


def winner_within(
    ids: Sequence[str], scores: Mapping[str, Fraction], worst: Mapping[str, Fraction], best: Mapping[str, Fraction]
) -> str | None:
    """The leader by the scores, if at its worst it stays before every other candidate at its best.

    The order of the checks breaks ties, so it is not for a rule with tie breaks of its own.
    """
    leader = max(ids, key=lambda one: scores[one])
    before = ids[: ids.index(leader)]
    holds = all(
        worst[leader] > best[rival] or (worst[leader] == best[rival] and rival not in before)
        for rival in ids
        if rival != leader
    )
    return leader if holds else None
