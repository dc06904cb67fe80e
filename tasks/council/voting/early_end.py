"""When a tally is decided before its last ballot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.profile import profile_of
from tasks.council.voting.rules.registry import DEFAULT, rule_named


def decided_early(
    candidates: Sequence[Candidate],
    ballots: Iterable[Ballot],
    outstanding: Iterable[str],
    rule: str = DEFAULT,
    otherwise: str | None = None,
) -> str | None:
    """Why the ballots of the `outstanding` voters need not be waited for, or None if they may change the winner.

    A voter who is outstanding may rank all but its own proposal as it likes, leave some out, or never answer.
    `otherwise` wins where the ballots turn out not to decide; where it is given, only its own lead ends them early.
    Raises ValueError as `tally` does, and for an outstanding voter who has voted.
    """
    listed, waiting = tuple(ballots), frozenset(outstanding)
    profile = profile_of(candidates, listed)
    _check_outstanding(waiting, listed)
    chosen = rule_named(rule)
    if not waiting:
        return None
    if len(profile.ids) == 1:
        return "there is only one proposal"
    comparing = frozenset(voter for voter in waiting if len(profile.ids) - (voter in profile.ids) > 1)
    if not comparing:
        return "the outstanding ballots compare nothing"
    winner = chosen.necessary_winner(profile, comparing)
    if winner is None or otherwise not in (None, winner):
        return None
    return f"{winner} cannot be overtaken any more by the {len(waiting)} outstanding ballot{'s' * (len(waiting) > 1)}"


def _check_outstanding(waiting: frozenset[str], ballots: Sequence[Ballot]) -> None:
    if again := sorted(waiting.intersection(ballot.voter for ballot in ballots)):
        raise ValueError(f"outstanding: {', '.join(again)} has voted already")
