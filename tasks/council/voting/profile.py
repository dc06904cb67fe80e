"""What a rule is given: the candidates, and the ballots that compare any of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.council.voting.pairs import Pairs, pairs_of

if TYPE_CHECKING:
    from tasks.council.voting.election import Ballot


@dataclass(frozen=True)
class Profile:
    """Ids of the candidates in the order of the checks, which breaks ties, and the ballots, whole."""

    ids: tuple[str, ...]
    ballots: tuple[Ballot, ...]

    @cached_property
    def pairs(self) -> Pairs:
        """How the ballots compare each two of them; counted once, where a rule asks."""
        return pairs_of(self.ids, self.ballots)
