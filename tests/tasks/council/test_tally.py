"""From ballots to an outcome."""

from __future__ import annotations

import random
import time
from itertools import pairwise, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.council.voting.ballots import sheets
from tasks.council.voting.early_end import decided_early
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.tally import tally
from tasks.council.voting.ties import Tie
from tests.conftest import cases
from tests.tasks.council.elections import (
    RANKING,
    completions,
    councils,
    election,
    outcome,
    standing,
    unfinished,
    vote,
)

# --- known elections ------------------------------------------------------------------------------


def test_the_first_example_of_schulze() -> None:
    """Section 3.1 of arXiv 1804.02973: a cycle of which the strongest paths make d > a > c > b."""
    ballots = election((8, "acdb"), (2, "badc"), (4, "cdba"), (4, "dbac"), (3, "dcba"))
    result = outcome("abcd", ballots, "schulze")
    assert result.order == ("d", "a", "c", "b")
    assert result.condorcet is None
    assert result.ties == ()


def test_the_example_of_45_voters() -> None:
    """The worked example of the Schulze method: e > a > c > b > d."""
    ballots = election(
        (5, "acbed"), (5, "adecb"), (8, "bedac"), (3, "cabed"), (7, "caebd"), (2, "cbade"), (7, "dceba"), (8, "ebadc")
    )
    assert outcome("abcde", ballots, "schulze").order == ("e", "a", "c", "b", "d")


def test_the_cycle_of_condorcet() -> None:
    """Nobody is preferred to all; all are equal under each rule, and the checks decide."""
    for rule in RANKING:
        result = outcome("bca", election((1, "abc"), (1, "bca"), (1, "cab")), rule)
        assert result.condorcet is None
        assert result.order == ("b", "c", "a")
        assert result.ties == (Tie(candidates=("b", "c", "a"), broken_by="checks"),)
        assert (result.margin, result.agreement) == (0, 0)


def test_borda_and_condorcet_may_differ() -> None:
    """A majority prefers a, and b is disliked less."""
    ballots = election((3, "abc"), (2, "bca"))
    assert outcome("abc", ballots).order == ("b", "a", "c")
    assert outcome("abc", ballots).condorcet == "a"
    assert outcome("abc", ballots).scores == {"b": 0.7, "a": 0.6, "c": 0.2}
    for rule in ("copeland", "schulze"):
        assert outcome("abc", ballots, rule).winner == "a"


def test_the_capital_of_tennessee() -> None:
    """The textbook election: Nashville is in the middle of everybody's list."""
    ballots = election((42, "mnck"), (26, "nckm"), (15, "cknm"), (17, "kcnm"))
    for rule in RANKING:
        result = outcome("mnck", ballots, rule)
        assert (result.winner, result.condorcet) == ("n", "n")
    assert outcome("mnck", ballots).scores == {
        "n": round(194 / 300, 6),
        "c": round(173 / 300, 6),
        "m": round(126 / 300, 6),
        "k": round(107 / 300, 6),
    }


# --- small councils -------------------------------------------------------------------------------


def test_a_council_of_three_has_one_judge_a_pair() -> None:
    """Ballots that fit one order agree fully, those of a cycle not at all; by chance they do 3 times in 4."""
    fits = outcome("abc", [vote("a", "bc"), vote("b", "ac"), vote("c", "ab")])
    assert (fits.order, fits.condorcet, fits.agreement) == (("a", "b", "c"), "a", 1)
    assert fits.scores == {"a": 1, "b": 0.5, "c": 0}
    cycle = outcome("abc", [vote("a", "bc"), vote("b", "ca"), vote("c", "ab")])
    assert (cycle.condorcet, cycle.agreement) == (None, 0)
    assert fits.agreement_by_chance == cycle.agreement_by_chance == 0.75
    assert (fits.position.flip_rate, fits.position.pairs, fits.position.comparisons) == (None, 0, 3)


