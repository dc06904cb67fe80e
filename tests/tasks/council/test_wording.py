"""What a tally says to a reader."""

from __future__ import annotations

import pytest

from tasks.council.decisions import Ballots
from tasks.council.tally import Ballot, Candidate, tally
from tasks.council.wording import in_words

CANDIDATES = [Candidate("m1", 0.9), Candidate("m2", 0.8), Candidate("m3", 0.8)]


def ballot(voter: str, *ranking: str) -> Ballot:
    """A ballot on everything that it ranks."""
    return Ballot(voter=voter, shown=ranking, ranking=ranking)


@pytest.mark.parametrize(
    ("ballots", "expected", "ended_early", "said"),
    [
        ([], 0, "the outstanding ballots compare nothing", "No ballots were asked for: the outstanding ballots"),
        ([], 3, None, "None of 3 ballots could be counted: the order of the checks stands."),
        (
            [ballot("m1", "m2", "m3"), ballot("m2", "m1", "m3"), ballot("m3", "m1", "m2")],
            3,
            None,
            "3 of 3 ballots were counted (borda). m1 leads m2 by a clear margin of 0.50. It beats every other one to",
        ),
        (
            [ballot("m1", "m2", "m3"), ballot("m2", "m3", "m1"), ballot("m3", "m1", "m2")],
            3,
            None,
            "m1 and m2 have the same votes. No proposal beats every other one to one.",
        ),
        ([ballot("m1", "m2", "m3")], 3, "m2 cannot be overtaken", "since m2 cannot be overtaken"),
    ],
    ids=["skipped", "none", "clear", "cycle", "early"],
)
def test_a_reader_is_told_how_it_went(ballots: list[Ballot], expected: int, ended_early: str | None, said: str) -> None:
    """In whole sentences, what was counted first."""
    outcome = tally(CANDIDATES, ballots)
    told = in_words(Ballots(expected=expected, counted=len(ballots), ended_early=ended_early, tally=outcome))
    assert said in told


def test_ties_are_told_with_what_broke_them() -> None:
    """The checks where their scores differ, else a hash."""
    told = in_words(Ballots(expected=3, counted=0, tally=tally(CANDIDATES, [])))
    assert "Ties were broken: " in told
