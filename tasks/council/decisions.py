"""What a council came to: one item's result, as decisions carry it and the HTTP API answers it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tasks.council.models import Frozen, MemberStatus, Name, Status
from tasks.council.proposals import Proposal, Usage
from tasks.council.tally import Tally


class Check(Frozen):
    """One deterministic check of a proposal: `score` is 0 to 1, `evidence` says what was seen."""

    name: str
    passed: bool
    score: float = Field(ge=0, le=1)
    weight: float = Field(gt=0)
    evidence: str


class RankedProposal(Frozen):
    """A proposal with its rank (1 is best): `score` is the checks' weighted mean, `votes` the tally's, both 0 to 1."""

    proposal: Proposal
    score: float
    votes: float | None = None
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
    ballot: MemberStatus | None = Field(None, description="What became of its ballot, where it was asked for one.")
    ballot_reason: str | None = None


class Ballots(Frozen):
    """How the ballots went: how many were asked for and counted, why no more, and what they say."""

    expected: int
    counted: int
    ended_early: str | None = Field(None, description="Why the others were not waited for.")
    tally: Tally


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
    ballots: Ballots | None = Field(None, description="With the strategy rank; else the checks decided.")
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
        if self.ballots and self.ballots.counted < self.ballots.expected and not self.ballots.ended_early:
            count += f", {self.ballots.counted} of {self.ballots.expected} ballots"
        return f"{count}: degraded" if self.degraded else count
