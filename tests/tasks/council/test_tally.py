"""From ballots to an outcome."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, permutations, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.council.voting.ballots import sheets
from tasks.council.voting.early_end import decided_early
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.rules.registry import RULES
from tasks.council.voting.tally import Tally, tally
from tasks.council.voting.ties import Tie
from tests.conftest import cases


def standing(ids: Iterable[str]) -> list[Candidate]:
    """Candidates in the order of the checks, with scores that differ."""
    listed = list(ids)
    return [Candidate(one, 1 - number / 200) for number, one in enumerate(listed)]


def vote(voter: str, ranking: Iterable[str], shown: Iterable[str] | None = None) -> Ballot:
    """A ballot; without `shown` it ranks all that it was shown, in alphabetical order."""
    ranked = tuple(ranking)
    return Ballot(voter=voter, shown=tuple(sorted(ranked) if shown is None else shown), ranking=ranked)


def election(*blocs: tuple[int, str]) -> list[Ballot]:
    """Blocs of voters, who are no candidates, with their ranking."""
    rankings = [ranking for count, ranking in blocs for _ in range(count)]
    return [vote(f"voter-{number}", ranking) for number, ranking in enumerate(rankings)]


def outcome(ids: str, ballots: Iterable[Ballot], rule: str = "borda") -> Tally:
    """The tally of candidates that the checks put in the order given."""
    return tally(standing(ids), ballots, rule)


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
    for rule in RULES:
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
    for rule in RULES:
        result = outcome("mnck", ballots, rule)
        assert (result.winner, result.condorcet) == ("n", "n")
    assert outcome("mnck", ballots).scores == {
        "n": round(194 / 300, 6),
        "c": round(173 / 300, 6),
        "m": round(126 / 300, 6),
        "k": round(107 / 300, 6),
    }


# --- small councils -------------------------------------------------------------------------------


def test_a_council_of_one_has_its_proposal() -> None:
    """There is nothing to compare and nothing to measure."""
    for rule in RULES:
        result = outcome("a", [], rule)
        assert (result.winner, result.margin, result.agreement, result.condorcet) == ("a", None, None, None)
        assert decided_early(standing("a"), [], ["a"], rule) == "there is only one proposal"


def test_a_council_of_two_cannot_compare() -> None:
    """Each is shown one proposal, so the order of the checks stands and no ballot is counted."""
    for rule in RULES:
        result = outcome("ba", [vote("a", "b"), vote("b", "a")], rule)
        assert (result.order, result.ballots, result.abstained, result.margin) == (("b", "a"), 0, 2, 0)
        assert result.agreement is None
        assert decided_early(standing("ba"), [], ["a", "b"], rule) == "the outstanding ballots compare nothing"


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


def test_without_a_ballot_the_order_of_the_checks_stands() -> None:
    """And the result says how many were discarded."""
    for rule in RULES:
        result = tally([Candidate("b", 0.9), Candidate("a", 0.7), Candidate("c", 0.7)], [], rule, discarded=3)
        assert (result.order, result.ballots, result.discarded) == (("b", "a", "c"), 0, 3)
        assert result.ties == (Tie(candidates=("b", "a", "c"), broken_by="hash"),)
        assert result.position.first_share is None


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


@st.composite
def councils(
    draw: st.DrawFn, least: int = 1, most: int = 6, full: bool = False
) -> tuple[list[Candidate], list[Ballot]]:
    """Members who judge one another, and sometimes one who judges all; some vote in part, some not at all."""
    ids = [f"m{number}" for number in range(draw(st.integers(least, most)))]
    voters = [*ids, *(["guest"] if draw(st.booleans()) and not full else [])]
    ballots = []
    for voter in voters:
        shown = draw(st.permutations([one for one in ids if one != voter]))
        ranking = draw(st.permutations(shown))
        kept = len(ranking) if full else draw(st.integers(0, len(ranking)))
        if full or draw(st.integers(0, 4)):
            ballots.append(vote(voter, ranking[:kept], shown))
    ties = [Candidate(one, draw(st.sampled_from([0.2, 0.5, 0.8]))) for one in draw(st.permutations(ids))]
    return sorted(ties, key=lambda candidate: -candidate.score), ballots


@settings(deadline=None)
@given(councils(), st.sampled_from(list(RULES)), st.randoms())
def test_a_tally_is_sound_whatever_the_ballots(
    council: tuple[list[Candidate], list[Ballot]], rule: str, shuffler: random.Random
) -> None:
    """Everybody is in the order once, best score first, and the order of the ballots changes nothing."""
    candidates, ballots = council
    result = tally(candidates, ballots, rule)
    assert sorted(result.order) == sorted(one.id for one in candidates)
    assert list(result.scores) == list(result.order)
    scores = list(result.scores.values())
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert result.winner == result.order[0]
    assert result.ballots + result.abstained == len(ballots)
    position = result.position
    shares = (result.agreement, result.agreement_by_chance, position.flip_rate, position.baseline, position.first_share)
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert Tally.model_validate_json(result.model_dump_json()) == result
    shuffler.shuffle(ballots)
    again = tally(candidates, ballots, rule)
    assert again == result


@settings(deadline=None)
@given(councils(least=2), st.sampled_from(list(RULES)))
def test_equal_scores_are_in_the_order_of_the_checks_and_told(
    council: tuple[list[Candidate], list[Ballot]], rule: str
) -> None:
    """A tie names all that are in it, and only the hash can part what the checks did not."""
    candidates, ballots = council
    result = tally(candidates, ballots, rule)
    place = {candidate.id: number for number, candidate in enumerate(candidates)}
    checks = dict(candidates)
    tied = [one for tie in result.ties for one in tie.candidates]
    for first, second in pairwise(result.order):
        equal = any(first in tie.candidates and second in tie.candidates for tie in result.ties)
        assert equal is (result.scores[first] == result.scores[second])
        assert not equal or place[first] < place[second]
    assert len(tied) == len(set(tied))
    for tie in result.ties:
        assert (tie.broken_by == "checks") is (len({checks[one] for one in tie.candidates}) == len(tie.candidates))


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
@given(st.permutations("abcdef"), st.sampled_from(list(RULES)))
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


# --- the end before the last ballot ---------------------------------------------------------------


def completions(ids: Sequence[str], outstanding: Sequence[str]) -> Iterator[list[Ballot]]:
    """All that the outstanding voters may do: rank any number of the others in any order, or not vote."""
    choices = []
    for voter in outstanding:
        shown = [one for one in ids if one != voter]
        ranked = [ranking for count in range(1, len(shown) + 1) for ranking in permutations(shown, count)]
        choices.append([None, *(vote(voter, ranking, shown) for ranking in ranked)])
    for combination in product(*choices):
        yield [ballot for ballot in combination if ballot is not None]


@st.composite
def unfinished(draw: st.DrawFn) -> tuple[list[Candidate], list[Ballot], list[str]]:
    """A small council with some ballots there and one or two outstanding."""
    candidates, ballots = draw(councils(least=1, most=4))
    ids = [candidate.id for candidate in candidates]
    guests = draw(st.integers(0, 3))
    for number in range(guests):
        ranking = draw(st.permutations(ids))
        ballots.append(vote(f"guest-{number}", ranking[: draw(st.integers(0, len(ids)))], ranking))
    open_voters = [one for one in [*ids, "late"] if one not in {ballot.voter for ballot in ballots}]
    outstanding = draw(st.lists(st.sampled_from(open_voters), min_size=1, max_size=2, unique=True))
    return candidates, ballots, outstanding


@settings(deadline=None, max_examples=cases(150, each=10))
@given(unfinished(), st.sampled_from(list(RULES)))
def test_an_early_end_never_changes_the_winner(
    situation: tuple[list[Candidate], list[Ballot], list[str]], rule: str
) -> None:
    """Against every way in which the outstanding ballots could come; for borda it is told as soon as it is true."""
    candidates, ballots, outstanding = situation
    reason = decided_early(candidates, ballots, outstanding, rule)
    assume(reason is not None or rule == "borda")
    ids = [candidate.id for candidate in candidates]
    winners = {tally(candidates, [*ballots, *more], rule).winner for more in completions(ids, outstanding)}
    if reason is not None:
        assert winners == {tally(candidates, ballots, rule).winner}
    else:
        assert len(winners) > 1


def test_a_lead_that_cannot_be_overtaken_ends_the_review() -> None:
    """Seven members: with five ballots of one mind the last two can change nothing, with four they can."""
    ids = "abcdefg"
    agreed = [vote(voter, ids.replace(voter, "")) for voter in ids]
    for rule in RULES:
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
    for rule in RULES:
        start = time.process_time()
        result = tally(standing(ids), ballots, rule)
        took = time.process_time() - start
        with capsys.disabled():
            print(f"\n64 x 64 by {rule}: {took * 1000:.0f} ms", end="")
        assert result.position.comparisons == 64 * 63 * 62 / 2
