"""What decides an item: ballots that are worth something, the vote of closed answers, or the checks; and when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.answer import Answer
from tasks.council.closed_answers import Choice
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import ItemResult
from tasks.council.models import Deliberation, DeliberationRequest, MemberStatus
from tasks.council.progress.item import ENDED_EARLY, ItemProgress, NextStage
from tasks.council.report.wording import firmness_in_words, how_decided, in_words
from tasks.council.voting.ballots import sheets
from tasks.council.voting.election import Ballot
from tests.conftest import cases
from tests.tasks.council.elections import completions
from tests.tasks.council.test_course import answer, ended, go_on, proposals, vote

OPTIONS = Choice(options=("yes", "no", "maybe"))


def council_of(answers: Sequence[str | None], **fields: Any) -> ItemProgress:
    """A council whose members have answered a closed task so, None for what cannot be read."""
    members = tuple(Member(agent_id=f"m{number}", role="DEV") for number in range(1, len(answers) + 1))
    closed = {"answer_format": OPTIONS} if fields.pop("closed", True) else {}
    strategy = fields.pop("strategy", "rank")
    request = DeliberationRequest(task="Is it so?", strategy=strategy, **closed)
    plan = Deliberation.plan("d", request, CouncilSpec(name="c", members=members, **fields))
    progress = ItemProgress(plan, plan.agenda[0])
    progress.enter("propose-0", NextStage(tuple(member.agent_id for member in members)))
    go_on(progress, "propose-0", *proposals(*(f"ANSWER: {one}" if one else "Hm." for one in answers)))
    return progress


def ballot(voter: str, ranking: Sequence[str], shown: Sequence[str]) -> Answer:
    """A ballot as it stands on the record, with what was shown in another order than that of the ranking."""
    whole = vote("review-0", voter, *shown)
    assert whole.ballot
    return whole.model_copy(update={"ballot": whole.ballot.model_copy(update={"ranking": tuple(ranking)})})


def reviewed(progress: ItemProgress, judge: str) -> ItemResult:
    """The result once all have reviewed: by the place in the list, by lots, or all for the first by name."""
    authors = progress.called["review-0"]
    lots = random.Random(4)
    for sheet in sheets(authors, authors, "salt").values():
        ranked = {
            "place": sheet.authors,
            "names": sorted(sheet.authors),
            "lots": lots.sample(sheet.authors, len(sheet.authors)),
        }[judge]
        assert progress.take(ballot(sheet.voter, ranked, sheet.authors))
    result: ItemResult = ended(progress)
    return result


# --- closed tasks ---------------------------------------------------------------------------------


def test_ballots_that_agree_decide_a_closed_task_against_the_vote() -> None:
    """They were asked for, and are worth something."""
    done = reviewed(council_of(["yes", "no", "no", "no", "no"]), "names")
    assert (done.decided_by, done.winner_id, done.answer) == ("ballots", "m1", "yes")
    assert done.majority is not None
    assert done.majority.answer == "no"
    assert done.ballots is not None
    assert done.ballots.set_aside is None
    assert how_decided(done) == "The proposal of m1, which the ballots put first."


@pytest.mark.parametrize(
    ("judge", "because"),
    [
        ("place", "the ballots follow the order in which proposals were shown"),
        ("lots", "the ballots agree no further than drawn lots often do"),
    ],
)
def test_ballots_that_are_worth_nothing_leave_a_closed_task_to_the_vote(judge: str, because: str) -> None:
    """And the result says why."""
    done = reviewed(council_of(["yes", "no", "no", "no", "yes"]), judge)
    assert (done.decided_by, done.answer) == ("majority", "no")
    assert done.ballots is not None
    assert done.ballots.set_aside == because
    assert f"3 of 5 proposals answer no, and of these the checks put it first, since {because}." in how_decided(done)
    assert all(entry.votes is not None for entry in done.results)


def test_ballots_that_follow_the_order_are_told_in_words() -> None:
    """How many of them."""
    done = reviewed(council_of(["yes", "no", "no", "no", "yes"]), "place")
    assert done.ballots is not None
    assert "Ballots follow the order in which proposals were shown: 5 of 5 put first what was shown first." in in_words(
        done.ballots
    )


def test_a_tied_vote_is_told_apart_by_ballots_that_follow_no_place() -> None:
    """By those that follow one it is left to the checks; either way one of the tied answers it is."""
    tied = ["yes", "no", "maybe", "yes", "no"]
    by_lots, by_place = (reviewed(council_of(tied), judge) for judge in ("lots", "place"))
    assert by_lots.majority is not None
    assert by_lots.ballots is not None
    assert (by_lots.decided_by, by_lots.majority.tied, by_lots.majority.by) == ("majority", True, "ballots")
    given = dict(zip(("m1", "m2", "m3", "m4", "m5"), tied, strict=True))
    first = next(one for one in by_lots.ballots.tally.order if given[one] != "maybe")
    assert (by_lots.winner_id, by_lots.answer) == (first, given[first])
    assert "the ballots put it first" in how_decided(by_lots)
    assert by_place.majority is not None
    assert (by_place.decided_by, by_place.majority.by) == ("majority", "checks")


def test_open_tasks_are_decided_by_ballots_whatever_they_are_worth() -> None:
    """The result says what they are worth."""
    done = reviewed(council_of(["yes", "no", "no", "no", "yes"], closed=False), "place")
    assert done.decided_by == "ballots"
    assert done.ballots is not None
    assert done.ballots.worth is not None
    assert (done.ballots.worth.first_shown, done.ballots.worth.follows_order, done.ballots.set_aside) == (5, True, None)


def test_the_same_record_gives_the_same_worth() -> None:
    """Whoever came first, live and after a crash; another deliberation draws other lots."""
    progress = council_of(["yes", "no", "no", "no", "yes"])
    done = reviewed(progress, "lots")
    backwards = {stage: dict(reversed(given.items())) for stage, given in progress.answers.items()}
    again = ended(ItemProgress.read(progress.plan, progress.item, backwards))
    assert (again.ballots, again.firmness, again.winner_id) == (done.ballots, done.firmness, done.winner_id)


# --- the end before the last ballot ---------------------------------------------------------------


@settings(deadline=None, max_examples=cases(30, each=200))
@given(data=st.data())
def test_a_review_of_a_closed_task_ends_early_only_where_the_decision_stands(data: st.DataObject) -> None:
    """Against every way in which the outstanding ballots could come."""
    given_answers = data.draw(st.lists(st.sampled_from(["yes", "no", "maybe", None]), min_size=3, max_size=4))
    progress = council_of(given_answers)
    authors = progress.called["review-0"]
    best_first = data.draw(st.permutations(authors))
    for voter in data.draw(st.permutations(authors))[: max(0, len(authors) - 2)]:
        shown = data.draw(st.permutations([one for one in authors if one != voter]))
        ranking = [one for one in best_first if one != voter] if data.draw(st.booleans()) else shown
        progress.take(ballot(voter, ranking, shown))
    _is_the_same_however_it_goes_on(progress, authors)


def _is_the_same_however_it_goes_on(progress: ItemProgress, authors: Sequence[str]) -> None:
    missing = [one for one in authors if one not in progress.answers["review-0"]]
    if not authors or progress.early_end("review-0") is None:
        return
    winners = {_winner_with(progress, more, missing) for more in completions(authors, missing)}
    assert len(winners) == 1


def _winner_with(progress: ItemProgress, more: Sequence[Ballot], missing: Sequence[str]) -> str:
    going_on = ItemProgress.read(progress.plan, progress.item, progress.answers)
    going_on.called["review-0"] = tuple(progress.called["review-0"])
    for one in more:
        going_on.take(ballot(one.voter, one.ranking, one.shown))
    case = going_on.case()
    assert case is not None
    return case.ruling().order[0]


@pytest.mark.parametrize("answers", [["yes", "no", "no"], ["yes", "yes", None], ["maybe", None, None]])
def test_ballots_that_are_not_asked_for_would_change_nothing(answers: list[str | None]) -> None:
    """Whatever the three had ranked."""
    progress = council_of(answers)
    assert progress.called["review-0"] == ()
    case = progress.case()
    assert case is not None
    ids = [candidate.id for candidate in case.candidates]
    winners = {replace(case, ballots=tuple(more)).ruling().order[0] for more in completions(ids, ids)}
    assert winners == {case.ruling().order[0]}


def test_ballots_are_asked_for_where_a_chairman_reads_their_critiques() -> None:
    """Though three cannot decide a closed task; where nothing follows they are needless."""
    for strategy, called in (("synthesize", 3), ("rank", 0)):
        progress = council_of(["yes", "no", "no"], strategy=strategy)
        assert len(progress.called["review-0"]) == called


def test_a_lead_against_the_vote_does_not_end_a_review() -> None:
    """The ballots that are missing may be what makes the others worth nothing; with the vote it does."""
    members = ("m1", "m2", "m3", "m4", "m5")
    for ends in (False, True):
        progress = council_of(["yes", "no", "no", "no", "no"])
        by_vote = progress.majority()
        assert by_vote is not None
        leader = by_vote.winner_id if ends else "m1"
        for voter in [one for one in members if one != leader]:
            others = [one for one in members if one not in (voter, leader)]
            progress.take(ballot(voter, [leader, *others], [*others, leader]))
        assert bool(progress.early_end("review-0")) is ends


# --- firmness -------------------------------------------------------------------------------------


def test_the_result_says_how_firm_it_is() -> None:
    """Of ballots that were counted; those that were not waited for are none."""
    progress = council_of(["yes"] * 2 + ["no"] * 3, closed=False)
    for number in (2, 3, 4, 5):
        others = [f"m{one}" for one in range(1, 6) if one != number]
        progress.take(ballot(f"m{number}", others, others[::-1]))
    settled = progress.early_end("review-0")
    assert settled
    progress.take(answer("review-0", "m1", MemberStatus.CANCELLED, error=settled, error_type=ENDED_EARLY))
    done = ended(progress)
    assert (done.firmness.voters, done.firmness.members, done.firmness.rules) == (4, 4, 2)
    assert firmness_in_words(done.firmness) == "Holds without any one voter or member, and under every tally rule."


def test_a_vote_of_answers_is_as_firm_as_its_votes() -> None:
    """Three to one can spare any; of three to two each of the three leaves a tie, which the checks break."""
    done = ended(council_of(["no", "no", "no", "yes", None]))
    assert (done.decided_by, done.firmness.without_voter, done.firmness.without_member) == ("majority", {}, {})
    assert firmness_in_words(done.firmness) == "Holds without any one voter or member."
    progress = council_of(["no", "no", "yes", "yes", "yes"])
    order = [candidate.id for candidate in progress.candidates()]
    expected = {}
    for gone in ("m3", "m4", "m5"):
        first = next(one for one in order if one != gone)
        if first in ("m1", "m2"):
            expected[gone] = "no"
    assert ended(progress).firmness.without_voter == expected
    assert expected or order[0] not in ("m1", "m2")


def test_what_the_checks_decided_has_no_firmness() -> None:
    """Nobody voted."""
    done = ended(council_of([None, None, None]))
    assert (done.decided_by, done.firmness) == ("checks", None)


# --- the council's tally rule ---------------------------------------------------------------------


def test_a_council_tallies_by_its_own_rule() -> None:
    """An election in which Borda and Copeland differ."""
    authors = [f"m{number}" for number in range(1, 6)]
    winners = {}
    for rule in ("borda", "copeland", "schulze"):
        progress = council_of(["yes"] * 5, closed=False, tally=rule)
        for one in _split(authors):
            progress.take(one)
        done = ended(progress)
        assert done.ballots.tally.rule == rule
        winners[rule] = done.winner_id, done.firmness.by_rule
    assert winners == {
        "borda": ("m2", {"copeland": "m1", "schulze": "m1"}),
        "copeland": ("m1", {"borda": "m2"}),
        "schulze": ("m1", {"borda": "m2"}),
    }


def _split(authors: Sequence[str]) -> list[Answer]:
    """Most prefer m1 to every other one to one; m2 is nobody's last."""
    rankings = {
        "m1": ("m2", "m3", "m4", "m5"),
        "m2": ("m1", "m3", "m4", "m5"),
        "m3": ("m1", "m2", "m4", "m5"),
        "m4": ("m1", "m2", "m3", "m5"),
        "m5": ("m2", "m3", "m4", "m1"),
    }
    return [ballot(voter, rankings[voter], sorted(rankings[voter])) for voter in authors]


def test_an_answer_is_read_once() -> None:
    """Until another proposal comes."""
    progress = council_of(["yes", "no"])
    last = progress.answers["propose-0"].pop("m2")
    progress._ranked = progress._read = None
    before = progress.closed_answers()
    assert (before, progress.closed_answers() is before) == ({"m1": "yes"}, True)
    progress.take(last)
    assert progress.closed_answers() == {"m1": "yes", "m2": "no"}
