"""How firm a decision is, against elections that are held again by hand."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.voting.ballots import sheets
from tasks.council.voting.deciding import FOLLOW, Case
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.firmness import MAX_LOOKED_AT, Firmness, firmness_of
from tasks.council.voting.rules.registry import RULES
from tasks.council.voting.tally import tally
from tasks.council.voting.worth import worth_of
from tests.conftest import cases
from tests.tasks.council.elections import councils, standing, vote

Answers = dict[str, str | None]


def without(ballot: Ballot, member: str) -> Ballot:
    """The ballot of somebody who was not shown that proposal."""
    shown, ranking = ([one for one in ids if one != member] for ids in (ballot.shown, ballot.ranking))
    return vote(ballot.voter, ranking, shown)


def firmness(case: Case) -> Firmness:
    """Of a decision that rests on votes."""
    found = firmness_of(case)
    assert found is not None
    return found


# --- open tasks -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=cases(60, each=20))
@given(council=councils(), rule=st.sampled_from(list(RULES)))
def test_firmness_is_what_comes_of_holding_the_election_again(
    council: tuple[list[Candidate], list[Ballot]], rule: str
) -> None:
    """Without each ballot, without each member but the winner, and by each other rule."""
    candidates, ballots = council
    found = firmness_of(Case(tuple(candidates), tuple(ballots), None, rule, 1))
    counted = [ballot.voter for ballot in ballots if ballot.compares]
    assert (found is None) is (not counted)
    if found is None or len(counted) == 1:
        assert found is None or found.unknown == "there was only one voter"
        return
    winner = tally(candidates, ballots, rule).winner
    voters = {one: tally(candidates, [b for b in ballots if b.voter != one], rule).winner for one in counted}
    members = {}
    for gone in (one.id for one in candidates if one.id != winner):
        rest = [one for one in candidates if one.id != gone]
        members[gone] = tally(rest, [without(b, gone) for b in ballots if b.voter != gone], rule).winner
    rules = {other: tally(candidates, ballots, other).winner for other in RULES if other != rule}
    assert found.without_voter == {name: other for name, other in voters.items() if other != winner}
    assert found.without_member == {name: other for name, other in members.items() if other != winner}
    assert found.by_rule == {name: other for name, other in rules.items() if other != winner}
    assert (found.voters, found.members, found.rules) == (len(counted), len(candidates) - 1, len(RULES) - 1)
    assert Firmness.model_validate_json(found.model_dump_json()) == found


def test_a_council_of_one_mind_holds_and_one_of_halves_does_not() -> None:
    """Seven for one order; or four for the one and three for the other, of whom nobody may stay away."""
    ids = "abcdefg"
    agreed = tuple(vote(voter, ids.replace(voter, "")) for voter in ids)
    assert firmness(Case(tuple(standing(ids)), agreed, None, "borda", 1)).holds
    halves = tuple(vote(f"v{number}", "ab" if number < 2 else "ba", "ab") for number in range(3))
    found = firmness(Case(tuple(standing("ab")), halves, None, "borda", 1))
    assert found.without_voter == {}
    tied = firmness(Case(tuple(standing("ba")), halves, None, "borda", 1))
    assert tied.without_voter == {"v0": "b", "v1": "b"}


def test_a_large_council_is_not_looked_at() -> None:
    """And the result says so."""
    ids = [f"m{number:03d}" for number in range(MAX_LOOKED_AT + 1)]
    ballots = tuple(vote(voter, [one for one in ids if one != voter]) for voter in ids)
    found = firmness(Case(tuple(standing(ids)), ballots, None, "borda", 1))
    assert found == Firmness(unknown=f"there are more than {MAX_LOOKED_AT} proposals")
    assert (found.voters, found.members, found.rules) == (0, 0, 0)


def test_nothing_hangs_on_votes_that_nobody_cast() -> None:
    """The checks decided."""
    assert firmness_of(Case(tuple(standing("abc")), (), None, "borda", 1)) is None
    assert firmness_of(Case(tuple(standing("abc")), (), dict.fromkeys("abc"), "borda", 1)) is None


# --- closed tasks ---------------------------------------------------------------------------------


def decided(candidates: list[Candidate], ballots: list[Ballot], answers: Answers, heard: set[str]) -> str:
    """The answer of a closed task, or the author of a text without one, by the rules as the documentation has them."""
    counted = [ballot for ballot in ballots if ballot.compares]
    order = tally(candidates, ballots).order
    votes: dict[str, int] = {}
    for one in heard:
        if (answer := answers[one]) is not None:
            votes[answer] = votes.get(answer, 0) + 1
    most = [answer for answer, count in votes.items() if count == max(votes.values())]
    worth = worth_of(counted, 1)
    listed = [one.id for one in candidates]
    fit = worth and not worth.follows_order and worth.agrees
    if fit or not votes:
        first = order[0]
    else:
        by_ballots = worth and not worth.follows_order and len(most) > 1
        ranked = order if by_ballots else listed
        first = next(one for one in ranked if one in heard and answers[one] in most)
    return answers[first] or first


@st.composite
def closed(draw: st.DrawFn) -> tuple[list[Candidate], list[Ballot], Answers]:
    """A council with closed answers, of whom some are of one mind."""
    candidates, ballots = draw(councils(least=3, most=5))
    ids = [one.id for one in candidates]
    if draw(st.booleans()):
        ballots = [
            vote(
                one,
                [other for other in ids[::-1] if other != one],
                draw(st.permutations([other for other in ids if other != one])),
            )
            for one in ids
        ]
    answers = {one: draw(st.sampled_from(["yes", "no", "yes", "no", "maybe", None])) for one in ids}
    return candidates, ballots, answers


@settings(deadline=None, max_examples=cases(40, each=100))
@given(closed())
def test_a_closed_task_is_decided_and_firm_by_the_same_rules(
    council: tuple[list[Candidate], list[Ballot], Answers],
) -> None:
    """By ballots that are worth something, else by the vote; what changes is an answer."""
    candidates, ballots, answers = council
    case = Case(tuple(candidates), tuple(ballots), answers, "borda", 1)
    everybody = set(answers)
    stands = decided(candidates, ballots, answers, everybody)
    first = case.ruling().order[0]
    assert stands == case.outcome() == (answers[first] or first)
    found = firmness_of(case)
    if found is None:
        assert not any(answers.values())
        return
    voters = {b.voter for b in ballots if b.compares} | {one for one in answers if answers[one]}
    without_voter = {
        one: decided(candidates, [b for b in ballots if b.voter != one], answers, everybody - {one}) for one in voters
    }
    assert found.without_voter == {one: other for one, other in without_voter.items() if other != stands}
    for gone in everybody - {first}:
        rest = [one for one in candidates if one.id != gone]
        left = [without(b, gone) for b in ballots if b.voter != gone]
        other = decided(rest, left, {one: answers[one] for one in answers if one != gone}, everybody - {gone})
        assert found.without_member.get(gone, stands) == other
    assert found.voters == len(voters)


def test_ballots_that_follow_the_order_do_not_decide() -> None:
    """Five of five that put first what they were shown first."""
    ids = "abcde"
    ballots = tuple(vote(sheet.voter, sheet.authors, sheet.authors) for sheet in sheets(ids, ids, "salt").values())
    answers = {"a": "no", "b": "yes", "c": "yes", "d": "yes", "e": "no"}
    case = Case(tuple(standing(ids)), ballots, answers, "borda", 1)
    ruling = case.ruling()
    assert (ruling.by, ruling.order[0], ruling.set_aside) == ("majority", "b", FOLLOW)
    tied = replace(case, answers={**answers, "d": None}).ruling()
    assert tied.vote is not None
    assert (tied.order[0], tied.vote.tied, tied.vote.by) == ("a", True, "checks")
