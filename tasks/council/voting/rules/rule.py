"""What a tally rule has to say: each is one object in a file of its own, and `registry.py` lists it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from tasks.council.voting.profile import Profile


@dataclass(frozen=True, kw_only=True)
class TieBreak:
    """A rule's own way to order candidates of equal score, before the checks: the higher of the `values` first.

    `name` is what a tie was `broken_by`; `words` end the sentence "a and b by ...".
    """

    name: str
    words: str
    values: Callable[[Profile], Mapping[str, Fraction]]


@dataclass(frozen=True, kw_only=True)
class TallyRule:
    """How ballots order the candidates.

    `name` is what a user types and a tally says; `words` end the sentence "a proposal's score is ...". `scores` are
    0 to 1 and the same for all without a ballot. Equal ones are ordered by the `tie_breaks`, one after the other,
    then by the checks.

    `necessary_winner` names the candidate that comes first whatever the voters who are waited for do, or says None:
    there is none, or the rule cannot tell yet. A voter may rank and grade all but its own proposal as it likes, leave
    some out, or never answer. It has no default, since what holds for one rule is wrong for the next.
    """

    name: str
    words: str
    scores: Callable[[Profile], Mapping[str, Fraction]]
    necessary_winner: Callable[[Profile, frozenset[str]], str | None]
    tie_breaks: tuple[TieBreak, ...] = ()
