"""How often each candidate is preferred to each other one: the pairwise matrix, and who leads in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.council.voting.election import Ballot


@dataclass(frozen=True)
class Pairs:
    """`wins[i][j]`: ballots that prefer candidate i to j; `first[i][j]`: those of them that showed i before j."""

    wins: list[list[int]]
    first: list[list[int]]

    def compared(self, i: int, j: int) -> int:
        """Ballots that prefer one of the two."""
        return self.wins[i][j] + self.wins[j][i]

    def lead(self, i: int, j: int) -> int:
        """Ballots by which i is ahead of j."""
        return self.wins[i][j] - self.wins[j][i]

    def each(self) -> Iterable[tuple[int, int]]:
        """Every pair once."""
        return combinations(range(len(self.wins)), 2)


def pairs_of(ids: Sequence[str], ballots: Iterable[Ballot]) -> Pairs:
    """How the ballots compare each two of the candidates."""
    index = {one: number for number, one in enumerate(ids)}
    wins = [[0] * len(ids) for _ in ids]
    first = [[0] * len(ids) for _ in ids]
    for ballot in ballots:
        place = {index[one]: number for number, one in enumerate(ballot.shown)}
        below = dict.fromkeys(place)
        for one in ballot.ranking:
            i = index[one]
            del below[i]
            shown, wins_of, first_of = place[i], wins[i], first[i]
            for j in below:
                wins_of[j] += 1
                if shown < place[j]:
                    first_of[j] += 1
    return Pairs(wins, first)


def condorcet(ids: Sequence[str], pairs: Pairs) -> str | None:
    """The candidate that beats every other one to one, if there is one."""
    others = range(len(ids))
    beats_all = (one for i, one in enumerate(ids) if all(pairs.lead(i, j) > 0 for j in others if j != i))
    return next(beats_all, None) if len(ids) > 1 else None
