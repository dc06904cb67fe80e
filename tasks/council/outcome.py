"""What a deliberation came to: what its report, its state in Prefect and its last event are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from tasks.council.decisions import ItemResult
from tasks.council.models import MemberStatus, Status
from tasks.council.proposal import Usage

FULL_RESULTS = 20
"""Results that are kept whole for the report; of further items only the line in the table."""


@dataclass(frozen=True)
class ItemLine:
    """What the table of a report needs of one item."""

    item: str
    status: Status
    degraded: bool
    headline: str
    winner_id: str | None
    duration_ms: int


@dataclass
class Outcome:
    """What a deliberation came to, so far: bounded, however long the agenda."""

    lines: list[ItemLine] = field(default_factory=list)
    results: list[ItemResult] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failed_agents: set[str] = field(default_factory=set)
    answers: int = 0
    unneeded: int = 0
    """Answers of decided items that nobody was asked for: stages that were skipped, members without a part in them."""
    bar: UUID | None = None
    """The progress artifact, once there is one."""

    def add(self, result: ItemResult) -> None:
        """Count a decided item."""
        self.lines.append(
            ItemLine(
                result.item,
                result.status,
                result.degraded,
                result.headline,
                result.winner_id,
                result.duration_ms,
            )
        )
        if len(self.results) < FULL_RESULTS:
            self.results.append(result)
        self.usage += result.usage
        fine = (MemberStatus.OK, MemberStatus.NOT_ASKED)
        self.failed_agents |= {member.agent_id for member in result.members if member.status not in fine}

    def counts(self, items: int) -> dict[str, int]:
        """Items by state."""
        counts = {"items": items, "decided": len(self.lines)}
        for line in self.lines:
            counts[line.status.value] = counts.get(line.status.value, 0) + 1
        counts["degraded"] = sum(line.degraded for line in self.lines)
        return counts
