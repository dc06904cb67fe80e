"""The course of an item: what stands, who is called next, and what it comes to in the end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.council.answer import Answer
from tasks.council.closed_answers import Choice
from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest, MemberStatus, Status
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ENDED_EARLY, ItemProgress, NextStage
from tasks.council.progress.result import item_result
from tasks.council.proposal import Proposal, Usage
from tasks.council.report.wording import missing_in_words, statuses
from tasks.council.stages import stages_of
from tasks.council.voting.ballots import Opinion, Review, Score

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = "Write the queue with care. " * 30
MEMBERS = tuple(Member(agent_id=f"m{number}", role="DEV") for number in (1, 2, 3))
YES_NO = Choice(options=("yes", "no"))


def begun(strategy: str = "rank", rounds: int = 0, members: int = 3, **fields: Any) -> ItemProgress:
    """A course whose members are called for their proposals."""
    council = CouncilSpec(name="c", members=MEMBERS[:members])
    request = DeliberationRequest(task="Write a queue", strategy=strategy, rounds=rounds, **fields)
    plan = Deliberation.plan("d", request, council)
    progress = ItemProgress(plan, plan.agenda[0])
    progress.enter("propose-0", NextStage(tuple(member.agent_id for member in council.members)))
    return progress


def answer(stage: str, agent_id: str, status: MemberStatus = MemberStatus.OK, **fields: Any) -> Answer:
    """A final answer."""
    told = {"task_id": "d", "item": "task", "stage": stage, "agent_id": agent_id, "role": "DEV", "status": status}
    told |= {"error": None if status is MemberStatus.OK else "went wrong", "num_agents": 3, "timestamp": NOW}
    return Answer.model_validate({**told, "usage": Usage(prompt_tokens=10, completion_tokens=2), **fields})


def text(stage: str, agent_id: str, content: str = GOOD, revisions: tuple[str, ...] = ()) -> Answer:
    """A text that counts."""
    proposal = Proposal(
        author_id=agent_id, author_role="DEV", content=content, model="m", tokens=2, finish_reason="stop"
    ).model_copy(update={"revisions": revisions})
    return answer(stage, agent_id, proposal=proposal, duration_ms=100)


def vote(stage: str, voter: str, *ranking: str) -> Answer:
    """A ballot on all of the ranking, with an opinion on each."""
    opinion = Opinion(scores={"clarity": Score(score=5, reason="plain")}, critique="Say more.")
    opinions = dict.fromkeys(ranking, opinion)
    ballot = Review(voter=voter, shown=ranking, ranking=ranking, order="forward", opinions=opinions)
    return answer(stage, voter, ballot=ballot, duration_ms=200)


def go_on(progress: ItemProgress, stage: str, *answers: Answer) -> NextStage:
    """Take answers, then enter the next stage as the collector does; who is called for it."""
    for one in answers:
        assert progress.take(one)
    next_stage = progress.next_stage(progress.plan.next_stage(stage) or "")
    progress.enter(progress.plan.next_stage(stage) or "", next_stage)
    return next_stage


def ended(progress: ItemProgress) -> Any:
    """The result of a course that is completed."""
    return item_result(progress, Verdict(Status.COMPLETED), 1000, NOW)


def proposals(*contents: str) -> list[Answer]:
    """One of each member."""
    return [text("propose-0", f"m{number}", content) for number, content in enumerate(contents, 1)]


@pytest.mark.parametrize(
    ("strategy", "rounds", "stages"),
    [
        ("propose", 0, "propose-0"),
        ("propose", 1, "propose-0 review-0 revise-1"),
        ("rank", 0, "propose-0 review-0"),
        ("rank", 2, "propose-0 review-0 revise-1 review-1 revise-2 review-2"),
        ("synthesize", 0, "propose-0 review-0 synthesize"),
        ("synthesize", 1, "propose-0 review-0 revise-1 review-1 synthesize"),
    ],
)
def test_the_stages_of_each_strategy(strategy: Any, rounds: int, stages: str) -> None:
    """A review judges the texts of the revision with its number."""
    assert " ".join(stages_of(strategy, rounds)) == stages


def test_a_round_of_revision_and_a_synthesis() -> None:
    """Authors revise their own text, earlier ones are kept, and the chairman's text is the decision."""
    progress = begun("synthesize", rounds=1)
    assert set(go_on(progress, "propose-0", *proposals(GOOD, GOOD, GOOD)).called) == {"m1", "m2", "m3"}
    votes = [vote("review-0", "m1", "m2", "m3"), vote("review-0", "m2", "m1", "m3"), vote("review-0", "m3", "m2", "m1")]
    assert set(go_on(progress, "review-0", *votes).called) == {"m1", "m2", "m3"}
    revised = [text("revise-1", one, f"{GOOD} Better.", (GOOD,)) for one in ("m1", "m2")]
    cut = answer("revise-1", "m3", MemberStatus.TRUNCATED)
    assert set(go_on(progress, "revise-1", *revised, cut).called) == {"m1", "m2", "m3"}
    assert {author: one.stage for author, one in progress.standing().items()} == {
        "m1": "revise-1",
        "m2": "revise-1",
        "m3": "propose-0",
    }
    again = [vote("review-1", "m1", "m2", "m3"), vote("review-1", "m3", "m2", "m1")]
    early = answer("review-1", "m2", MemberStatus.CANCELLED, error="settled", error_type=ENDED_EARLY)
    assert go_on(progress, "review-1", *again, early).called == ("m1",)
    assert next(iter(progress.closing("review-1", NextStage(("m1",)), 1).proposals.items())) == ("m2", "revise-1")
    progress.take(text("synthesize", "m1", "The decision."))
    done = ended(progress)
    assert (done.decision, done.decided_by, done.winner_id) == ("The decision.", "synthesis", "m2")
    assert done.results[0].proposal.revisions == (GOOD,)
    assert (done.synthesis.chairman_id, done.synthesis.sources[0]) == ("m1", "m2")
    assert [(one.stage, one.called, one.ok) for one in done.stages] == [
        ("propose-0", 3, 3),
        ("review-0", 3, 3),
        ("revise-1", 3, 2),
        ("review-1", 3, 2),
        ("synthesize", 1, 1),
    ]
    assert (done.degraded, done.headline) == (True, "3 of 3, 2 of 3 revisions: degraded")
    assert done.ballots.ended_early == "settled"
    assert done.members[0].stages.keys() == {"review-0", "revise-1", "review-1", "synthesize"}
    assert done.usage.prompt_tokens == 10 * 13


