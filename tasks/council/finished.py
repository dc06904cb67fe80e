"""The end of a deliberation, in the one form that everybody writes and reads."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tasks.council.base import Frozen
from tasks.council.models import Status
from tasks.council.proposal import Usage


class Finished(Frozen):
    """Body of `deliberations.<id>.finished`; nothing in it grows with the agenda.

    What has a default may be missing: of one that never began nothing else is known.
    """

    task_id: str = ""
    status: Status
    degraded: bool = False
    engine: str = "unknown"
    counts: dict[str, int] = Field(default_factory=dict)
    winner_id: str | None = None
    total_agents: int = 0
    successful_responses: int = 0
    failed_responses: int = 0
    failed_agents: tuple[str, ...] = ()
    error: str | None = None
    duration_ms: int = 0
    usage: Usage = Usage()
    completed_at: datetime | None = None
    owner: str | None = Field(None, description="Whose token asked for it; only of one that never began.")
    request_digest: str | None = Field(None, description="Identity of what was asked; only of one that never began.")
