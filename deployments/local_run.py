"""A deliberation that this process runs: checked first, watched while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

from prefect import tags
from prefect.client.schemas.objects import State

from blocks.background import background
from blocks.connections import connections
from blocks.documents import open_record
from blocks.exceptions import NotDecided, PrefectUnavailable
from blocks.names import tag_of
from blocks.prefect_api import prefect_clients, prefect_named
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.task_runner import with_agents
from flows.deliberate import deliberate
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, DeliberationRequest, check_id
from tasks.deliberations.plan import check_servers, council_spec, standing_plan
from tasks.deliberations.result import result_of
from tasks.deliberations.submit import ask_to_cancel
from tasks.deliberations.watch import Watcher, watching

Starts = AbstractAsyncContextManager[Callable[[], None]]


async def run_deliberation(fields: dict[str, Any], deliberation_id: str, watcher: Watcher, starts: Starts) -> Body:
    """Check the request and its model servers, run the flow, and read the result from the record.

    `starts` gives the place to start in, which is freed once the deliberation has started.
    Raises InvalidRequest before anything is written, and ConclaveError where a part does not answer.
    """
    async with prefect_clients(), connections():
        record = await open_record()
        plan = await planned(record, fields, deliberation_id)
        flow: Any = await with_agents(deliberate)  # awaited, so that Ctrl-C is heard meanwhile
        async with (
            watching(record, plan, watcher),
            cancellable(record, plan.id, watcher),
            starts as started,
            background(begun(record, plan.id, started)),
        ):
            with tags(tag_of(record.installation)):
                ended = await _ended(flow(**fields, deliberation_id=plan.id, return_state=True))
        if isinstance(ended, InvalidRequest):
            raise ended
        if await record.last(subjects.finished(plan.id)) is None:
            watcher.say(f"not decided; what was answered is on the record: --id {plan.id} goes on from there")
            raise ended or NotDecided("the flow ended without a result")
        if isinstance(ended, PrefectUnavailable):
            watcher.say(f"{ended}: its UI does not show the end of this deliberation, which is on the record")
        result = await result_of(record, plan.id)
        assert result is not None
        return result


async def begun(record: Record, deliberation_id: str, started: Callable[[], None]) -> None:
    """Say when the deliberation has started, as the record tells."""
    async with aclosing(record.follow(subjects.started(deliberation_id))) as events:
        await anext(events)
    started()


async def _ended(running: Awaitable[State[Any]]) -> Exception | None:
    """What ended the flow in place of its last step, if anything did."""
    try:
        with prefect_named():
            state = await running
    except PrefectUnavailable as error:
        return error
    failure = await state.aresult(raise_on_failure=False) if state.is_failed() or state.is_crashed() else None
    return failure if isinstance(failure, Exception) else None


async def planned(record: Record, fields: dict[str, Any], deliberation_id: str) -> Deliberation:
    """The plan of a request, its model servers asked, or the one that stands. Raises InvalidRequest."""
    request = DeliberationRequest.read(fields)
    check_id(deliberation_id)
    standing = await standing_plan(record, deliberation_id, request)
    if standing is not None:
        return standing
    plan = Deliberation.plan(deliberation_id, request, await council_spec(request.council))
    await check_servers(plan)
    return plan


@asynccontextmanager
async def cancellable(record: Record, deliberation_id: str, watcher: Watcher) -> AsyncGenerator[None, None]:
    """The first Ctrl-C asks for the cancel, so that members stop and the record says so; the second one aborts."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    async def ask() -> None:
        await asked.wait()
        loop.remove_signal_handler(signal.SIGINT)
        watcher.say("cancelling; press Ctrl-C again to leave at once")
        await ask_to_cancel(record, deliberation_id)

    loop.add_signal_handler(signal.SIGINT, asked.set)
    try:
        async with background(ask()):
            yield
    finally:
        with contextlib.suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
