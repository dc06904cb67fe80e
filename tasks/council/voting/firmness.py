"""How firm a decision is: whether it hangs on one voter, on one member, or on the tally rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import Field

from tasks.council.base import Frozen, Name
from tasks.council.voting.deciding import Case
from tasks.council.voting.election import Ballot
from tasks.council.voting.rules.registry import RULES

MAX_LOOKED_AT, MAX_CONTESTED = 24, 8
"""Proposals up to which all this is looked at: each look is a tally, whose cost grows with their square. The second is
for where ballots and the vote of closed answers differ, since each look draws lots then."""


ONE_VOTER = "there was only one voter"


class Firmness(Frozen):
    """What would stand first otherwise; only what changes is listed, by what was taken away.

    `without_voter`: its ballot, and its answer's vote in a closed task, are not counted. `without_member`: its proposal
    is gone, too, from every ballot; the winner itself stays. `by_rule`: the same ballots by another tally rule. What
    stands first is an author, of a closed task an answer. `voters`, `members` and `rules` say how many were looked
    at; `unknown` says why none was.
    """

    without_voter: dict[Name, str] = Field({})
    without_member: dict[Name, str] = Field({})
    by_rule: dict[str, str] = Field({})
    voters: int = 0
    members: int = 0
    rules: int = 0
    unknown: str | None = Field(None, description="Why it was not looked at.")

    @property
    def holds(self) -> bool:
        """Whether nothing that was looked at changes anything."""
        return not (self.without_voter or self.without_member or self.by_rule)


def firmness_of(case: Case) -> Firmness | None:
    """How firm the decision of a case is; None where neither ballots nor answers were counted."""
    voters = _voters(case)
    if len(voters) < 2:
        return Firmness(unknown=ONE_VOTER) if voters else None
    most = MAX_CONTESTED if case.contested else MAX_LOOKED_AT
    if len(case.candidates) > most:
        return Firmness(unknown=f"there are more than {most} proposals")
    winner = case.ruling().order[0]
    members = [one.id for one in case.candidates if one.id != winner]
    rules = _other_rules(case)
    return Firmness(
        without_voter=_changes(case, {one: _without_voter(case, one) for one in voters}),
        without_member=_changes(case, {one: _without_member(case, one) for one in members}),
        by_rule=_changes(case, {name: replace(case, rule=name) for name in rules}),
        voters=len(voters),
        members=len(members),
        rules=len(rules),
    )


def _other_rules(case: Case) -> list[str]:
    """Tally rules that the ballots were not tallied by; none without a ballot."""
    return [name for name in RULES if name != case.rule and case.profile.ballots]


def _voters(case: Case) -> list[str]:
    """Those whose ballot or whose answer was counted."""
    answered = [author for author, answer in (case.answers or {}).items() if answer is not None]
    return sorted({*(ballot.voter for ballot in case.profile.ballots), *answered})


def _changes(case: Case, others: Mapping[str, Case]) -> dict[str, str]:
    """What stands first in the other cases, where it is not what stands first in this one."""
    stands = case.outcome()
    outcomes = {name: other.outcome() for name, other in others.items()}
    return {name: outcome for name, outcome in outcomes.items() if outcome != stands}


def _without_voter(case: Case, voter: str) -> Case:
    """The case without this voter's ballot, and without the vote of its answer; its proposal stands."""
    return replace(case, ballots=_ballots_without(case.ballots, voter), unheard=frozenset({voter}))


def _without_member(case: Case, member: str) -> Case:
    """The case without this member's ballot and proposal."""
    ballots = [_shown_without(ballot, member) for ballot in _ballots_without(case.ballots, member)]
    answers = case.answers
    if answers is not None:
        answers = {author: answer for author, answer in answers.items() if author != member}
    candidates = tuple(one for one in case.candidates if one.id != member)
    return replace(case, candidates=candidates, ballots=tuple(ballots), answers=answers)


def _ballots_without(ballots: Iterable[Ballot], voter: str) -> tuple[Ballot, ...]:
    return tuple(ballot for ballot in ballots if ballot.voter != voter)


def _shown_without(ballot: Ballot, member: str) -> Ballot:
    """The ballot as if this member's proposal had not been shown."""
    left = {name: tuple(one for one in getattr(ballot, name) if one != member) for name in ("shown", "ranking")}
    return ballot.model_copy(update=left)
