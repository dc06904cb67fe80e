"""From ballots to a decision: the order of the candidates by a rule, and when it cannot change any more.

Pure functions of plain ids. The candidates come in the order that the checks gave them. That order breaks every tie,
so that without a single usable ballot it is the result. It rests on the checks' score, then on the SHA-256 of
`rank_proposals`, never on who came first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain, groupby, permutations
from typing import Literal

from tasks.council.base import Frozen, Name
from tasks.council.voting.election import Ballot, Candidate, check
from tasks.council.voting.pairs import Pairs, condorcet, pairs_of
from tasks.council.voting.reliability import DIGITS, PositionBias, agreement_of, position_bias

Rule = Literal["borda", "copeland", "schulze"]
HALF = Fraction(1, 2)


class Tie(Frozen):
    """Candidates of equal score, in the order they were put in, and by what."""

    candidates: tuple[Name, ...]
    broken_by: Literal["checks", "hash"]


class Tally(Frozen):
    """The outcome: `order` is best first; scores are 0 to 1, comparable within one rule only.

    `margin` is the lead of the first over the second in score, None with one proposal. `condorcet` beats every
    other in pairs. `ranks` says by voter where it ranked whom, 1 is best. `ballots` were counted, `abstained`
    compared nothing (in a council of two everyone is shown one proposal), `discarded` were invalid.

    `agreement` is Kendall's W as Durbin defines it for incomplete rankings (British Journal of Psychology,
    Statistical Section 4, 1951), since nobody ranks itself: 1 where all comparisons fit one order, 0 where
    they cancel out. Pairs weigh the same, however many judged them. It is None where a pair was judged by
    nobody, and read against `agreement_by_chance`, what voters who draw lots reach on average. Of 3 members
    each pair has one judge: 1 then says that the three ballots form no cycle, which lots do 3 times in 4.
    """

    rule: Rule
    order: tuple[Name, ...]
    scores: dict[Name, float]
    winner: Name
    condorcet: Name | None
    margin: float | None
    agreement: float | None
    agreement_by_chance: float | None
    position: PositionBias
    ties: tuple[Tie, ...]
    ranks: dict[Name, dict[Name, int]]
    ballots: int
    abstained: int
    discarded: int


def tally(
    candidates: Sequence[Candidate], ballots: Iterable[Ballot], rule: Rule = "borda", discarded: int = 0
) -> Tally:
    """The outcome of the ballots; `candidates` in the order of the checks, `discarded` ballots are told on.

    Raises ValueError without candidates, for a voter who voted twice, and for a ballot on something else.
    """
    listed = tuple(ballots)
    check(candidates, listed)
    counted = [ballot for ballot in listed if ballot.compares]
    ids = [candidate.id for candidate in candidates]
    pairs = pairs_of(ids, counted)
    scores = _RULES[rule](ids, counted, pairs)
    order = sorted(ids, key=lambda one: -scores[one])
    agreement, chance = agreement_of(pairs, counted)
    return Tally(
        rule=rule,
        order=tuple(order),
        scores={one: _rounded(scores[one]) for one in order},
        winner=order[0],
        condorcet=condorcet(ids, pairs),
        margin=_rounded(scores[order[0]] - scores[order[1]]) if len(order) > 1 else None,
        agreement=agreement,
        agreement_by_chance=chance,
        position=position_bias(pairs),
        ties=_ties(order, scores, dict(candidates)),
        ranks={ballot.voter: {one: rank for rank, one in enumerate(ballot.ranking, 1)} for ballot in counted},
        ballots=len(counted),
        abstained=len(listed) - len(counted),
        discarded=discarded,
    )


def decided_early(
    candidates: Sequence[Candidate], ballots: Iterable[Ballot], outstanding: Iterable[str], rule: Rule = "borda"
) -> str | None:
    """Why the ballots of the `outstanding` voters need not be waited for, or None if they may change the winner.

    A voter who is outstanding may rank all but its own proposal as it likes, leave some out, or never answer.
    Exact for borda: the worst for the leader is that a rival comes first and the leader last on every ballot
    that can say so. For copeland each rival is granted its best outcome in every pair and the leader its worst;
    for schulze the leader has to be a Condorcet winner that stays one. So these two may be told later than
    they could be, never wrongly. Raises ValueError as `tally` does.
    """
    listed, waiting = tuple(ballots), frozenset(outstanding)
    check(candidates, listed)
    _check_outstanding(waiting, listed)
    if not waiting:
        return None
    ids = [candidate.id for candidate in candidates]
    if len(ids) == 1:
        return "there is only one proposal"
    comparing = frozenset(voter for voter in waiting if len(ids) - (voter in ids) > 1)
    if not comparing:
        return "the outstanding ballots compare nothing"
    leader = _unbeatable(ids, [ballot for ballot in listed if ballot.compares], comparing, rule)
    if leader is None:
        return None
    return f"{leader} cannot be overtaken any more by the {len(waiting)} outstanding ballot{'s' * (len(waiting) > 1)}"


def _check_outstanding(waiting: frozenset[str], ballots: Sequence[Ballot]) -> None:
    if again := sorted(waiting.intersection(ballot.voter for ballot in ballots)):
        raise ValueError(f"outstanding: {', '.join(again)} has voted already")


def _rounded(score: Fraction) -> float:
    return round(float(score), DIGITS)


def _leader(ids: Sequence[str], scores: Mapping[str, Fraction]) -> str:
    """The best; of equal ones the first in the order of the checks."""
    return max(ids, key=lambda one: scores[one])


# --- rules ----------------------------------------------------------------------------------------


def _borda(ids: Sequence[str], ballots: Sequence[Ballot]) -> dict[str, Fraction]:
    """Mean over the ballots that were shown c of (ranked below c + half of those tied with c) / (shown - 1).

    Borda's count with averaged truncation, divided by the ballot's size and by the number of ballots that
    could rank the candidate, as nobody ranks itself. Nobody's candidate gets one half. With every ballot there
    and full, this is the mean share of voters won in a candidate's pairs.
    """
    points: dict[str, Counter[int]] = {one: Counter() for one in ids}
    seen: Counter[str] = Counter()
    for ballot in ballots:
        most = len(ballot.shown) - 1
        tied = len(ballot.shown) - len(ballot.ranking) - 1
        ranked = set(ballot.ranking)
        for rank, one in enumerate(ballot.ranking):
            points[one][most] += 2 * (most - rank)
        for one in ballot.shown:
            seen[one] += 1
            if one not in ranked:
                points[one][most] += tied
    return {candidate: _mean_share(points[candidate], seen[candidate]) for candidate in ids}


def _mean_share(points: Mapping[int, int], ballots: int) -> Fraction:
    """Of the points on these ballots, doubled and by the most that a ballot gives; one half without a ballot."""
    if ballots == 0:
        return HALF
    return sum((Fraction(doubled, 2 * most) for most, doubled in points.items()), Fraction()) / ballots


def _copeland(ids: Sequence[str], ballots: Sequence[Ballot], pairs: Pairs) -> dict[str, Fraction]:
    """Share of the pairs that a candidate wins, a draw being half (Copeland, 1951)."""
    return _shares(ids, pairs.lead)


def _schulze(ids: Sequence[str], ballots: Sequence[Ballot], pairs: Pairs) -> dict[str, Fraction]:
    """Share of the others that a candidate beats by its strongest paths (Schulze, arXiv 1804.02973, winning votes)."""
    strength = _strongest_paths(pairs)
    return _shares(ids, lambda i, j: strength[i][j] - strength[j][i])


def _strongest_paths(pairs: Pairs) -> list[list[int]]:
    """By pair the strength of the strongest path: that of its weakest link (Floyd and Warshall; section 2.3 there)."""
    everyone = range(len(pairs.wins))
    strength = [[0] * len(pairs.wins) for _ in everyone]
    for i, j in permutations(everyone, 2):
        if pairs.lead(i, j) > 0:
            strength[i][j] = pairs.wins[i][j]
    for via in everyone:
        onward = strength[via]
        for paths in strength:
            reach = paths[via]
            if reach:
                paths[:] = [max(known, min(reach, link)) for known, link in zip(paths, onward, strict=True)]
    return strength


def _shares(ids: Sequence[str], lead: Callable[[int, int], int]) -> dict[str, Fraction]:
    """By candidate the share of the others that it leads, equal ones counting half."""
    if len(ids) == 1:
        return {ids[0]: HALF}
    everyone = range(len(ids))
    return {
        one: Fraction(sum(_points(lead(i, j)) for j in everyone if j != i), 2 * (len(ids) - 1))
        for i, one in enumerate(ids)
    }


def _points(lead: int) -> int:
    """Two for a win, one for a draw."""
    return (lead > 0) + (lead >= 0)


_RULES: Mapping[Rule, Callable[[Sequence[str], Sequence[Ballot], Pairs], dict[str, Fraction]]] = {
    "borda": lambda ids, ballots, _pairs: _borda(ids, ballots),
    "copeland": _copeland,
    "schulze": _schulze,
}


def _ties(order: Sequence[str], scores: Mapping[str, Fraction], checks: Mapping[str, float]) -> tuple[Tie, ...]:
    groups = (tuple(group) for _, group in groupby(order, key=lambda one: scores[one]))
    return tuple(_tie(group, checks) for group in groups if len(group) > 1)


def _tie(group: tuple[str, ...], checks: Mapping[str, float]) -> Tie:
    """Equal candidates; the checks put them in order only where no two have the same score there."""
    told_apart = len({checks[candidate] for candidate in group}) == len(group)
    return Tie(candidates=group, broken_by="checks" if told_apart else "hash")


# --- the end before the last ballot ---------------------------------------------------------------


def _unbeatable(ids: Sequence[str], ballots: Sequence[Ballot], waiting: frozenset[str], rule: Rule) -> str | None:
    """The leader, if it stays the leader whatever the voters who are waited for do."""
    if rule == "borda":
        return _unbeatable_by_borda(ids, ballots, waiting)
    pairs = pairs_of(ids, ballots)

    def still_open(i: int, j: int) -> int:
        """Ballots that may yet judge the pair."""
        return len(waiting - {ids[i], ids[j]})

    everyone = range(len(ids))
    if rule == "schulze":
        beats_all = (i for i in everyone if all(pairs.lead(i, j) > still_open(i, j) for j in everyone if j != i))
        return next((ids[i] for i in beats_all), None)
    leader = _leader(ids, _copeland(ids, ballots, pairs))
    worst = _shares(ids, lambda i, j: pairs.lead(i, j) - still_open(i, j))
    best = _shares(ids, lambda i, j: pairs.lead(i, j) + still_open(i, j))
    return leader if _holds(ids, leader, worst, best) else None


def _unbeatable_by_borda(ids: Sequence[str], ballots: Sequence[Ballot], waiting: frozenset[str]) -> str | None:
    if len(waiting) > len(ballots) + 1:  # a rival may yet win more than a leader that won everything until now
        return None
    scores = _borda(ids, ballots)
    seen = Counter(chain.from_iterable(ballot.shown for ballot in ballots))

    def with_all(points: int) -> dict[str, Fraction]:
        """Each candidate's score if every open ballot that can rank it gives it these points."""
        return {
            candidate: _mean_with(points, len(waiting - {candidate}), scores[candidate], seen[candidate])
            for candidate in ids
        }

    leader = _leader(ids, scores)
    return leader if _holds(ids, leader, with_all(0), with_all(1)) else None


def _mean_with(points: int, more: int, score: Fraction, seen: int) -> Fraction:
    """The mean `score` of `seen` ballots, once as many `more` give these points each; one half without a ballot."""
    if seen + more == 0:
        return HALF
    return (score * seen + points * more) / (seen + more)


def _holds(ids: Sequence[str], leader: str, worst: Mapping[str, Fraction], best: Mapping[str, Fraction]) -> bool:
    """Whether the leader at its worst stays before every rival at its best; the order of the checks breaks ties."""
    before = ids[: ids.index(leader)]
    return all(
        worst[leader] > best[rival] or (worst[leader] == best[rival] and rival not in before)
        for rival in ids
        if rival != leader
    )
