"""What is tallied: candidates and ballots, held against one another before anything is counted.

A voter is shown every proposal but its own and ranks them best first. What it leaves out counts as tied below what
it ranked, with no preference among the rest: the "averaged" reading of truncated ballots (Kamwa, Public Choice 192,
2022), which is also how Schulze's paper reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple, Self

from pydantic import model_validator

from tasks.council.base import Frozen, Name


class Candidate(NamedTuple):
    """A proposal by its author's id, with the checks' score, 0 to 1."""

    id: str
    score: float


class Ballot(Frozen):
    """What one voter was shown, in that order, and its ranking of it, best first; it may leave some out."""

    voter: Name
    shown: tuple[Name, ...]
    ranking: tuple[Name, ...]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.voter in self.shown:
            raise ValueError(f"shown: {self.voter} does not judge its own proposal")
        for field, ids in (("shown", self.shown), ("ranking", self.ranking)):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{field}: an id appears more than once")
        if unknown := sorted(set(self.ranking) - set(self.shown)):
            raise ValueError(f"ranking: {', '.join(unknown)} was not shown")
        return self

    @property
    def compares(self) -> bool:
        """Whether it prefers anything to anything: it ranks something, and was shown at least two."""
        return bool(self.ranking) and len(self.shown) > 1

    @property
    def grades(self) -> Mapping[str, Fraction]:
        """What it thinks of each candidate by itself, 0 to 1, whatever its ranking; none where it only ranks."""
        return {}
