"""What an item came to, put together from its progress: ranking, outcomes, and who did not answer.

Only answers that are `ok` can win. Truncated ones with a text are shown behind them, so that nothing that
was received is dropped, and a member without an answer is named with what became of it. Nothing is made up:
without COMPLETED there is no winner and no decision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from tasks.council.answer import Answer
from tasks.council.closed_answers import answer_of
from tasks.council.council import Member
from tasks.council.decisions import DecidedBy, ItemResult, MemberOutcome, StageCost, StageOutcome, Synthesis
from tasks.council.engines import engine_of
from tasks.council.models import MemberStatus, Status
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ENDED_EARLY, LATE, Decided, ItemProgress
from tasks.council.prompts.synthesize import MAX_SOURCES
from tasks.council.proposal import Usage
from tasks.council.stages import PROPOSAL, SYNTHESIZE, kind_of
from tasks.council.voting.firmness import Firmness, firmness_of

_MISSING = {
    Status.COMPLETED: (MemberStatus.TIMEOUT, "no answer before the council decided"),
    Status.TIMEOUT: (MemberStatus.TIMEOUT, "no answer before the deadline"),
    Status.FAILED: (MemberStatus.CANCELLED, "stopped: the quorum could not be reached any more"),
    Status.CANCELLED: (MemberStatus.CANCELLED, "stopped: the deliberation was cancelled"),
}
"""What became of a member without an answer, by the item's status."""


def item_result(
    progress: ItemProgress, verdict: Verdict, duration_ms: int, completed_at: datetime | None
) -> ItemResult:
    """The result of an item; while it is in progress what came so far, without members that have not answered."""
    plan, final, completed = progress.plan, verdict.status.final, verdict.status is Status.COMPLETED
    first, given = progress.first, _given(progress)
    asked = len(progress.asked)
    received = sum(answer.status is MemberStatus.OK for answer in first.values())
    decided = progress.decided()
    synthesis = _synthesis(progress, decided)
    decision = _decision(progress, decided, synthesis) if completed else NO_DECISION
    stages = _costs(progress, completed)
    unread = _answers_short(progress, completed)
    short = [unread, *_short(progress, stages)]
    return ItemResult(
        id=plan.id,
        item=progress.item.id,
        task=progress.item.task,
        status=verdict.status,
        degraded=final and (received < asked or any(short)),
        council=plan.council.name,
        engine=engine_of(answer.engine for answer in given),
        strategy=plan.strategy,
        rounds=plan.rounds,
        total_agents=asked,
        received_count=received,
        failed_count=(asked if final else len(first)) - received,
        not_asked=len(plan.council.members) - asked,
        results=decided.ranked,
        members=_outcomes(progress, verdict, duration_ms),
        decided_by=decision.by,
        answer=decision.answer,
        majority=decided.majority,
        ballots=decided.ballots if completed else None,
        firmness=_firmness(progress, decision.by),
        answers_short=unread,
        synthesis=synthesis,
        stages=stages,
        winner_id=decision.winner_id,
        decision=decision.text,
        error_message=None if completed else verdict.reason,
        duration_ms=duration_ms,
        usage=_usage(given),
        completed_at=completed_at,
    )


def _short(progress: ItemProgress, stages: Iterable[StageCost]) -> list[str]:
    """What of the stages could not be had."""
    late = [LATE] if LATE in progress.skipped.values() else []
    return [*late, *filter(None, (stage.short for stage in stages))]


def _given(progress: ItemProgress) -> list[Answer]:
    return list(chain.from_iterable(stage.values() for stage in progress.answers.values()))


def _usage(answers: Iterable[Answer]) -> Usage:
    return sum((answer.usage for answer in answers), Usage())


class _Decision(NamedTuple):
    """Whose proposal won, the text that is the decision, what it was decided by, and its closed answer."""

    winner_id: str | None
    text: str | None
    by: DecidedBy | None
    answer: str | None


NO_DECISION = _Decision(None, None, None, None)


