"""The artifacts: what cannot be had for a report is left out of it, and the log says why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def decided() -> tuple[Any, Any]:
    """A plan and the result of its item, with a tally of two ballots."""
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.decisions import Ballots, ItemResult
    from tasks.council.models import Deliberation, DeliberationRequest
    from tasks.council.voting.election import Ballot, Candidate
    from tasks.council.voting.tally import tally

    seats = tuple(Member(agent_id=name, role="DEV") for name in ("m1", "m2", "m3"))
    request = DeliberationRequest(task="Write a queue", strategy="rank")
    plan = Deliberation.plan("d-1", request, CouncilSpec(name="dev", members=seats))
    cast = [
        Ballot(voter=f"m{one}", shown=shown, ranking=shown) for one, shown in ((1, ("m2", "m3")), (2, ("m1", "m3")))
    ]
    ballots = Ballots(expected=2, counted=2, tally=tally([Candidate(f"m{one}", 0.5) for one in (1, 2, 3)], cast))
    member = {"role": "DEV", "status": "ok", "reason": None, "duration_ms": 1, "usage": {}, "model": None}
    stages = {"stages": {"review-0": {"status": "ok", "reason": None}}}
    result = {
        "id": "d-1",
        "item": "task",
        "task": "Write a queue",
        "status": "COMPLETED",
        "degraded": False,
        "council": "dev",
        "engine": "vllm",
        "strategy": "rank",
        "total_agents": 3,
        "received_count": 3,
        "failed_count": 0,
        "results": (),
        "winner_id": None,
        "decision": None,
        "error_message": None,
        "duration_ms": 1,
        "usage": {},
        "completed_at": NOW,
        "ballots": ballots,
        "members": [{"agent_id": f"m{one}", **member, **stages} for one in (1, 2, 3)],
    }
    return plan, ItemResult.model_validate(result)


@pytest.fixture
def told(connected: Any, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The run's log, outside of a run."""
    import tasks.artifacts.artifacts

    log = logging.getLogger("test_record")
    monkeypatch.setattr(tasks.artifacts.artifacts, "get_run_logger", lambda: log)
    return log


async def test_a_report_goes_without_ballots_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, told: logging.Logger
) -> None:
    """It says so itself, as the log does."""
    import tasks.artifacts.artifacts
    from blocks.exceptions import RecordUnavailable

    async def away() -> Any:
        raise RecordUnavailable("JetStream is away")

    monkeypatch.setattr(tasks.artifacts.artifacts, "open_record", away)
    plan, result = decided()
    trail = (await tasks.artifacts.artifacts.trails_of(plan, [result]))["task"]
    assert (trail.ballots, trail.unread) == ({}, "JetStream is away")
    assert "the report goes without ballots: JetStream is away" in caplog.text


async def test_a_report_goes_without_a_picture_that_cannot_be_drawn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, told: logging.Logger
) -> None:
    """For example where matplotlib is not installed; a table stands in."""
    import sys

    import tasks.artifacts.artifacts

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plan, result = decided()
    trail = (await tasks.artifacts.artifacts.trails_of(plan, [result]))["task"]
    assert (trail.picture, trail.unread) == (None, None)
    assert "the report goes without a picture of the tally: ModuleNotFoundError" in caplog.text
