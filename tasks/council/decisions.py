"""What a council came to: one item's result, as decisions carry it and the HTTP API answers it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tasks.council.models import Frozen, MemberStatus, Name, Status
from tasks.council.proposals import Proposal, Usage


class Check(Frozen):
    """One deterministic check of a proposal: `score` is 0 to 1, `evidence` says what was seen."""

    name: str
    passed: bool
    score: float = Field(ge=0, le=1)
    weight: float = Field(gt=0)
    evidence: str


class RankedProposal(Frozen):
    """A proposal with its score (0 to 1, weighted mean of its checks) and rank (1 is best)."""

    proposal: Proposal
    score: float
    rank: int
    checks: tuple[Check, ...]


class MemberOutcome(Frozen):
    """What became of one member, in words a reader can act on."""

    agent_id: Name
    role: str
    status: MemberStatus
    reason: str | None
    duration_ms: int
    usage: Usage
    model: str | None


class ItemResult(Frozen):
    """One decided item: what `decisions.<id>.<item>` carries and the HTTP API answers."""

    id: Name
    item: Name
    task: str
    status: Status
    degraded: bool
    council: Name
    engine: str
    strategy: str
    total_agents: int
    received_count: int
    failed_count: int
    results: tuple[RankedProposal, ...]
    members: tuple[MemberOutcome, ...]
    winner_id: Name | None
    decision: str | None
    error_message: str | None
    duration_ms: int
    usage: Usage
    completed_at: datetime

    @property
    def headline(self) -> str:
        """Who answered, never dressed up: `3 of 3` or `2 of 3: degraded`."""
        count = f"{self.received_count} of {self.total_agents}"
        return f"{count}: degraded" if self.degraded else count
