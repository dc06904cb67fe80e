"""Schulze's method: who beats most others by the strongest paths."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

from tasks.council.voting.pairs import Pairs
from tasks.council.voting.profile import Profile
from tasks.council.voting.rules.rule import TallyRule
from tasks.council.voting.rules.scores import open_ballots, shares_led


def _scores(profile: Profile) -> dict[str, Fraction]:
    """Share of the others that a candidate beats by its strongest paths (Schulze, arXiv 1804.02973, winning votes)."""
    strength = _strongest_paths(profile.pairs)
    return shares_led(profile.ids, lambda i, j: strength[i][j] - strength[j][i])


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


def _necessary_winner(profile: Profile, waiting: frozenset[str]) -> str | None:
    """A Condorcet winner that stays one: perhaps late, never wrong."""
    everyone = range(len(profile.ids))

    def stays_ahead(i: int, j: int) -> bool:
        return profile.pairs.lead(i, j) > open_ballots(profile, waiting, i, j)

    beats_all = (one for i, one in enumerate(profile.ids) if all(stays_ahead(i, j) for j in everyone if j != i))
    return next(beats_all, None)


SCHULZE = TallyRule(
    name="schulze",
    words="the share of the others that it beats by its strongest paths",
    scores=_scores,
    necessary_winner=_necessary_winner,
)
