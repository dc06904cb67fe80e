"""What an item came to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.council.answer import Answer
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import ItemResult
from tasks.council.models import Deliberation, DeliberationRequest, MemberStatus, Status
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ItemProgress, NextStage
from tasks.council.progress.result import item_result
from tasks.council.proposal import Proposal, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COUNCIL = CouncilSpec(
    name="dev",
    strategy="propose",
    members=tuple(Member(agent_id=f"agent-{letter}", role="DEV", model="small") for letter in "abc"),
)
PLAN = Deliberation.plan("d", DeliberationRequest(task="Write a queue"), COUNCIL)
ITEM = PLAN.agenda[0]
LONG = "Write the queue with care. " * 30


def answer(agent_id: str, status: MemberStatus = MemberStatus.OK, content: str = LONG, engine: str = "vllm") -> Answer:
    """A member's answer; a cut one ends by its length."""
    finish = "stop" if status is MemberStatus.OK else "length"
    proposal = Proposal(
        author_id=agent_id, author_role="DEV", content=content, model="m", tokens=5, finish_reason=finish
    )
    return Answer(
        task_id="d",
        item=ITEM.id,
        stage="propose-0",
        agent_id=agent_id,
        role="DEV",
        status=status,
        proposal=None if status is MemberStatus.FAILED else proposal,
        error=None if status is MemberStatus.OK else "went wrong",
        duration_ms=7,
        usage=Usage(prompt_tokens=2, completion_tokens=3),
        model="m",
        engine=engine,
        num_agents=3,
        timestamp=NOW,
    )


def result(*answers: Answer, status: Status = Status.COMPLETED, reason: str | None = None) -> ItemResult:
    """The result of these answers; the council has three members."""
    progress = ItemProgress(PLAN, ITEM)
    progress.enter("propose-0", NextStage(tuple(member.agent_id for member in COUNCIL.members)))
    for one in answers:
        progress.take(one)
    return item_result(progress, Verdict(status, reason=reason), 1234, NOW)


def test_the_best_proposal_of_a_completed_item_is_its_decision() -> None:
    """With everything that stands around it."""
    done = result(answer("agent-a", content="short"), answer("agent-b"), answer("agent-c", content="brief"))
    assert (done.winner_id, done.decision) == ("agent-b", LONG)
    assert [one.rank for one in done.results] == [1, 2, 3]
    assert (done.received_count, done.failed_count, done.total_agents) == (3, 0, 3)
    assert (done.degraded, done.headline, done.error_message) == (False, "3 of 3", None)
    assert done.usage == Usage(prompt_tokens=6, completion_tokens=9)
    assert (done.id, done.item, done.council, done.duration_ms, done.completed_at) == (
        "d",
        "task",
        "dev",
        1234,
        NOW,
    )


def test_a_truncated_proposal_is_shown_behind_and_never_wins() -> None:
    """However good it looks."""
    done = result(answer("agent-a", MemberStatus.TRUNCATED), answer("agent-b", content="x"))
    assert [(one.rank, one.proposal.author_id) for one in done.results] == [(1, "agent-b"), (2, "agent-a")]
    assert done.winner_id == "agent-b"
    assert (done.received_count, done.failed_count, done.headline) == (1, 2, "1 of 3: degraded")


def test_answers_without_a_usable_text_are_not_ranked() -> None:
    """Neither failed ones nor a cut one that held only thinking."""
    done = result(
        answer("agent-a"),
        answer("agent-b", MemberStatus.FAILED),
        answer("agent-c", MemberStatus.TRUNCATED, ""),
    )
    assert [one.proposal.author_id for one in done.results] == ["agent-a"]


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.FAILED, Status.CANCELLED])
def test_an_item_that_was_not_completed_has_proposals_and_no_decision(status: Status) -> None:
    """What was received is carried, and nobody wins."""
    done = result(answer("agent-a"), status=status, reason="because")
    assert (done.winner_id, done.decision, done.error_message) == (None, None, "because")
    assert [one.proposal.author_id for one in done.results] == ["agent-a"]
    assert done.degraded


@pytest.mark.parametrize(
    ("status", "missing"),
    [
        (Status.COMPLETED, MemberStatus.TIMEOUT),
        (Status.TIMEOUT, MemberStatus.TIMEOUT),
        (Status.FAILED, MemberStatus.CANCELLED),
        (Status.CANCELLED, MemberStatus.CANCELLED),
    ],
)
def test_members_are_listed_in_the_councils_order_also_without_an_answer(status: Status, missing: MemberStatus) -> None:
    """Each with its status and a reason."""
    done = result(answer("agent-c", MemberStatus.FAILED), answer("agent-a"), status=status)
    assert [(one.agent_id, one.status) for one in done.members] == [
        ("agent-a", MemberStatus.OK),
        ("agent-b", missing),
        ("agent-c", MemberStatus.FAILED),
    ]
    assert [bool(one.reason) for one in done.members] == [False, True, True]


def test_an_answer_of_somebody_else_does_not_count() -> None:
    """Only members of the council do."""
    done = result(answer("agent-a"), answer("stranger"))
    assert (done.received_count, done.failed_count, len(done.results)) == (1, 2, 1)


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        (["vllm", "vllm"], "vllm"),
        (["vllm", "simulator"], "simulator"),
        (["vllm", "openai"], "openai,vllm"),
        (["vllm", "unknown"], "vllm"),
        (["unknown"], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_engine_says_what_produced_the_answers(engines: list[str], expected: str) -> None:
    """One simulated answer makes the whole a rehearsal."""
    members = ("agent-a", "agent-b", "agent-c")
    done = result(*(answer(member, engine=engine) for member, engine in zip(members, engines, strict=False)))
    assert done.engine == expected


def test_an_item_in_progress_has_what_came_so_far() -> None:
    """Nobody is missing yet, nothing is decided."""
    done = result(answer("agent-a"), answer("agent-c", MemberStatus.FAILED), status=Status.IN_PROGRESS)
    assert (done.status, done.degraded, done.winner_id, done.decision) == (Status.IN_PROGRESS, False, None, None)
    assert (done.received_count, done.failed_count, len(done.results)) == (1, 1, 1)
    assert [one.agent_id for one in done.members] == ["agent-a", "agent-c"]
