"""What the proposals of an item are ordered by: its ballots, the vote of its closed answers, or the checks.

Ballots decide an open task. They decide a closed one where they are worth more than chance: where they do not follow
the places in which proposals were shown, and agree more than drawn lots would. Else the vote of the answers decides,
which explains most of what a council gains on such tasks (Choi et al., arXiv 2508.17536). Where the vote is tied,
ballots that follow no place still say which of the tied answers it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.majority import Majority, majority_of
from tasks.council.voting.profile import Profile, profile_of
from tasks.council.voting.tally import order_of
from tasks.council.voting.worth import LEVEL, agreement_p, first_shown_p, least_p

FOLLOW = "the ballots follow the order in which proposals were shown"
LOTS = "the ballots agree no further than drawn lots often do"
TOO_FEW = "so few ballots could be drawn lots, whatever they say"


class Ruling(NamedTuple):
    """Authors, best first, by what, and the vote of closed answers; `set_aside` says why ballots did not decide."""

    order: tuple[str, ...]
    by: Literal["checks", "majority", "ballots"]
    vote: Majority | None
    set_aside: str | None = None


@dataclass(frozen=True)
class Case:
    """What an order of the proposals rests on.

    `candidates` stand in the order of the checks; `answers` are the closed answers by author, None for one that
    cannot be read, and None for all where the task is open; `seed` is what lots are drawn with. The answers of those
    who are `unheard` are no votes.
    """

    candidates: tuple[Candidate, ...]
    ballots: tuple[Ballot, ...]
    answers: Mapping[str, str | None] | None
    rule: str
    seed: int
    unheard: frozenset[str] = frozenset()

    @cached_property
    def profile(self) -> Profile:
        """The candidates, and the ballots that count."""
        return profile_of(self.candidates, self.ballots)

    @cached_property
    def tallied(self) -> list[str]:
        """The authors in the order of the ballots."""
        return order_of(self.profile, self.rule)

    @cached_property
    def vote(self) -> Majority | None:
        """The vote of closed answers, ties by the checks; None where the task is open, or no answer can be read."""
        return None if self.answers is None else majority_of(self.profile.ids, self._votes)

    @property
    def _votes(self) -> dict[str, str | None]:
        """The answers that are votes."""
        return {**(self.answers or {}), **dict.fromkeys(self.unheard)}

    @cached_property
    def follows_order(self) -> bool:
        """Whether the ballots follow the places in which proposals were shown."""
        return first_shown_p(self.profile.ballots) <= LEVEL

    @cached_property
    def set_aside(self) -> str | None:
        """Why the ballots do not decide a closed task, if so."""
        if self.follows_order:
            return FOLLOW
        if least_p(self.profile.ballots) > LEVEL:
            return TOO_FEW
        return LOTS if agreement_p(self.profile.ballots, self.seed, enough=LEVEL) > LEVEL else None

    def ruling(self) -> Ruling:
        """The order that stands."""
        vote = self.vote
        if not self.profile.ballots:
            return Ruling(self.profile.ids, "checks", None) if vote is None else _by_vote(vote)
        if vote is None or self.set_aside is None:
            return Ruling(tuple(self.tallied), "ballots", vote)
        return _by_vote(self._untied(vote), self.set_aside)

    def outcome(self) -> str:
        """What stands first: of a closed task its answer, where one can be read, else its author.

        The same as the first of the ruling, without drawing lots where ballots and vote say the same.
        """
        if self.vote and self.profile.ballots and not self.contested:
            return self.vote.answer
        first = self.ruling().order[0]
        return (self.answers or {}).get(first) or first

    def _untied(self, vote: Majority) -> Majority:
        """The vote, told apart by ballots where it is tied and they follow no place."""
        if not vote.tied or self.follows_order:
            return vote
        by_ballots = majority_of(self.tallied, self._votes)
        assert by_ballots is not None, "there is a vote"
        return by_ballots.model_copy(update={"by": "ballots"})

    @property
    def contested(self) -> bool:
        """Whether ballots and the vote of closed answers differ, so that it matters what the ballots are worth."""
        if self.vote is None or not self.profile.ballots:
            return False
        return self._votes.get(self.tallied[0]) != self.vote.answer

    def settled_without(self, places: list[int]) -> str | None:
        """Why further ballots on so many proposals each change nothing about a vote of closed answers, if so."""
        vote = self.vote
        if vote is None or vote.tied:
            return None
        if least_p(self.profile.ballots, [one for one in places if one > 1]) <= LEVEL:
            return None
        return f"{TOO_FEW}, and the vote of the answers decides"


def _by_vote(vote: Majority, set_aside: str | None = None) -> Ruling:
    order = (*chain.from_iterable(vote.votes.values()), *vote.silent)
    return Ruling(order, "majority", vote, set_aside)
