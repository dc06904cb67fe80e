"""What a rule is given: the candidates, and the ballots that compare any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.council.voting.pairs import Pairs, pairs_of

if TYPE_CHECKING:  # pydantic would come with them, and a command's help reads the rules
    from tasks.council.voting.election import Ballot, Candidate


@dataclass(frozen=True)
class Profile:
    """Ids of the candidates in the order of the checks, which breaks ties, and the ballots, whole."""

    ids: tuple[str, ...]
    ballots: tuple[Ballot, ...]

    @cached_property
    def pairs(self) -> Pairs:
        """How the ballots compare each two of them; counted once, where a rule asks."""
        return pairs_of(self.ids, self.ballots)


def profile_of(candidates: Sequence[Candidate], ballots: Sequence[Ballot]) -> Profile:
    """The candidates, and those of the ballots that compare anything.

    Raises ValueError without candidates, for a voter who voted twice, and for a ballot on something else.
    """
    _check(candidates, ballots)
    ids = tuple(candidate.id for candidate in candidates)
    return Profile(ids, tuple(ballot for ballot in ballots if ballot.compares))


def _check(candidates: Sequence[Candidate], ballots: Sequence[Ballot]) -> None:
    if not candidates:
        raise ValueError("candidates: there are none")
    ids = {candidate.id for candidate in candidates}
    if len(ids) < len(candidates):
        raise ValueError("candidates: an id appears more than once")
    voters = [ballot.voter for ballot in ballots]
    if len(set(voters)) < len(voters):
        raise ValueError("ballots: a voter appears more than once")
    for ballot in ballots:
        if unknown := sorted(set(ballot.shown) - ids):
            raise ValueError(f"ballots: {ballot.voter} was shown {', '.join(unknown)}, which is no candidate")
