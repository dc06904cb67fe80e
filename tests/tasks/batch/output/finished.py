"""Finished rows for tests, as the engine hands them over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.batch.output.rows import RowResult
from tasks.council.decisions import Ballots, ItemResult, MemberOutcome, StageCost
from tasks.council.models import MemberStatus, Status
from tasks.council.proposal import Proposal, RankedProposal, Usage
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.majority import Majority
from tasks.council.voting.tally import tally

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AUTHORS = ("a", "b", "c")


def ballots() -> Ballots:
    """Of three members, each of which ranked the two others by name."""
    shown = {voter: tuple(one for one in AUTHORS if one != voter) for voter in AUTHORS}
    given = [Ballot(voter=voter, shown=others, ranking=others) for voter, others in shown.items()]
    return Ballots(expected=3, counted=3, tally=tally([Candidate(one, 0.5) for one in AUTHORS], given))


BALLOTS = ballots()


def ranked(text: str) -> tuple[RankedProposal, ...]:
    """A proposal of each member, with the text."""
    made = [
        Proposal(author_id=author, author_role="DEV", content=text, model=f"m-{author}", tokens=5, finish_reason="stop")
        for author in AUTHORS
    ]
    scores = BALLOTS.tally.scores
    return tuple(
        RankedProposal(proposal=one, score=0.5, votes=scores[one.author_id], rank=rank, checks=())
        for rank, one in enumerate(made, 1)
    )


def member(agent_id: str, reason: str | None = None) -> MemberOutcome:
    """What became of a member."""
    status = MemberStatus.FAILED if reason else MemberStatus.OK
    usage = Usage(prompt_tokens=10, completion_tokens=5)
    return MemberOutcome(
        agent_id=agent_id, role="DEV", status=status, reason=reason, duration_ms=7, usage=usage, model=f"m-{agent_id}"
    )


def decided(text: str = "Do it.", at: int = 0, **other: Any) -> ItemResult:
    """The result of an item that three members decided by ballots, `at` seconds after the begin."""
    usage = Usage(prompt_tokens=30, completion_tokens=15, cached_tokens=4)
    stages = [StageCost(stage=stage, called=3, ok=3, duration_ms=7, usage=usage) for stage in ("propose-0", "review-0")]
    fields: dict[str, Any] = {
        "id": "d-1",
        "item": "i-1",
        "task": "What?",
        "status": Status.COMPLETED,
        "degraded": False,
        "council": "dev",
        "engine": "vllm",
        "strategy": "rank",
        "total_agents": 3,
        "received_count": 3,
        "failed_count": 0,
        "results": ranked(text),
        "members": tuple(map(member, AUTHORS)),
        "decided_by": "ballots",
        "ballots": BALLOTS,
        "stages": tuple(stages),
        "winner_id": "a",
        "decision": text,
        "error_message": None,
        "duration_ms": 1500,
        "usage": usage,
        "completed_at": BEGIN + timedelta(seconds=at),
    }
    return ItemResult(**{**fields, **other})


def failed(why: str = "agent-1 ran out of time after 30 s", at: int = 0) -> ItemResult:
    """The result of an item that nobody answered."""
    return decided(
        at=at,
        status=Status.TIMEOUT,
        results=(),
        members=tuple(member(author, "no answer") for author in AUTHORS),
        decided_by=None,
        ballots=None,
        winner_id=None,
        decision=None,
        received_count=0,
        failed_count=3,
        error_message=why,
    )


def voted(answer: str = "yes") -> ItemResult:
    """The result of a closed item, which two of three gave the same answer to."""
    majority = Majority(
        answer=answer, winner_id="a", votes={answer: ("a", "b")}, silent=("c",), unanimous=False, tied=False
    )
    return decided(answer=answer, decided_by="majority", majority=majority)


def row(number: int, result: ItemResult | None = None, **other: Any) -> RowResult:
    """A row with its number as its id; without a result one that was not asked."""
    fields: dict[str, Any] = {
        "id": f"id-{number}",
        "row": number,
        "line": number + 1,
        "key": f"{number:064x}",
        "item_id": f"id-{number}",
        "deliberation_id": "d-1" if result else None,
        "council_digest": "c" * 64 if result else None,
        "result": result,
    }
    return RowResult(**{**fields, **other})


def bad(number: int, **other: Any) -> RowResult:
    """A row that could not be asked."""
    return row(number, status="INVALID", error="task: is empty", key="", item_id=None, **other)
