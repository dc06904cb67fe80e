"""What ballots are worth: the place in the list, and agreement, against chance."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.voting.ballots import sheets
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.worth import LEVEL, BallotWorth, at_least, first_shown_p, least_p, worth_of
from tests.conftest import cases
from tests.tasks.council.elections import councils, vote


def judged(count: int, judge: str, lots: random.Random | None = None) -> list[Ballot]:
    """A council that goes by the place in the list, by one order of the proposals, or draws lots."""
    ids = [f"m{number:03d}" for number in range(count)]
    drawn = sheets(ids, ids, "salt").values()
    ranked = {
        "place": lambda authors: authors,
        "proposal": sorted,
        "lots": lambda authors: (lots or random.Random(0)).sample(authors, len(authors)),
    }[judge]
    return [vote(sheet.voter, ranked(sheet.authors), sheet.authors) for sheet in drawn]


def worth(ballots: Iterable[Ballot], seed: int = 1) -> BallotWorth:
    """Of ballots of which one compares something."""
    found = worth_of(ballots, seed)
    assert found is not None
    return found


# --- the place ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=cases(50, each=4))
@given(st.lists(st.fractions(0, 1), max_size=7), st.integers(0, 8))
def test_the_sum_of_chances_is_that_of_all_ways_in_which_they_may_fall(chances: list[Fraction], count: int) -> None:
    """Every combination of events with its probability."""
    whole = Fraction(0)
    for happened in product((False, True), repeat=len(chances)):
        chance = Fraction(1)
        for one, does in zip(chances, happened, strict=True):
            chance *= one if does else 1 - one
        whole += chance * (sum(happened) >= count)
    assert at_least(count, [float(one) for one in chances]) == pytest.approx(float(whole), abs=1e-9)


@pytest.mark.parametrize("shown", [(2, 2, 2), (3, 3), (2, 3, 4)])
@pytest.mark.parametrize("followers", [0, 1, 2])
def test_the_place_is_held_against_ballots_that_put_a_random_one_first(shown: tuple[int, ...], followers: int) -> None:
    """Of all the ways to put one first, those with at least so many in the first place; nobody sees another's list."""
    lists = [[f"{voter}-{place}" for place in range(size)] for voter, size in enumerate(shown)]
    ballots = [
        vote(f"v{voter}", names if voter < followers else names[::-1], names) for voter, names in enumerate(lists)
    ]
    ways = [sum(place == 0 for place in places) for places in product(*(range(size) for size in shown))]
    share = sum(count >= followers for count in ways) / len(ways)
    assert first_shown_p(ballots) == pytest.approx(share)
    assert worth(ballots).first_shown == followers


@pytest.mark.parametrize("count", [4, 5, 8, 15])
def test_ballots_that_go_by_the_place_are_found_out(count: int) -> None:
    """From a council of four; of three, each sees two, and one time in eight all put the first one first."""
    found = worth(judged(count, "place"))
    assert (found.first_shown, found.of, found.follows_order) == (count, count, True)
    assert not worth(judged(3, "place")).follows_order


@pytest.mark.parametrize("count", range(3, 16))
def test_a_proposal_that_all_like_is_not_taken_for_its_place(count: int) -> None:
    """Though half of a council be shown it first: whichever proposal is the best, the others tell."""
    ids = [f"m{number:03d}" for number in range(count)]
    for best in ids:
        ballots = [
            vote(sheet.voter, sorted(sheet.authors, key=lambda one: (one != best, one)), sheet.authors)
            for sheet in sheets(ids, ids, "salt").values()
        ]
        assert not worth(ballots).follows_order


# --- agreement ------------------------------------------------------------------------------------


def exact_p(ballots: Sequence[Ballot]) -> float:
    """Of all ways to fill the ballots in, those whose mean shares spread as far."""

    def spread(rankings: Iterable[Sequence[str]]) -> Fraction:
        shares: dict[str, list[Fraction]] = {}
        for ranking in rankings:
            for place, one in enumerate(ranking):
                shares.setdefault(one, []).append(Fraction(len(ranking) - 1 - place, len(ranking) - 1))
        return sum((Fraction(sum(one), len(one)) - Fraction(1, 2)) ** 2 for one in shares.values())

    observed = spread([ballot.ranking for ballot in ballots])
    ways = [spread(rankings) >= observed for rankings in product(*(permutations(one.shown) for one in ballots))]
    return sum(ways) / len(ways)


