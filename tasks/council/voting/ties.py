"""The order of equal candidates, and by what it came about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Annotated

from tasks.council.base import Frozen, Name, one_of
from tasks.council.voting.rules.registry import BROKEN_BY, HASH

Values = Mapping[str, Fraction | float]
"""A number for each candidate; the higher comes first."""


class Tie(Frozen):
    """Candidates of equal score, in the order they were put in, and by what."""

    candidates: tuple[Name, ...]
    broken_by: Annotated[str, one_of(BROKEN_BY)]


def best_first(ids: Sequence[str], scores: Values, ways: Iterable[Values]) -> list[str]:
    """The candidates by score, equal ones by a rule's own ways, and then as they were."""
    values = (scores, *ways)
    return sorted(ids, key=lambda one: [-value[one] for value in values])


def ties_of(order: Sequence[str], scores: Values, ways: Mapping[str, Values]) -> tuple[Tie, ...]:
    """The ties in an order that is by score, equal ones by the ways and what they leave by the hash."""
    groups = (tuple(group) for _, group in groupby(order, key=lambda one: scores[one]))
    return tuple(Tie(candidates=group, broken_by=parted_by(group, ways)) for group in groups if len(group) > 1)


def parted_by(group: Sequence[str], ways: Mapping[str, Values]) -> str:
    """The last of the ways that was needed to tell all of the group apart; the hash where they do not."""
    keys: dict[str, tuple[Fraction | float, ...]] = dict.fromkeys(group, ())
    for name, values in ways.items():
        keys = {one: (*keys[one], values[one]) for one in group}
        if len(set(keys.values())) == len(group):
            return name
    return HASH