def _decision(progress: ItemProgress, decided: Decided, synthesis: Synthesis | None) -> _Decision:
    """What a completed item came to: the text of the synthesis where one was written, else the first proposal's."""
    if not progress.candidates():
        return NO_DECISION
    winner, by, text = decided.ranked[0].proposal, decided.by, decided.ranked[0].proposal.content
    if synthesis and synthesis.content:
        by, text = "synthesis", synthesis.content
    form = progress.item.answer_format
    return _Decision(winner.author_id, text, by, answer_of(text, form) if text and form else None)


def _firmness(progress: ItemProgress, by: DecidedBy | None) -> Firmness | None:
    """How firm a decision by ballots or by a vote is; None for any other, and without a decision."""
    case = progress.case() if by in ("ballots", "majority") else None
    return firmness_of(case) if case else None


def _answers_short(progress: ItemProgress, completed: bool) -> str | None:
    """How many of the closed answers can be read, where it is fewer than half of them once an item is completed."""
    answers = progress.closed_answers() or {}
    read = sum(answer is not None for answer in answers.values())
    few = completed and 2 * read < len(answers)
    return f"{read} of {len(answers)} answers readable" if few else None


def _synthesis(progress: ItemProgress, decided: Decided) -> Synthesis | None:
    """The chairman's answer, where there is one."""
    given = next(iter(progress.answers.get(SYNTHESIZE, {}).values()), None)
    if given is None:
        return None
    whole = given.proposal if given.status is MemberStatus.OK else None
    return Synthesis(
        chairman_id=given.agent_id,
        status=given.status,
        reason=given.error,
        content=whole.content if whole else None,
        model=given.model,
        sources=tuple(progress.best_first(decided))[:MAX_SOURCES],
    )


def _costs(progress: ItemProgress, completed: bool) -> tuple[StageCost, ...]:
    """The stages in their order; of an item that was not completed those that have begun."""
    return tuple(_cost(progress, stage) for stage in progress.plan.stages if completed or stage in progress.answers)


def _cost(progress: ItemProgress, stage: str) -> StageCost:
    given = progress.answers.get(stage, {}).values()
    return StageCost(
        stage=stage,
        called=len(progress.called.get(stage, ())),
        ok=sum(answer.status is MemberStatus.OK for answer in given),
        duration_ms=max((answer.duration_ms for answer in given), default=0),
        usage=_usage(given),
        skipped=progress.skipped.get(stage) or (None if stage in progress.answers else progress.agreed()),
        ended_early=progress.early.get(stage),
        unneeded=sum(answer.error_type == ENDED_EARLY for answer in given),
    )


def _outcomes(progress: ItemProgress, verdict: Verdict, duration_ms: int) -> tuple[MemberOutcome, ...]:
    """What became of each member; while an item is in progress of those that have answered."""
    members = progress.plan.council.members
    shown = [member for member in members if verdict.status.final or member.agent_id in progress.first]
    return tuple(_outcome(progress, member, verdict, duration_ms) for member in shown)


def _outcome(progress: ItemProgress, member: Member, verdict: Verdict, duration_ms: int) -> MemberOutcome:
    first = progress.first.get(member.agent_id)
    mine = {stage: given[member.agent_id] for stage, given in progress.answers.items() if member.agent_id in given}
    status, reason = _status(progress, member, verdict)
    return MemberOutcome(
        agent_id=member.agent_id,
        role=member.role,
        status=status,
        reason=reason,
        duration_ms=_taken_ms(mine.values(), status, duration_ms),
        usage=_usage(mine.values()),
        model=first.model if first else member.model,
        stages={
            stage: StageOutcome(status=answer.status, reason=answer.error)
            for stage, answer in mine.items()
            if kind_of(stage) != PROPOSAL
        },
    )


def _status(progress: ItemProgress, member: Member, verdict: Verdict) -> tuple[MemberStatus, str | None]:
    """What became of a member's proposal, and why there is none."""
    if first := progress.first.get(member.agent_id):
        return first.status, first.error
    if member.agent_id not in progress.asked:
        return MemberStatus.NOT_ASKED, None
    return _MISSING[verdict.status]


def _taken_ms(answers: Collection[Answer], status: MemberStatus, item_ms: int) -> int:
    """How long a member was at work; on an answer that never came, as long as the item took."""
    if answers or status is MemberStatus.NOT_ASKED:
        return sum(answer.duration_ms for answer in answers)
    return item_ms
