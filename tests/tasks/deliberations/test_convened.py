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


async def test_a_default_of_the_deployment_makes_no_other_request(record: Any, new_id: str) -> None:
    """What was asked leaves a field open: plan and key stand for that, whatever is put in its place, and whenever."""
    from tasks.deliberations import plan
    from tasks.deliberations.submit import Request, enqueue

    request = Request(id=new_id, parameters={"task": "Choose a queue"}, door="gateway")
    assert (await enqueue(record, request)).new
    merged = asked().model_copy(update={"deadline_s": 5.0})
    made = await plan.convene(record, new_id, merged, identity=request.digest)
    assert (made.plan.deadline_s, made.plan.request_digest) == (5.0, request.digest)
    again = await plan.convene(record, new_id, merged, identity=request.digest)
    assert again.plan == made.plan
    assert not (await enqueue(record, request)).new


async def test_what_has_ended_before_it_began_gets_no_plan(record: Any, new_id: str) -> None:
    from blocks.documents import open_leases
    from blocks.exceptions import Superseded
    from tasks.deliberations import plan
    from tasks.deliberations.cancel import stop
    from tasks.deliberations.submit import Request, enqueue

    await enqueue(record, Request(id=new_id, parameters={"task": "Choose a queue"}, door="gateway"))
    assert await stop(record, await open_leases(), new_id) == "CANCELLED"
    with pytest.raises(Superseded, match="has ended"):
        await plan.convene(record, new_id, asked())
    assert not await record.exists(f"deliberations.{new_id}.plan")


async def test_a_cancel_leaves_what_a_flow_run_is_to_be_told_of(record: Any, new_id: str) -> None:
    """Its worker has died: whoever takes the request up shows the end in Prefect."""
    from blocks.documents import open_leases
    from tasks.deliberations.cancel import stop
    from tasks.deliberations.submit import Request, enqueue, queued

    await enqueue(record, Request(id=new_id, parameters={"task": "Choose a queue"}, door="gateway"))
    await record.statuses.merge(new_id, {"run": "5e0c7a9e-7a3c-4d55-9f53-0d4f2c7f6f55"})
    assert await stop(record, await open_leases(), new_id) == "CANCELLED"
    assert await queued(record, new_id)
