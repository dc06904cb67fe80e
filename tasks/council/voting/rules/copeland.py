"""Copeland's method: who beats most others one to one."""

from __future__ import annotations

from fractions import Fraction

from tasks.council.voting.profile import Profile
from tasks.council.voting.rules.rule import TallyRule
from tasks.council.voting.rules.scores import open_ballots, shares_led, winner_within


def _scores(profile: Profile) -> dict[str, Fraction]:
    """Share of the pairs that a candidate wins, a draw being half (Copeland, 1951)."""
    return shares_led(profile.ids, profile.pairs.lead)


def _necessary_winner(profile: Profile, waiting: frozenset[str]) -> str | None:
    """Each rival is granted its best outcome in every pair and the leader its worst: perhaps late, never wrong."""
    lead = profile.pairs.lead
    return winner_within(
        profile.ids,
        _scores(profile),
        worst=shares_led(profile.ids, lambda i, j: lead(i, j) - open_ballots(profile, waiting, i, j)),
        best=shares_led(profile.ids, lambda i, j: lead(i, j) + open_ballots(profile, waiting, i, j)),
    )


COPELAND = TallyRule(
    name="copeland",
    words="the share of the others that it beats one to one",
    scores=_scores,
    necessary_winner=_necessary_winner,
)