@pytest.mark.parametrize("status", [MemberStatus.FAILED, MemberStatus.TIMEOUT, MemberStatus.TRUNCATED])
def test_without_a_synthesis_the_best_proposal_stands(status: MemberStatus) -> None:
    """And the result says so."""
    progress = begun("synthesize")
    go_on(progress, "propose-0", *proposals("one", GOOD, "three"))
    ballots = (("m1", "m3", "m2"), ("m2", "m3", "m1"), ("m3", "m1", "m2"))
    go_on(progress, "review-0", *(vote("review-0", *ballot) for ballot in ballots))
    progress.take(answer("synthesize", "m1", status))
    done = ended(progress)
    assert (done.decision, done.decided_by, done.degraded) == ("three", "ballots", True)
    assert done.headline == "3 of 3, no synthesis: degraded"
    assert (done.synthesis.status, done.synthesis.content) == (status, None)


def test_closed_answers_that_agree_need_no_review() -> None:
    """The majority decides, and every later stage says why it was not held."""
    progress = begun("synthesize", rounds=1, answer_format=YES_NO)
    for one in proposals(f"{GOOD}\nANSWER: yes", "ANSWER: Yes", "ANSWER: YES."):
        progress.take(one)
    assert progress.agreed() == "all 3 proposals give the same answer: yes"
    done = ended(progress)
    assert (done.answer, done.decided_by, done.degraded) == ("yes", "majority", False)
    assert {one.skipped for one in done.stages[1:]} == {"all 3 proposals give the same answer: yes"}
    assert done.ballots.ended_early == progress.agreed()


def test_closed_answers_that_differ_are_decided_by_the_majority_without_ballots() -> None:
    """Whatever the checks say; one that cannot be read comes last."""
    progress = begun("propose", answer_format=YES_NO)
    for one in proposals(f"{GOOD}\nANSWER: yes", "ANSWER: no", "ANSWER: no"):
        progress.take(one)
    done = ended(progress)
    assert (done.answer, done.decided_by, done.winner_id in {"m2", "m3"}) == ("no", "majority", True)
    assert done.results[-1].proposal.author_id == "m1"
    assert progress.agreed() is None


def test_three_ballots_on_closed_answers_are_not_asked_for() -> None:
    """They could not be told from lots, so the vote decides; where it is tied they tell the answers apart."""
    progress = begun("rank", answer_format=YES_NO)
    next_stage = go_on(progress, "propose-0", *proposals("ANSWER: yes", "ANSWER: no", "ANSWER: no"))
    assert next_stage.called == ()
    assert (
        next_stage.skipped
        == "so few ballots could be drawn lots, whatever they say, and the vote of the answers decides"
    )
    done = ended(progress)
    assert (done.answer, done.decided_by, done.degraded) == ("no", "majority", False)
    progress = begun("rank", answer_format=Choice(options=("a", "b", "c")))
    assert len(go_on(progress, "propose-0", *proposals("ANSWER: a", "ANSWER: b", "ANSWER: c")).called) == 3
    for ballot in (("m1", "m3", "m2"), ("m2", "m3", "m1"), ("m3", "m1", "m2")):
        progress.take(vote("review-0", *ballot))
    done = ended(progress)
    assert (done.winner_id, done.answer, done.decided_by) == ("m3", "c", "majority")
    assert (done.majority.tied, done.majority.by) == (True, "ballots")
    assert done.ballots.set_aside == "so few ballots could be drawn lots, whatever they say"


