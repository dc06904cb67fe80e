"""What comes back from members: answers as they stand on the record, with what they cost."""

from __future__ import annotations

import hashlib
from datetime import datetime

from tasks.council.base import Frozen, Name
from tasks.council.models import MemberStatus
from tasks.council.proposal import Proposal, Usage
from tasks.council.voting.ballots import Review


class Answer(Frozen):
    """A member's one final answer to one item in one stage, as it stands on JetStream."""

    task_id: Name
    item: Name
    stage: Name
    agent_id: Name
    role: str
    status: MemberStatus
    proposal: Proposal | None = None
    ballot: Review | None = None
    error: str | None = None
    error_type: str | None = None
    duration_ms: int = 0
    usage: Usage = Usage()
    model: str | None = None
    engine: str = "unknown"
    diversity: bool = False
    num_agents: int
    timestamp: datetime

    @property
    def id(self) -> str:
        """Identity that does not depend on the attempt."""
        return answer_id(self.task_id, self.item, self.stage, self.agent_id)


class Attempt(Frozen):
    """One failed attempt at a model call; never final."""

    task_id: Name
    item: Name
    stage: Name
    agent_id: Name
    role: str
    attempt: int
    error: str
    error_type: str
    duration_ms: int
    engine: str = "unknown"
    timestamp: datetime


def answer_id(deliberation: str, item: str, stage: str, agent_id: str) -> str:
    """`deliberation:item:stage:member`: the answer's event id and the `X-Request-Id` of its model call."""
    return f"{deliberation}:{item}:{stage}:{agent_id}"


def seed_of(call_id: str) -> int:
    """Sampling seed of a call, 0 to 2^31 - 1, so that the same call asks for the same text."""
    return int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:4], "big") >> 1
