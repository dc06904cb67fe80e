"""Plans that a process keeps: bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict

import pytest

from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest


def plan(number: int, size: int) -> Deliberation:
    """A plan of about so many bytes."""
    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))
    return Deliberation.plan(f"d-{number}", DeliberationRequest(task="x" * size), council)


def test_plans_are_kept_up_to_a_number_and_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; the newest stays, whatever it weighs."""
    from tasks.deliberations import read as plans

    monkeypatch.setattr(plans, "_plans", OrderedDict())
    monkeypatch.setattr(plans, "KEPT_PLANS", 3)
    monkeypatch.setattr(plans, "KEPT_BYTES", 50_000)
    for number in range(5):
        plans.keep_plan(plan(number, 100))
    assert list(plans._plans) == ["d-2", "d-3", "d-4"]
    plans.keep_plan(plan(5, 20_000))
    assert list(plans._plans) == ["d-3", "d-4", "d-5"]
    plans.keep_plan(plan(6, 20_000))
    assert list(plans._plans) == ["d-6"]
    plans.keep_plan(plan(7, 50_000))
    assert list(plans._plans) == ["d-7"]