def test_few_answers_that_can_be_read_are_no_full_vote() -> None:
    """One of three is degraded, and none at all too; two of three are not."""
    for contents, headline in (
        (("ANSWER: yes", "Well.", "Perhaps."), "3 of 3, 1 of 3 answers readable: degraded"),
        (("Hm.", "Well.", "Perhaps."), "3 of 3, 0 of 3 answers readable: degraded"),
        (("ANSWER: yes", "ANSWER: no", "Perhaps."), "3 of 3"),
    ):
        progress = begun("propose", answer_format=YES_NO)
        for one in proposals(*contents):
            progress.take(one)
        done = ended(progress)
        assert (done.headline, done.degraded) == (headline, headline != "3 of 3")


def test_one_proposal_has_nobody_to_judge_or_to_revise_it() -> None:
    """Every further stage is passed, with its reason."""
    progress = begun("synthesize", rounds=1)
    failed = [answer("propose-0", one, MemberStatus.FAILED) for one in ("m2", "m3")]
    next_stage = go_on(progress, "propose-0", text("propose-0", "m1"), *failed)
    for stage in progress.plan.stages[1:-1]:
        assert next_stage == NextStage((), "there is only one proposal")
        next_stage = go_on(progress, stage)
    done = ended(progress)
    assert (done.decided_by, done.synthesis, done.headline) == ("checks", None, "1 of 3: degraded")


def test_two_authors_criticise_and_synthesise_though_they_cannot_rank() -> None:
    """A last review of two would compare nothing; one that feeds a revision is worth its critiques."""
    progress = begun("synthesize", rounds=1, members=2)
    assert set(go_on(progress, "propose-0", *proposals(GOOD, GOOD)).called) == {"m1", "m2"}
    votes = (vote("review-0", "m1", "m2"), vote("review-0", "m2", "m1"))
    assert set(go_on(progress, "review-0", *votes).called) == {"m1", "m2"}
    revised = [text("revise-1", one, GOOD, (GOOD,)) for one in ("m1", "m2")]
    next_stage = go_on(progress, "revise-1", *revised)
    assert (next_stage.called, next_stage.skipped) == ((), "the outstanding ballots compare nothing")
    assert go_on(progress, "review-1").called == ("m1",)


def test_without_a_critique_nobody_revises() -> None:
    """The review before it brought no ballot."""
    progress = begun("rank", rounds=1)
    go_on(progress, "propose-0", *proposals(GOOD, GOOD, GOOD))
    invalid = [answer("review-0", member.agent_id, MemberStatus.INVALID) for member in MEMBERS]
    assert go_on(progress, "review-0", *invalid) == NextStage((), "no critique could be counted")
    assert set(go_on(progress, "revise-1").called) == {"m1", "m2", "m3"}
    assert "0 of 3 ballots" in ended(progress).headline


def test_a_review_for_critiques_is_not_ended_early() -> None:
    """The last one is, once the lead cannot be overtaken."""
    last, feeding = begun("rank"), begun("rank", rounds=1)
    for progress in (last, feeding):
        go_on(progress, "propose-0", *proposals(GOOD, "b", "c"))
        for ballot in (vote("review-0", "m2", "m1", "m3"), vote("review-0", "m3", "m1", "m2")):
            progress.take(ballot)
    assert "m1 cannot be overtaken" in (last.early_end("review-0") or "")
    assert feeding.early_end("review-0") is None


def test_a_ballot_that_failed_is_not_excused_by_an_early_end() -> None:
    """Only what was not waited for is not missing."""
    progress = begun("rank")
    go_on(progress, "propose-0", *proposals(GOOD, "b", "c"))
    progress.take(answer("review-0", "m2", MemberStatus.TRUNCATED))
    progress.take(vote("review-0", "m3", "m1", "m2"))
    settled = progress.early_end("review-0")
    assert settled
    progress.take(answer("review-0", "m1", MemberStatus.CANCELLED, error=settled, error_type=ENDED_EARLY))
    done = ended(progress)
    assert (done.degraded, done.headline) == (True, "3 of 3, 1 of 3 ballots: degraded")
    assert {one.agent_id: statuses(one, "review", done.stages) for one in done.members} == {
        "m1": "-",
        "m2": "truncated",
        "m3": "ok",
    }
    assert missing_in_words(done) == ["m2: review-0: went wrong"]


def test_a_course_is_read_again_from_its_answers() -> None:
    """The record tells the same result."""
    progress = begun("rank")
    go_on(progress, "propose-0", *proposals(GOOD, "b", "c"))
    early = answer("review-0", "m2", MemberStatus.CANCELLED, error="settled", error_type=ENDED_EARLY)
    for one in (vote("review-0", "m1", "m2", "m3"), vote("review-0", "m3", "m2", "m1"), early):
        progress.take(one)
    again = ItemProgress.read(progress.plan, progress.item, progress.answers)
    assert ended(again) == ended(progress)
    assert not again.take(early)
