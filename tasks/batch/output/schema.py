"""The columns of an output, written down: every row has all of them, whatever became of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from tasks.batch.output.rows import RowResult
from tasks.council.base import MAX_INTEGER
from tasks.council.decisions import ItemResult, MemberOutcome
from tasks.council.plain import sound
from tasks.council.proposal import RankedProposal

PROPOSAL = pa.struct(
    {
        "author_id": pa.string(),
        "author_role": pa.string(),
        "rank": pa.int64(),
        "score": pa.float64(),
        "votes": pa.float64(),
        "model": pa.string(),
        "content": pa.string(),
        "tokens": pa.int64(),
    }
)
BALLOT = pa.struct({"voter": pa.string(), "ranking": pa.list_(pa.string())})
"""A voter, and the authors that it ranked, best first."""
MEMBER = pa.struct({"agent_id": pa.string(), "status": pa.string(), "reason": pa.string()})

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "row": pa.int64(),
        "line": pa.int64(),
        "item_id": pa.string(),
        "deliberation_id": pa.string(),
        "status": pa.string(),
        "degraded": pa.bool_(),
        "decided_by": pa.string(),
        "decision": pa.string(),
        "answer": pa.string(),
        "winner_id": pa.string(),
        "error": pa.string(),
        "members": pa.int64(),
        "asked": pa.int64(),
        "received": pa.int64(),
        "calls": pa.int64(),
        "winner_score": pa.float64(),
        "agreement": pa.float64(),
        "vote_share": pa.float64(),
        "usage_prompt_tokens": pa.int64(),
        "usage_completion_tokens": pa.int64(),
        "usage_total_tokens": pa.int64(),
        "duration_ms": pa.int64(),
        "council": pa.string(),
        "council_digest": pa.string(),
        "strategy": pa.string(),
        "model": pa.string(),
        "engine": pa.string(),
        "copied_from": pa.string(),
        "completed_at": pa.timestamp("us", tz="UTC"),
        "key": pa.string(),
        "proposals": pa.list_(PROPOSAL),
        "ballots": pa.list_(BALLOT),
        "members_status": pa.list_(MEMBER),
    }
)
NESTED = ("proposals", "ballots", "members_status")
LARGE = ("decision", "error", *NESTED)
"""Columns of long texts, of which no two are alike."""
Record = dict[str, Any]
_EMPTY: Record = {**dict.fromkeys(SCHEMA.names), **{name: [] for name in NESTED}}


def record_of(row: RowResult) -> Record:
    """A row by columns, in sound text and whole numbers of 64 bits, whatever a model wrote."""
    result = row.result
    record = _EMPTY | {
        "id": sound(row.id),
        "row": row.row,
        "line": row.line,
        "key": sound(row.key),
        "item_id": _text(row.item_id),
        "deliberation_id": _text(row.deliberation_id),
        "council_digest": _text(row.council_digest),
        "copied_from": _text(row.copied_from),
        "status": sound(row.status),
        "error": _text(row.error),
    }
    return record if result is None else record | _of_result(result, row.error)


def table_of(records: Iterable[Record]) -> pa.Table:
    """Records as a table of the schema."""
    return pa.Table.from_pylist(list(records), schema=SCHEMA)


def characters_of(record: Record) -> int:
    """Of all the text of a record that can be long."""
    inside = sum(len(proposal["content"]) for proposal in record["proposals"])
    reasons = sum(len(member["reason"] or "") for member in record["members_status"])
    return len(record["decision"] or "") + len(record["error"] or "") + inside + reasons


def _of_result(result: ItemResult, error: str | None) -> Record:
    return {
        "status": str(result.status),
        "degraded": result.degraded,
        "decided_by": result.decided_by,
        "decision": _text(result.decision),
        "answer": _text(result.answer),
        "winner_id": result.winner_id,
        "error": _text(result.error_message if error is None else error),
        "members": result.total_agents + result.not_asked,
        "asked": result.total_agents,
        "received": result.received_count,
        "calls": sum(stage.called for stage in result.stages),
        **_figures(result),
        "usage_prompt_tokens": _whole(result.usage.prompt_tokens),
        "usage_completion_tokens": _whole(result.usage.completion_tokens),
        "usage_total_tokens": _whole(result.usage.prompt_tokens + result.usage.completion_tokens),
        "duration_ms": _whole(result.duration_ms),
        "council": result.council,
        "strategy": sound(result.strategy),
        "model": _text(_model(result)),
        "engine": sound(result.engine),
        "completed_at": result.completed_at,
        "proposals": [_proposal(one) for one in result.results],
        "ballots": _ballots(result),
        "members_status": [_member(one) for one in result.members],
    }


def _figures(result: ItemResult) -> Record:
    """The winner's score, Kendall's W of the ballots, and the share of the proposals that give the decided answer."""
    tally, majority = result.ballots and result.ballots.tally, result.majority
    share = None
    if majority is not None:
        share = len(majority.votes[majority.answer]) / (majority.read + len(majority.silent))
    return {
        "winner_score": _finite(_winner_score(result)),
        "agreement": _finite(tally.agreement) if tally else None,
        "vote_share": share,
    }


def _winner(result: ItemResult) -> RankedProposal | None:
    return next((one for one in result.results if one.proposal.author_id == result.winner_id), None)


def _winner_score(result: ItemResult) -> float | None:
    """The votes of ballots where there were some, else the score of the checks."""
    winner = _winner(result)
    if winner is None:
        return None
    return winner.score if winner.votes is None else winner.votes


def _model(result: ItemResult) -> str | None:
    """Who wrote the decision."""
    if result.decided_by == "synthesis" and result.synthesis:
        return result.synthesis.model
    winner = _winner(result)
    return winner.proposal.model if winner else None


def _proposal(one: RankedProposal) -> Record:
    proposal = one.proposal
    return {
        "author_id": proposal.author_id,
        "author_role": sound(proposal.author_role),
        "rank": one.rank,
        "score": _finite(one.score),
        "votes": _finite(one.votes),
        "model": sound(proposal.model),
        "content": sound(proposal.content),
        "tokens": _whole(proposal.tokens),
    }


def _ballots(result: ItemResult) -> list[Record]:
    ranks = result.ballots.tally.ranks if result.ballots else {}
    return [{"voter": voter, "ranking": _best_first(ranks[voter])} for voter in ranks]


def _best_first(ranks: dict[str, int]) -> Sequence[str]:
    return sorted(ranks, key=ranks.__getitem__)


def _member(one: MemberOutcome) -> Record:
    return {"agent_id": one.agent_id, "status": str(one.status), "reason": _text(one.reason)}


def _text(text: str | None) -> str | None:
    return None if text is None else sound(text)


def _whole(number: int) -> int:
    return max(-MAX_INTEGER, min(number, MAX_INTEGER))


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
