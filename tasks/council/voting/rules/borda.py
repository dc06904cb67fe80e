"""Borda's count, for voters who do not rank themselves and may leave candidates out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from itertools import chain

from tasks.council.voting.profile import Profile
from tasks.council.voting.rules.rule import TallyRule
from tasks.council.voting.rules.scores import UNJUDGED, winner_within


def _scores(profile: Profile) -> dict[str, Fraction]:
    """Mean over the ballots that were shown c of (ranked below c + half of those tied with c) / (shown - 1).

    Borda's count with averaged truncation, divided by the ballot's size and by the number of ballots that
    could rank the candidate, as nobody ranks itself. Nobody's candidate gets one half. With every ballot there
    and full, this is the mean share of voters won in a candidate's pairs.
    """
    points: dict[str, Counter[int]] = {one: Counter() for one in profile.ids}
    seen: Counter[str] = Counter()
    for ballot in profile.ballots:
        most = len(ballot.shown) - 1
        tied = len(ballot.shown) - len(ballot.ranking) - 1
        ranked = set(ballot.ranking)
        for rank, one in enumerate(ballot.ranking):
            points[one][most] += 2 * (most - rank)
        for one in ballot.shown:
            seen[one] += 1
            if one not in ranked:
                points[one][most] += tied
    return {candidate: _mean_share(points[candidate], seen[candidate]) for candidate in profile.ids}


def _mean_share(points: Mapping[int, int], ballots: int) -> Fraction:
    """Of the points on these ballots, doubled and by the most that a ballot gives; one half without a ballot."""
    if ballots == 0:
        return UNJUDGED
    return sum((Fraction(doubled, 2 * most) for most, doubled in points.items()), Fraction()) / ballots


def _necessary_winner(profile: Profile, waiting: frozenset[str]) -> str | None:
    """Exact: the worst is that a rival comes first and the leader last on every ballot that can say so."""
    if len(waiting) > len(profile.ballots) + 1:  # a rival may yet win more than a leader that won everything until now
        return None
    scores = _scores(profile)
    seen = Counter(chain.from_iterable(ballot.shown for ballot in profile.ballots))

    def with_all(points: int) -> dict[str, Fraction]:
        """Each candidate's score if every open ballot that can rank it gives it these points."""
        return {
            candidate: _mean_with(points, len(waiting - {candidate}), scores[candidate], seen[candidate])
            for candidate in profile.ids
        }

    return winner_within(profile.ids, scores, worst=with_all(0), best=with_all(1))


def _mean_with(points: int, more: int, score: Fraction, seen: int) -> Fraction:
    """The mean `score` of `seen` ballots, once as many `more` give these points each; one half without a ballot."""
    if seen + more == 0:
        return UNJUDGED
    return (score * seen + points * more) / (seen + more)


BORDA = TallyRule(
    name="borda",
    words="the share of the others that ballots rank below it, on average",
    scores=_scores,
    necessary_winner=_necessary_winner,
)
