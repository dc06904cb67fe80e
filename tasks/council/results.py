"""What an item came to, put together from the record: ranking, outcomes, and who did not answer.

Only answers that are `ok` can win. Truncated ones with a text are shown behind them, so that nothing that
was received is dropped, and a member without an answer is named with what became of it. Nothing is made up:
without COMPLETED there is no winner and no decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from tasks.council.checks import rank_proposals
from tasks.council.decisions import ItemResult, MemberOutcome, RankedProposal
from tasks.council.models import Deliberation, Item, Member, MemberStatus, Status
from tasks.council.proposals import Answer, Usage
from tasks.council.rules import Verdict

SIMULATOR = "simulator"
UNKNOWN = "unknown"

_MISSING = {
    Status.COMPLETED: (MemberStatus.TIMEOUT, "no answer before the council decided"),
    Status.TIMEOUT: (MemberStatus.TIMEOUT, "no answer before the deadline"),
    Status.FAILED: (MemberStatus.CANCELLED, "stopped: the quorum could not be reached any more"),
    Status.CANCELLED: (MemberStatus.CANCELLED, "stopped: the deliberation was cancelled"),
}
"""What became of a member without an answer, by the item's status."""


def item_result(
    deliberation: Deliberation,
    item: Item,
    answers: Mapping[str, Answer],
    verdict: Verdict,
    duration_ms: int,
    completed_at: datetime,
) -> ItemResult:
    """The result of an item whose verdict is final; `answers` are by member."""
    if not verdict.status.final:
        raise ValueError(f"verdict: {verdict.status.value} is not final, so {item.id!r} has no result")
    council = deliberation.council
    recorded = [answers[member.agent_id] for member in council.members if member.agent_id in answers]
    received = sum(answer.status is MemberStatus.OK for answer in recorded)
    ranked = _ranked(recorded, item, deliberation.id)
    winner = _winner(ranked, recorded, verdict)
    return ItemResult(
        id=deliberation.id,
        item=item.id,
        task=item.task,
        status=verdict.status,
        degraded=received < len(council.members),
        council=council.name,
        engine=engine_of(recorded),
        strategy=deliberation.strategy,
        total_agents=len(council.members),
        received_count=received,
        failed_count=len(council.members) - received,
        results=ranked,
        members=tuple(_outcome(one, answers.get(one.agent_id), verdict, duration_ms) for one in council.members),
        winner_id=winner.proposal.author_id if winner else None,
        decision=winner.proposal.content if winner else None,
        error_message=None if verdict.status is Status.COMPLETED else verdict.reason,
        duration_ms=duration_ms,
        usage=sum((answer.usage for answer in recorded), Usage()),
        completed_at=completed_at,
    )


def engine_of(answers: Iterable[Answer]) -> str:
    """What produced the answers; one answer of the simulator makes the whole a rehearsal."""
    engines = {answer.engine for answer in answers} - {UNKNOWN}
    return SIMULATOR if SIMULATOR in engines else ",".join(sorted(engines)) or UNKNOWN


def _ranked(answers: Sequence[Answer], item: Item, salt: str) -> tuple[RankedProposal, ...]:
    """The ok proposals by rank, then the truncated ones that have a text, counted on."""
    ok, cut = (
        [one.proposal for one in answers if one.status is status and one.proposal and one.proposal.content]
        for status in (MemberStatus.OK, MemberStatus.TRUNCATED)
    )
    first = rank_proposals(ok, item, salt)
    rest = rank_proposals(cut, item, salt)
    return first + tuple(one.model_copy(update={"rank": one.rank + len(first)}) for one in rest)


def _winner(ranked: tuple[RankedProposal, ...], answers: Iterable[Answer], verdict: Verdict) -> RankedProposal | None:
    """The first proposal whose answer is ok; nobody where the item was not completed."""
    if verdict.status is not Status.COMPLETED:
        return None
    eligible = {answer.agent_id for answer in answers if answer.status is MemberStatus.OK}
    return next((one for one in ranked if one.proposal.author_id in eligible), None)


def _outcome(member: Member, answer: Answer | None, verdict: Verdict, duration_ms: int) -> MemberOutcome:
    if answer is None:
        status, reason = _MISSING[verdict.status]
        return MemberOutcome(
            agent_id=member.agent_id,
            role=member.role,
            status=status,
            reason=reason,
            duration_ms=duration_ms,
            usage=Usage(),
            model=member.model,
        )
    return MemberOutcome(
        agent_id=member.agent_id,
        role=member.role,
        status=answer.status,
        reason=answer.error,
        duration_ms=answer.duration_ms,
        usage=answer.usage,
        model=answer.model,
    )