def test_a_candidate_that_nobody_could_rank_is_neither_good_nor_bad() -> None:
    """Of three members only one has voted: its own proposal has no ballot."""
    result = outcome("abc", [vote("a", "bc")])
    assert result.scores == {"b": 1, "a": 0.5, "c": 0}
    assert result.agreement is None


# --- partial and missing ballots ------------------------------------------------------------------


def test_what_a_ballot_leaves_out_is_tied_below_what_it_ranks() -> None:
    """The points that are left are shared, and no pair among the rest is judged."""
    result = outcome("abcd", [vote("x", "a", shown="abcd")])
    assert result.scores == {"a": 1, "b": round(1 / 3, 6), "c": round(1 / 3, 6), "d": round(1 / 3, 6)}
    assert result.position.comparisons == 3
    assert result.agreement is None
    assert result.ranks == {"x": {"a": 1}}


def test_an_empty_ballot_is_an_abstention() -> None:
    """It changes nothing but its count."""
    with_it = outcome("abc", [vote("x", "cab"), vote("y", "", shown="abc")])
    assert with_it == outcome("abc", [vote("x", "cab")]).model_copy(update={"abstained": 1})


@pytest.mark.parametrize(
    ("voter", "shown", "ranking", "problem"),
    [
        ("a", "ab", "b", "shown: a does not judge its own proposal"),
        ("a", "bb", "b", "shown: an id appears more than once"),
        ("a", "bc", "bb", "ranking: an id appears more than once"),
        ("a", "bc", "bd", "ranking: d was not shown"),
        ("a", "bc", "a", "ranking: a was not shown"),
    ],
)
def test_an_unsound_ballot_is_refused(voter: str, shown: str, ranking: str, problem: str) -> None:
    """Nobody votes for itself, twice for one, or for what it was not shown."""
    with pytest.raises(ValidationError, match=problem):
        vote(voter, ranking, shown)


def test_an_unsound_election_is_refused() -> None:
    """A ballot too many is a fault of the caller, not of a model."""
    for candidates, ballots, problem in (
        ([], [], "there are none"),
        (standing("aa"), [], "an id appears more than once"),
        (standing("ab"), [vote("x", "ab"), vote("x", "ba")], "a voter appears more than once"),
        (standing("ab"), [vote("x", "ac")], "x was shown c, which is no candidate"),
    ):
        with pytest.raises(ValueError, match=problem):
            tally(candidates, ballots)
    with pytest.raises(ValueError, match="x has voted already"):
        decided_early(standing("ab"), [vote("x", "ab")], ["x"])


# --- properties -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(councils(least=2), st.sampled_from(["copeland", "schulze"]))
def test_a_condorcet_winner_wins_under_copeland_and_schulze(
    council: tuple[list[Candidate], list[Ballot]], rule: str
) -> None:
    """That is what these rules are for."""
    result = tally(*council, rule)
    if result.condorcet is not None:
        assert result.winner == result.condorcet


@settings(deadline=None, max_examples=cases(50, each=100))
@given(councils(least=2, most=5))
def test_schulze_is_what_its_definition_says(council: tuple[list[Candidate], list[Ballot]]) -> None:
    """One beats another if its strongest path of won pairs is stronger than the one back; all paths are tried."""
    candidates, ballots = council
    ids = [candidate.id for candidate in candidates]
    wins = dict.fromkeys(permutations(ids, 2), 0)
    for ballot in ballots:
        for place, one in enumerate(ballot.ranking):
            for other in set(ballot.shown) - set(ballot.ranking[: place + 1]):
                wins[one, other] += 1

    def strongest(start: str, end: str) -> int:
        between = [one for one in ids if one not in (start, end)]
        paths = [[start, *way, end] for count in range(len(between) + 1) for way in permutations(between, count)]
        links = [list(pairwise(path)) for path in paths]
        return max(min(wins[a, b] if wins[a, b] > wins[b, a] else 0 for a, b in path) for path in links)

    result = tally(candidates, ballots, "schulze")
    for one in ids:
        leads = [strongest(one, other) - strongest(other, one) for other in ids if other != one]
        share = sum(1 if lead > 0 else 0.5 if lead == 0 else 0 for lead in leads) / len(leads)
        assert result.scores[one] == pytest.approx(share, abs=1e-6)


