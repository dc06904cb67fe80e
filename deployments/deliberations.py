"""A deliberation run from the command line, in this process: checked first, watched while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

from blocks.background import background
from blocks.connections import connections, prefect_clients
from blocks.loading import fresh, open_record
from blocks.ray_agents import RayAgents
from blocks.record import Body, Record
from deployments.results import result_of
from deployments.terminal import Watcher
from flows.deliberate import deliberate
from tasks.council.models import Answer, Deliberation, DeliberationRequest, InvalidRequest, Status, check_id
from tasks.plans import check_servers, council_spec, plan_of, standing_plan

Starts = AbstractAsyncContextManager[Callable[[], None]]

CANCEL_S = 10.0
"""How long a cancel is waited for; whoever runs the deliberation takes it within two seconds."""
SILENCE_S = 30.0
"""How much longer than its deadline a deliberation that is run may be silent."""


async def run_deliberation(fields: dict[str, Any], deliberation_id: str, watcher: Watcher, starts: Starts) -> Body:
    """Check the request and its model servers, run the flow, and read the result from the record.

    `starts` gives the place to start in, which is freed once the deliberation has started.
    Raises InvalidRequest before anything is written, and ConclaveError where a part does not answer.
    """
    async with connections(), prefect_clients():
        record = await open_record()
        plan = await _planned(record, fields, deliberation_id)
        agents = await fresh(RayAgents, "default")
        async with _watching(record, plan, watcher), _cancellable(record, plan.id, watcher):
            flow = deliberate.with_options(task_runner=agents.task_runner())
            async with starts as started, background(_begun(record, plan.id, started)):
                state = await flow(**fields, deliberation_id=plan.id, return_state=True)
        result = await result_of(record, plan.id)
        if result is None or "status" not in result or not (await record.last(f"deliberations.{plan.id}.finished")):
            raise RuntimeError(state.message or f"the flow ended {state.name} without a result")
        return result


async def _begun(record: Record, deliberation_id: str, started: Callable[[], None]) -> None:
    """Say when the deliberation has started, as the record tells."""
    async with aclosing(record.follow(f"deliberations.{deliberation_id}.started")) as events:
        await anext(events)
    started()


async def read_result(deliberation_id: str) -> Body:
    """The result of an earlier deliberation. Raises InvalidRequest for an unknown id."""
    async with connections():
        result = await result_of(await open_record(), check_id(deliberation_id))
    if result is None:
        raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
    return result


async def watch_deliberation(deliberation_id: str, watcher: Watcher) -> Body | None:
    """Follow a deliberation until it ends; its result, None when nothing is heard of it for too long.

    Raises InvalidRequest for an unknown id.
    """
    async with connections():
        record = await open_record()
        plan = await plan_of(record, check_id(deliberation_id))
        async with _watching(record, plan, watcher):
            ended = await _heard_the_end(record, plan)
        return await result_of(record, plan.id) if ended else None


async def cancel_deliberation(deliberation_id: str) -> tuple[str | None, str | None]:
    """Ask it to stop and wait for its end: the final status it had before, and the one it has now.

    None stands for no final status yet. Raises InvalidRequest for an unknown id.
    """
    async with connections():
        record = await open_record()
        status = await record.read_status(check_id(deliberation_id))
        if status is None:
            raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
        before = _final(status)
        if before is not None:
            return before, before
        await record.merge_status(deliberation_id, {"cancel_requested": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S), aclosing(record.follow_status(deliberation_id)) as changes:
                async for change in changes:
                    if (after := _final(change.body)) is not None:
                        return None, after
        return None, None


def _final(status: Body) -> str | None:
    name = str(status.get("status", Status.PENDING.value))
    return name if Status(name).final else None


async def _heard_the_end(record: Record, plan: Deliberation) -> bool:
    """Wait for the last event; whoever runs it is heard at least once in a deadline, since that decides items."""
    async with aclosing(record.follow(f"deliberations.{plan.id}.*")) as events:
        while True:
            try:
                async with asyncio.timeout(plan.deadline_s + SILENCE_S):
                    event = await anext(events)
            except TimeoutError:
                return False
            if event.subject.endswith(".finished"):
                return True


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
    try:
        async with background(watch()):
            yield
    finally:
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

    loop.add_signal_handler(signal.SIGINT, asked.set)
    try:
        async with background(cancel()):
            yield
    finally:
        with contextlib.suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
