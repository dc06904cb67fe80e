"""From ballots to a decision: the order of the candidates by a rule.

Pure functions of plain ids. The candidates come in the order that the checks gave them. That order breaks every tie
that the rule leaves, so that without a single usable ballot it is the result. It rests on the checks' score, then on
the SHA-256 of `rank_proposals`, never on who came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Annotated

from tasks.council.base import Frozen, Name, one_of
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.pairs import condorcet
from tasks.council.voting.profile import Profile, profile_of
from tasks.council.voting.reliability import DIGITS, PositionBias, agreement_of, position_bias
from tasks.council.voting.rules.registry import CHECKS, DEFAULT, RULES, rule_named
from tasks.council.voting.ties import Tie, best_first, ties_of


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

    rule: Annotated[str, one_of(RULES)]
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


def tally(candidates: Sequence[Candidate], ballots: Iterable[Ballot], rule: str = DEFAULT, discarded: int = 0) -> Tally:
    """The outcome of the ballots; `candidates` in the order of the checks, `discarded` ballots are told on.

    Raises ValueError without candidates, for a voter who voted twice, for a ballot on something else, and, as WrongUse,
    for an unknown rule.
    """
    listed = tuple(ballots)
    profile = profile_of(candidates, listed)
    chosen = rule_named(rule)
    scores = chosen.scores(profile)
    own = {way.name: way.values(profile) for way in chosen.tie_breaks}
    order = best_first(profile.ids, scores, own.values())
    agreement, chance = agreement_of(profile.pairs, profile.ballots)
    return Tally(
        rule=chosen.name,
        order=tuple(order),
        scores={one: _rounded(scores[one]) for one in order},
        winner=order[0],
        condorcet=condorcet(profile.ids, profile.pairs),
        margin=_rounded(scores[order[0]] - scores[order[1]]) if len(order) > 1 else None,
        agreement=agreement,
        agreement_by_chance=chance,
        position=position_bias(profile.pairs),
        ties=ties_of(order, scores, {**own, CHECKS: dict(candidates)}),
        ranks={ballot.voter: {one: rank for rank, one in enumerate(ballot.ranking, 1)} for ballot in profile.ballots},
        ballots=len(profile.ballots),
        abstained=len(listed) - len(profile.ballots),
        discarded=discarded,
    )


def order_of(profile: Profile, rule: str) -> list[str]:
    """The candidates of a tally, best first, without its figures."""
    chosen = rule_named(rule)
    return best_first(profile.ids, chosen.scores(profile), [way.values(profile) for way in chosen.tie_breaks])


def _rounded(score: Fraction) -> float:
    return round(float(score), DIGITS)
