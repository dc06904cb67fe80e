"""What an item came to, put together from the record: ranking, outcomes, and who did not answer.

Only answers that are `ok` can win. Truncated ones with a text are shown behind them, so that nothing that
was received is dropped, and a member without an answer is named with what became of it. Nothing is made up:
without COMPLETED there is no winner and no decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from tasks.council.checks import rank_proposals
from tasks.council.decisions import Ballots, ItemResult, MemberOutcome, RankedProposal
from tasks.council.models import Deliberation, Item, Member, MemberStatus, Status
from tasks.council.proposals import Answer, Usage
from tasks.council.rules import Verdict
from tasks.council.stages import REVIEW
from tasks.council.tally import Candidate, Tally, tally

SIMULATOR = "simulator"
UNKNOWN = "unknown"
UNUSABLE = (MemberStatus.INVALID, MemberStatus.TRUNCATED, MemberStatus.EMPTY)
"""Of a ballot: it came, and cannot be counted."""
ENDED_EARLY = "EndedEarly"
"""Type of the error of a ballot that was not waited for, because it could not change the winner."""

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
    *,
    reviews: Mapping[str, Answer] | None = None,
    skipped: str | None = None,
) -> ItemResult:
    """The result of an item whose verdict is final; `answers` are by member, as are `reviews`, the ballots.

    `reviews` is None where none were asked for; `skipped` says why not, with a strategy that has them.
    """
    if not verdict.status.final:
        raise ValueError(f"verdict: {verdict.status.value} is not final, so {item.id!r} has no result")
    council = deliberation.council
    recorded = [answers[member.agent_id] for member in council.members if member.agent_id in answers]
    received = sum(answer.status is MemberStatus.OK for answer in recorded)
    ranked = _ranked(recorded, item, deliberation.id)
    ballots = None
    if REVIEW in deliberation.stages and verdict.status is Status.COMPLETED:
        ballots = _ballots(_eligible(ranked, answers), reviews or {}, skipped)
        ranked = _by_votes(ranked, ballots.tally)
    winner = _winner(ranked, recorded, verdict)
    lacking = ballots is not None and ballots.counted < ballots.expected and not ballots.ended_early
    spent = [*recorded, *(reviews or {}).values()]
    return ItemResult(
        id=deliberation.id,
        item=item.id,
        task=item.task,
        status=verdict.status,
        degraded=received < len(council.members) or lacking,
        council=council.name,
        engine=engine_of(recorded),
        strategy=deliberation.strategy,
        total_agents=len(council.members),
        received_count=received,
        failed_count=len(council.members) - received,
        results=ranked,
        members=tuple(
            _outcome(one, answers.get(one.agent_id), (reviews or {}).get(one.agent_id), verdict, duration_ms)
            for one in council.members
        ),
        ballots=ballots,
        winner_id=winner.proposal.author_id if winner else None,
        decision=winner.proposal.content if winner else None,
        error_message=None if verdict.status is Status.COMPLETED else verdict.reason,
        duration_ms=duration_ms,
        usage=sum((answer.usage for answer in spent), Usage()),
        completed_at=completed_at,
    )


def candidates(deliberation: Deliberation, item: Item, answers: Mapping[str, Answer]) -> tuple[Candidate, ...]:
    """The proposals that can win, in the order of the checks, which breaks every tie of a tally."""
    return _eligible(_ranked(list(answers.values()), item, deliberation.id), answers)


def _eligible(ranked: Iterable[RankedProposal], answers: Mapping[str, Answer]) -> tuple[Candidate, ...]:
    """Of the proposals by rank those whose answer is ok."""
    ok = {agent_id for agent_id, answer in answers.items() if answer.status is MemberStatus.OK}
    return tuple(Candidate(one.proposal.author_id, one.score) for one in ranked if one.proposal.author_id in ok)


def _ballots(eligible: tuple[Candidate, ...], reviews: Mapping[str, Answer], skipped: str | None) -> Ballots:
    """The tally of the ballots that are valid; without any the order of the checks stands."""
    given = list(reviews.values())
    valid = [answer.ballot for answer in given if answer.ballot]
    unneeded = next((answer.error for answer in given if answer.error_type == ENDED_EARLY), None)
    discarded = sum(answer.status in UNUSABLE for answer in given)
    outcome = tally(eligible, valid, discarded=discarded)
    return Ballots(expected=len(given), counted=len(valid), ended_early=skipped or unneeded, tally=outcome)


def _by_votes(ranked: tuple[RankedProposal, ...], outcome: Tally) -> tuple[RankedProposal, ...]:
    """The proposals in the order of the tally; those that could not win stay behind."""
    place = {author: rank for rank, author in enumerate(outcome.order, 1)}
    told = [
        one.model_copy(update={"rank": place[one.proposal.author_id], "votes": outcome.scores[one.proposal.author_id]})
        if one.proposal.author_id in place
        else one
        for one in ranked
    ]
    return tuple(sorted(told, key=lambda one: one.rank))


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


def _outcome(
    member: Member, answer: Answer | None, review: Answer | None, verdict: Verdict, duration_ms: int
) -> MemberOutcome:
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
        duration_ms=answer.duration_ms + (review.duration_ms if review else 0),
        usage=answer.usage + (review.usage if review else Usage()),
        model=answer.model,
        ballot=review.status if review else None,
        ballot_reason=review.error if review else None,
    )