@settings(deadline=None, max_examples=cases(20, each=100))
@given(councils(least=3, most=4, full=True), st.integers(0, 2**64))
def test_agreement_is_held_against_all_ways_to_fill_the_ballots_in(
    council: tuple[list[Candidate], list[Ballot]], seed: int
) -> None:
    """The draws come near to the share of all of them, and no share is below the least."""
    _, ballots = council
    exact, found = exact_p(ballots), worth(ballots, seed)
    assert found.agreement_p == pytest.approx(exact, abs=0.2)
    assert exact >= found.least_p - 1e-6
    assert found.agreement_p >= found.least_p - 1e-6


@pytest.mark.parametrize("count", [5, 7, 15, 40])
def test_a_council_of_one_mind_agrees(count: int) -> None:
    """Of three it cannot be told: three ballots form no cycle three times in four."""
    assert worth(judged(count, "proposal")).agrees
    three = worth(judged(3, "proposal"))
    assert (three.agrees, three.least_p) == (False, 0.25)
    assert three.agreement_p == pytest.approx(0.75, abs=0.15)


@pytest.mark.parametrize("count", [4, 7, 15])
def test_lots_are_taken_for_agreement_one_time_in_twenty(count: int) -> None:
    """Of 200 councils that draw lots; more than 20 would come once in ten thousand times."""
    lots = random.Random(count)
    found = [worth(judged(count, "lots", lots), seed) for seed in range(200)]
    assert sum(one.agrees for one in found) <= 20
    assert sum(one.follows_order for one in found) <= 20


@settings(deadline=None, max_examples=cases(30, each=20))
@given(councils(least=3), st.integers(0, 2**64), st.randoms())
def test_the_worth_of_ballots_does_not_depend_on_who_came_first(
    council: tuple[list[Candidate], list[Ballot]], seed: int, shuffler: random.Random
) -> None:
    """So it is the same live and when the record is read again; what compares nothing changes nothing."""
    _, ballots = council
    before = worth_of(ballots, seed)
    shuffler.shuffle(ballots)
    assert worth_of([*ballots, vote("mute", "", shown="ab")], seed) == before
    assert before is None or BallotWorth.model_validate_json(before.model_dump_json()) == before
    assert (before is None) == (not any(ballot.compares for ballot in ballots))


def test_too_few_ballots_cannot_tell() -> None:
    """One, two of three places, and three of two; three of three places can."""
    told = [least_p([], places) <= LEVEL for places in ([9], [3, 3], [2, 2, 2], [3, 3, 3])]
    assert told == [True, False, False, True]
    assert worth([vote("v", "abcdefg")]).agreement_p == 1
    assert least_p([], [127] * 128) == 0


@pytest.mark.parametrize(("shown", "ranked"), [("abc", 1), ("abcd", 1), ("abcd", 2), ("abcde", 1)])
def test_short_ballots_can_be_filled_in_in_fewer_ways(shown: str, ranked: int) -> None:
    """What stands in no place is tied: the least of two such ballots is one of all the ways, which chance comes to."""
    ways = set(permutations(shown, ranked))
    ballots = [vote(f"v{number}", shown[:ranked], shown) for number in range(2)]
    assert least_p(ballots) == pytest.approx(1 / len(ways) ** 2)
    assert least_p(ballots) >= least_p([], [len(shown)] * 2)
    assert worth(ballots).agreement_p >= least_p(ballots)


def test_the_time_of_worth(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed and not asserted, CPU time."""
    for count in (3, 7, 15, 32, 128):
        ballots = judged(count, "lots")
        start = time.process_time()
        worth(ballots)
        took = time.process_time() - start
        with capsys.disabled():
            print(f"\nworth of {count} x {count}: {took * 1000:.2f} ms", end="")