@settings(deadline=None)
@given(st.permutations("abcdef"), st.sampled_from(RANKING))
def test_a_council_of_one_mind_gets_its_order(truth: list[str], rule: str) -> None:
    """Whoever does not judge itself, and whatever the checks said."""
    ballots = [vote(voter, [one for one in truth if one != voter]) for voter in truth]
    result = outcome("abcdef", ballots, rule)
    assert result.order == tuple(truth)
    assert (result.agreement, result.condorcet, result.ties) == (1, truth[0], ())


@settings(deadline=None)
@given(councils(least=3, full=True))
def test_borda_of_a_full_council_is_the_mean_share_in_pairs(council: tuple[list[Candidate], list[Ballot]]) -> None:
    """Leaving out oneself favours nobody."""
    candidates, ballots = council
    result = tally(candidates, ballots)
    others = len(candidates) - 1
    for candidate in candidates:
        preferred = sum(
            len(ballot.ranking) - 1 - ballot.ranking.index(candidate.id)
            for ballot in ballots
            if candidate.id in ballot.ranking
        )
        assert result.scores[candidate.id] == pytest.approx(preferred / (others * (others - 1)), abs=1e-6)


@settings(deadline=None)
@given(councils(least=3, full=True), st.data())
def test_one_reviewer_moves_a_score_by_one_share_at_most(
    council: tuple[list[Candidate], list[Ballot]], data: st.DataObject
) -> None:
    """What a proposal gains by talking one reviewer into obeying it."""
    candidates, ballots = council
    before = tally(candidates, ballots).scores
    bought = data.draw(st.sampled_from(ballots))
    instead = vote(bought.voter, data.draw(st.permutations(bought.shown)), bought.shown)
    after = tally(candidates, [instead if ballot is bought else ballot for ballot in ballots]).scores
    assert all(abs(after[one] - before[one]) <= 1 / (len(candidates) - 1) + 1e-6 for one in before)


# --- the end before the last ballot ---------------------------------------------------------------


@settings(deadline=None, max_examples=cases(50, each=10))
@given(unfinished())
def test_borda_tells_an_early_end_as_soon_as_it_is_true(
    situation: tuple[list[Candidate], list[Ballot], list[str]],
) -> None:
    """Where it does not, two ways in which the outstanding ballots could come have different winners."""
    candidates, ballots, outstanding = situation
    assume(decided_early(candidates, ballots, outstanding, "borda") is None)
    ids = [candidate.id for candidate in candidates]
    winners = {tally(candidates, [*ballots, *more], "borda").winner for more in completions(ids, outstanding)}
    assert len(winners) > 1


def test_a_lead_that_cannot_be_overtaken_ends_the_review() -> None:
    """Seven members: with five ballots of one mind the last two can change nothing, with four they can."""
    ids = "abcdefg"
    agreed = [vote(voter, ids.replace(voter, "")) for voter in ids]
    for rule in RANKING:
        assert decided_early(standing(ids), agreed[2:], "ab", rule) == (
            "a cannot be overtaken any more by the 2 outstanding ballots"
        )
        assert decided_early(standing(ids), agreed[4:], "abcd", rule) is None
        assert decided_early(standing(ids), agreed, [], rule) is None


def test_the_time_of_a_large_tally(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed and not asserted: 64 members who judge one another, CPU time."""
    lots = random.Random(1)
    ids = [f"agent-{number:03d}" for number in range(64)]
    ballots = [
        vote(sheet.voter, lots.sample(sheet.authors, len(sheet.authors)), sheet.authors)
        for sheet in sheets(ids, ids, "salt").values()
    ]
    for rule in RANKING:
        start = time.process_time()
        result = tally(standing(ids), ballots, rule)
        took = time.process_time() - start
        with capsys.disabled():
            print(f"\n64 x 64 by {rule}: {took * 1000:.0f} ms", end="")
        assert result.position.comparisons == 64 * 63 * 62 / 2
