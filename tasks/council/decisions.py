"""What a council came to: one item's result, as decisions on the record and `result --json` carry it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.council.base import Frozen, Name
from tasks.council.models import MemberStatus, Status
from tasks.council.proposal import RankedProposal, Usage
from tasks.council.stages import PROPOSAL, REVIEW, REVISE, SECOND_SAMPLE, SYNTHESIZE, kind_of
from tasks.council.voting.firmness import Firmness
from tasks.council.voting.majority import Majority
from tasks.council.voting.tally import Tally
from tasks.council.voting.worth import BallotWorth

DecidedBy = Literal["checks", "majority", "ballots", "synthesis"]
_NOUNS = {REVIEW: "ballots", REVISE: "revisions"}


class StageOutcome(Frozen):
    """What became of a member's answer in a stage after the first."""

    status: MemberStatus
    reason: str | None


class MemberOutcome(Frozen):
    """What became of one member's proposal, in words a reader can act on; time and tokens are of all its stages."""

    agent_id: Name
    role: str
    status: MemberStatus
    reason: str | None
    duration_ms: int
    usage: Usage
    model: str | None
    stages: dict[Name, StageOutcome] = Field({}, description="Its reviews, revisions and synthesis.")


class StageCost(Frozen):
    """What a stage took: who was called, how many answers can be used, and the longest of them.

    `skipped` says why nobody was called, `ended_early` why the others were not waited for; `unneeded` are those others.
    """

    stage: Name
    called: int
    ok: int
    duration_ms: int
    usage: Usage
    skipped: str | None = None
    ended_early: str | None = None
    unneeded: int = 0

    @property
    def short(self) -> str | None:
        """What is missing, where something is: `2 of 3 ballots`. What was not waited for is not missing."""
        if self.ok + self.unneeded == self.called:
            return None
        if self.stage == SECOND_SAMPLE:
            return "no second sample"
        if kind_of(self.stage) == PROPOSAL:
            return None  # told of the members, who may have been asked in several waves
        if self.stage == SYNTHESIZE:
            return "no synthesis"
        return f"{self.ok} of {self.called} {_NOUNS.get(kind_of(self.stage), 'answers')}"


class Ballots(Frozen):
    """How the last review went: how many were asked for and counted, why no more, what they say and are worth."""

    expected: int
    counted: int
    ended_early: str | None = Field(None, description="Why the others were not waited for, or none asked for.")
    tally: Tally
    worth: BallotWorth | None = Field(None, description="Of those that compare anything, against chance.")
    set_aside: str | None = Field(None, description="Why the vote of closed answers decided in their place.")


class Synthesis(Frozen):
    """What the chairman wrote, from the proposals of `sources`; without a content the best proposal stands."""

    chairman_id: Name
    status: MemberStatus
    reason: str | None
    content: str | None
    model: str | None
    sources: tuple[Name, ...]


class ItemResult(Frozen):
    """One item: what `decisions.<id>.<item>` carries and the HTTP API answers, before its end as far as it is."""

    id: Name
    item: Name
    task: str
    status: Status
    degraded: bool
    council: Name
    engine: str
    strategy: str
    rounds: int = 0
    total_agents: int = Field(description="Members that were asked.")
    received_count: int
    failed_count: int
    not_asked: int = Field(0, description="Members whose answers nobody needed.")
    results: tuple[RankedProposal, ...]
    members: tuple[MemberOutcome, ...]
    decided_by: DecidedBy | None = Field(None, description="None where nothing was decided.")
    answer: str | None = Field(None, description="The closed answer, where the task has an `answer_format`.")
    majority: Majority | None = Field(None, description="The vote of closed answers.")
    ballots: Ballots | None = Field(None, description="Of the last review, where the strategy ends with one.")
    firmness: Firmness | None = Field(None, description="Of a decision by ballots or by the vote of closed answers.")
    answers_short: str | None = Field(
        None, description="How many closed answers can be read, where it is fewer than half: `1 of 3 answers readable`."
    )
    synthesis: Synthesis | None = None
    stages: tuple[StageCost, ...] = ()
    winner_id: Name | None
    decision: str | None
    error_message: str | None
    duration_ms: int
    usage: Usage
    completed_at: datetime | None

    @property
    def headline(self) -> str:
        """Who answered, never dressed up: `3 of 3`, `2 of 3: degraded`, or `1 of 1 asked, council of 5`."""
        short = filter(None, (self.answers_short, *(stage.short for stage in self.stages)))
        asked = f" asked, council of {self.total_agents + self.not_asked}" if self.not_asked else ""
        count = ", ".join([f"{self.received_count} of {self.total_agents}{asked}", *short])
        return f"{count}: degraded" if self.degraded else count
