"""What a worker has begun for a flow is taken by that flow, and by no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


def asked(task: str = "Choose a queue") -> Any:
    """A request."""
    from tasks.council.models import DeliberationRequest

    return DeliberationRequest.read({"task": task})


async def test_a_carried_session_is_taken_and_starts_when_it_is(record: Any, new_id: str) -> None:
    """Its plan is written once; its deadline does not run while nobody has begun."""
    from tasks.deliberations import plan

    convening = asyncio.create_task(plan.convene(record, new_id, asked()))
    made = await convening
    await asyncio.sleep(0.05)
    plan.carried.set(plan.Convening(new_id, convening))
    taken = await plan.convened(record, new_id, asked())
    assert taken.plan is made.plan
    assert taken.started >= made.started + 0.05


async def test_what_is_carried_for_another_is_left_alone(record: Any, new_id: str) -> None:
    from tasks.council.exceptions import InvalidRequest
    from tasks.deliberations import plan

    convening = asyncio.create_task(plan.convene(record, f"{new_id}-a", asked()))
    plan.carried.set(plan.Convening(f"{new_id}-a", convening))
    assert (await plan.convened(record, f"{new_id}-b", asked())).plan.id == f"{new_id}-b"
    await convening
    with pytest.raises(InvalidRequest, match="another request"):
        await plan.convened(record, f"{new_id}-a", asked("Choose another"))


async def test_what_went_wrong_is_told_to_the_flow(record: Any, new_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.council.exceptions import InvalidRequest
    from tasks.deliberations import plan

    async def unknown(_name: str, _at_hand: Any = None) -> Any:
        raise InvalidRequest("council", "is unknown")

    monkeypatch.setattr(plan, "council_spec", unknown)
    convening = asyncio.create_task(plan.convene(record, new_id, asked()))
    plan.carried.set(plan.Convening(new_id, convening))
    with pytest.raises(InvalidRequest, match="is unknown"):
        await plan.convened(record, new_id, asked())
