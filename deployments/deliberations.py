"""A deliberation run from the command line, in this process: checked first, watched while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from prefect.client.schemas.objects import State

from blocks.background import end
from blocks.connections import connections, prefect_clients, prefect_named
from blocks.exceptions import PrefectUnavailable
from blocks.loading import fresh, open_record
from blocks.ray_agents import RayAgents
from blocks.record import Body, Record
from deployments.results import result_of
from deployments.terminal import Watcher
from flows.deliberate import deliberate
from tasks.council.models import Answer, Deliberation, DeliberationRequest, InvalidRequest, check_id
from tasks.plans import check_servers, council_spec, standing_plan


async def run_deliberation(fields: dict[str, Any], deliberation_id: str, watcher: Watcher) -> Body:
    """Check the request and its model servers, run the flow, and read the result from the record.

    Raises InvalidRequest before anything is written, and ConclaveError where a part does not answer.
    """
    async with prefect_clients(), connections():
        record = await open_record()
        plan = await _planned(record, fields, deliberation_id)
        agents = await fresh(RayAgents, "default")
        async with _watching(record, plan, watcher), _cancellable(record, plan.id, watcher):
            flow = deliberate.with_options(task_runner=agents.task_runner())
            ended = await _ended(flow(**fields, deliberation_id=plan.id, return_state=True))
        if isinstance(ended, InvalidRequest):
            raise ended
        if await record.last(f"deliberations.{plan.id}.finished") is None:
            watcher.say(f"not decided; what was answered is on the record: --id {plan.id} goes on from there")
            raise ended or RuntimeError("the flow ended without a result")
        if isinstance(ended, PrefectUnavailable):
            watcher.say(f"{ended}: its UI does not show the end of this deliberation, which is on the record")
        result = await result_of(record, plan.id)
        assert result is not None
        return result


async def _ended(running: Awaitable[State[Any]]) -> Exception | None:
    """What ended the flow in place of its last step, if anything did."""
    try:
        with prefect_named():
            state = await running
    except PrefectUnavailable as error:
        return error
    failure = await state.aresult(raise_on_failure=False) if state.is_failed() or state.is_crashed() else None
    return failure if isinstance(failure, Exception) else None


async def read_result(deliberation_id: str) -> Body:
    """The result of an earlier deliberation. Raises InvalidRequest for an unknown id."""
    async with connections():
        result = await result_of(await open_record(), check_id(deliberation_id))
    if result is None:
        raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
    return result


async def ask_cancel(deliberation_id: str) -> str | None:
    """Set the one flag that cancels; its status if it has ended already. Raises InvalidRequest for an unknown id."""
    async with connections():
        record = await open_record()
        if await record.read_status(check_id(deliberation_id)) is None:
            raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
        finished = await record.last(f"deliberations.{deliberation_id}.finished")
        if finished is not None:
            return str(finished.body["status"])
        await record.merge_status(deliberation_id, {"cancel_requested": True})
    return None


async def _planned(record: Record, fields: dict[str, Any], deliberation_id: str) -> Deliberation:
    request = DeliberationRequest.read(fields)
    check_id(deliberation_id)
    standing = await standing_plan(record, deliberation_id, request)
    if standing is not None:
        return standing
    plan = Deliberation.plan(deliberation_id, request, await council_spec(request.council))
    await check_servers(plan)
    return plan


@asynccontextmanager
async def _watching(record: Record, plan: Deliberation, watcher: Watcher) -> AsyncGenerator[None, None]:
    async def watch() -> None:
        async for event in record.follow(f"answers.{plan.id}.>"):
            watcher.answered(Answer.model_validate(event.body))

    watcher.began(plan)
    following = asyncio.create_task(watch())
    try:
        yield
    finally:
        await end([following])
        watcher.ended()


@asynccontextmanager
async def _cancellable(record: Record, deliberation_id: str, watcher: Watcher) -> AsyncGenerator[None, None]:
    """The first Ctrl-C asks for the cancel, so that members stop and the record says so; the second one aborts."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    async def cancel() -> None:
        await asked.wait()
        loop.remove_signal_handler(signal.SIGINT)
        watcher.say("cancelling; press Ctrl-C again to leave at once")
        await record.merge_status(deliberation_id, {"cancel_requested": True})

    waiting = asyncio.create_task(cancel())
    loop.add_signal_handler(signal.SIGINT, asked.set)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
        await end([waiting])
