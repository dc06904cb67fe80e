"""How a deliberation comes along, told as updates of `orchestrator.v1` from the events of its feed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from deployments.orchestrator.generated import orchestrator_pb2 as pb
from deployments.orchestrator.messages import proposal
from tasks.council.models import Deliberation
from tasks.council.stages import BARE, PROPOSAL, REVIEW, REVISE, SYNTHESIZE, kind_of

GENERATING, REVIEWING, SCORING, COMPLETE = "generating", "reviewing", "scoring", "complete"
OF_STAGES = {PROPOSAL: GENERATING, BARE: GENERATING, REVIEW: REVIEWING, REVISE: REVIEWING, SYNTHESIZE: SCORING}
"""What goes on in the stages of each kind."""
ALMOST = 99
"""Percent that are told at most before the end."""


class Updates:
    """The updates of one deliberation, made of its events in their order."""

    def __init__(self) -> None:
        self._expected, self._answers = 0, 0
        self._status = GENERATING

    def of(self, kind: str, data: Mapping[str, Any]) -> pb.DeliberationUpdate | None:
        """What an event says; None where it says nothing that an update could."""
        if kind == "plan":
            self._expected = _calls_in(data)
            return None
        if kind == "answer":
            return self._answer(data)
        if kind == "decision":
            self._status = SCORING
        return self._update(kind) if kind in ("started", "decision") else None

    def _answer(self, data: Mapping[str, Any]) -> pb.DeliberationUpdate:
        stage: str = data["stage"]
        self._answers += 1
        self._status = OF_STAGES.get(kind_of(stage), self._status)
        update = self._update(stage)
        update.current_agent = data["agent_id"]
        if data.get("proposal"):
            text = proposal(data["proposal"])
            text.created_at_ms = int(datetime.fromisoformat(data["timestamp"]).timestamp() * 1000)
            update.partial_result.proposal.CopyFrom(text)
        return update

    def _update(self, step: str) -> pb.DeliberationUpdate:
        percent = self._answers * 100 // self._expected if self._expected else 0
        return pb.DeliberationUpdate(status=self._status, progress_percent=min(percent, ALMOST), current_step=step)


def _calls_in(plan: Mapping[str, Any]) -> int:
    """How many answers a plan may bring; 0 where it cannot be read, as a later version's."""
    try:
        read = Deliberation.from_record(plan)
    except ValidationError:
        return 0
    return len(read.posts) * len(read.agenda)


def complete(decided: pb.DeliberationResult | None) -> pb.DeliberationUpdate:
    """The last update: it is decided."""
    return pb.DeliberationUpdate(status=COMPLETE, progress_percent=100, current_step="finished", partial_result=decided)
