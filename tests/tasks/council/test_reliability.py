"""How far a tally can be trusted: agreement, and the place in the list."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.voting.ballots import sheets
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.tally import tally
from tests.tasks.council.elections import councils, outcome, standing, vote

# --- agreement ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.permutations("abcd"), min_size=1, max_size=6))
def test_agreement_is_kendalls_coefficient_where_all_rank_all(rankings: list[list[str]]) -> None:
    """W = 12 S / (m^2 (n^3 - n)), S the squared deviations of the sums of ranks."""
    result = outcome("abcd", [vote(f"v{number}", ranking) for number, ranking in enumerate(rankings)])
    judges = len(rankings)
    sums = [sum(ranking.index(one) + 1 for ranking in rankings) for one in "abcd"]
    squares = sum((total - judges * 2.5) ** 2 for total in sums)
    assert result.agreement == pytest.approx(12 * squares / (judges**2 * 60), abs=1e-6)
    assert result.agreement_by_chance == pytest.approx(1 / judges, abs=1e-6)


@settings(deadline=None)
@given(councils(least=3, full=True))
def test_agreement_is_durbins_coefficient_where_nobody_ranks_itself(
    council: tuple[list[Candidate], list[Ballot]],
) -> None:
    """W = 12 S / (l^2 n (n^2 - 1)) with l judges a pair."""
    candidates, ballots = council
    n = len(candidates)
    sums = [
        sum(ballot.ranking.index(one.id) + 1 for ballot in ballots if one.id in ballot.ranking) for one in candidates
    ]
    squares = sum((total - (n - 1) * n / 2) ** 2 for total in sums)
    durbin = 12 * squares / ((n - 2) ** 2 * n * (n**2 - 1))
    assert tally(candidates, ballots).agreement == pytest.approx(durbin, abs=1e-6)


@pytest.mark.parametrize("ids", ["abc", "abcd"])
def test_agreement_by_chance_is_the_mean_over_all_elections(ids: str) -> None:
    """Every combination of ballots counted once."""
    ballots = [[vote(voter, one) for one in permutations(ids.replace(voter, ""))] for voter in ids]
    results = [outcome(ids, combination) for combination in product(*ballots)]
    mean = sum(result.agreement or 0 for result in results) / len(results)
    assert mean == pytest.approx(results[0].agreement_by_chance, abs=1e-5)


# --- the place in the list ------------------------------------------------------------------------


def seen_by(ids: Sequence[str], judge: str) -> list[Ballot]:
    """A council whose members all judge by the proposal, or all by the place."""
    drawn = sheets(ids, ids, "salt").values()
    return [
        vote(sheet.voter, sorted(sheet.authors) if judge == "proposal" else sheet.authors, sheet.authors)
        for sheet in drawn
    ]


@pytest.mark.parametrize("count", [4, 5, 8])
def test_voters_who_take_the_first_flip_with_the_order(count: int) -> None:
    """Those who were shown the same order agree, those with the other one never do."""
    ids = [f"m{number}" for number in range(count)]
    by_place = tally(standing(ids), seen_by(ids, "place")).position
    assert (by_place.flip_rate, by_place.first_share) == (1, 1)
    assert by_place.baseline in (0, None)
    by_proposal = tally(standing(ids), seen_by(ids, "proposal")).position
    assert by_proposal.flip_rate == 0
    assert by_proposal.baseline in (0, None)


def test_position_bias_by_hand() -> None:
    """Three see a first, of whom one prefers b; one sees b first and prefers a."""
    ballots = [vote("v", "ab", "ab"), vote("w", "ab", "ab"), vote("x", "ba", "ab"), vote("y", "ab", "ba")]
    position = outcome("ab", ballots).position
    assert (position.flip_rate, position.baseline, position.first_share) == (0.333333, 0.666667, 0.5)
    assert (position.pairs, position.comparisons) == (1, 4)


def test_honest_disagreement_shows_in_the_baseline_too() -> None:
    """Voters who draw lots disagree as often in one order as between two."""
    lots = random.Random(5)
    ids = [f"m{number}" for number in range(24)]
    ballots = [
        vote(sheet.voter, lots.sample(sheet.authors, len(sheet.authors)), sheet.authors)
        for sheet in sheets(ids, ids, "salt").values()
    ]
    position = tally(standing(ids), ballots).position
    assert position.pairs == 24 * 23 / 2
    assert position.flip_rate == pytest.approx(0.5, abs=0.05)
    assert position.baseline == pytest.approx(0.5, abs=0.05)
    assert position.first_share == pytest.approx(0.5, abs=0.05)
