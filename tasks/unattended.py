"""Deliberations that nobody runs: found, and put into the queue again, or ended with what stands on the record.

Whoever runs a deliberation holds its lease; a request that waits, or that a killed worker had, stands in the queue. One
that has neither was left by a process of a stock worker, or by a command, that was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Completed

from blocks.exceptions import RecordError
from blocks.loading import open_leases, open_record
from blocks.record import LEASE_S, STATUS_BUCKET, Body, Record
from blocks.work_queue import LANES, workers
from tasks.council.markup import cell
from tasks.council.models import InvalidRequest, Status
from tasks.ending import end
from tasks.enqueue import DELIBERATE, Request, asked_of, enqueue, id_of, queued
from tasks.reading import status_of
from tasks.states import ended_state

MAX_LOOKED_AT = 10_000
MAX_TREATED = 1_000
"""Deliberations that one run resumes or ends; the next one goes on."""
LOOK_AGAIN_S = 2 * LEASE_S
"""A deliberation counts as unattended when it is so at both ends of this time."""
PAGE = 200
OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


@dataclass
class Done:
    """What one run of housekeeping did, by deliberation."""

    resumed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    """Flow runs that Prefect showed as open, though their deliberations had ended."""


@task(name="find unattended", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def find_unattended() -> list[str]:
    """Ids of deliberations that are open on the record or in Prefect, and that nobody runs. Raises RecordError."""
    record = await open_record()
    candidates = [one async for one in _candidates(record)]
    if candidates:
        await asyncio.sleep(LOOK_AGAIN_S)
    return [one for one in candidates if await is_unattended(record, one)][:MAX_TREATED]


async def is_unattended(record: Record, deliberation_id: str) -> bool:
    """Whether nobody holds its lease, and no request for it is in the queue."""
    if await record.held(deliberation_id):
        return False
    return not any([await queued(record, deliberation_id, lane) for lane in LANES])


@task(name="attend", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def attend(ids: list[str], timeout_s: float) -> Done:
    """Resume each, or end it where it waits too long already or no worker is there. Raises RecordError."""
    record, done = await open_record(), Done()
    anybody = await workers(record) > 0
    for one in ids:
        try:
            async with asyncio.timeout(60):
                await _attend(record, one, timeout_s, anybody, done)
        except (RecordError, InvalidRequest, TimeoutError) as error:
            get_run_logger().warning("%s could not be seen to: %s", one, error or type(error).__name__)
    return done


@task(name="show", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def show_done(done: Done, statuses: int, artifacts: int, streams: list[str]) -> None:
    """A table in Prefect's UI."""
    rows = [
        {"what": what, "count": len(which), "which": cell(", ".join(which), 500)}
        for what, which in (
            ("resumed", done.resumed),
            ("ended", done.ended),
            ("flow runs corrected", done.corrected),
            ("streams with a new retention", streams),
        )
    ]
    rows += [
        {"what": "statuses let go", "count": statuses, "which": ""},
        {"what": "artifacts let go", "count": artifacts, "which": ""},
    ]
    await acreate_table_artifact(rows, key="housekeeping", description="What housekeeping did")


def kept_house(done: Done, statuses: int, artifacts: int) -> State[Any]:
    """What Prefect shows of the run."""
    told = f"{len(done.resumed)} resumed, {len(done.ended)} ended, {len(done.corrected)} flow runs corrected, "
    return Completed(message=told + f"{statuses} statuses and {artifacts} artifacts let go")


# --- one deliberation -----------------------------------------------------------------------------


async def _attend(record: Record, one: str, timeout_s: float, anybody: bool, done: Done) -> None:
    status = await status_of(record, one) or {}
    run = await _flow_run(one, status)
    in_prefect = run.state if run else None
    if status and Status(status["status"]).final:
        if run and in_prefect and not in_prefect.is_final():
            await _correct(run, status)
            done.corrected.append(one)
        return
    stopped = in_prefect is not None and (in_prefect.is_cancelling() or in_prefect.is_cancelled())
    now = datetime.now(UTC)
    since = datetime.fromisoformat(status.get("unattended_since") or now.isoformat())
    if not stopped and anybody and (now - since).total_seconds() < timeout_s:
        await record.merge_status(one, {"unattended_since": since.isoformat()})
        await _resume(record, one, status, run)
        done.resumed.append(one)
    elif stopped or (now - since).total_seconds() >= timeout_s:
        await _end(record, one, status, run, stopped)
        done.ended.append(one)
    else:  # nobody is there to resume it: it waits for a worker, until its time is over
        await record.merge_status(one, {"unattended_since": since.isoformat()})


async def _resume(record: Record, one: str, status: Body, run: FlowRun | None) -> None:
    get_run_logger().warning("%s is run by nobody, and goes into the queue again", one)
    parameters = await _parameters(record, one, status, run)
    request = Request(id=one, parameters=parameters, run=str(run.id) if run else None, door="housekeeping")
    await enqueue(record, request, again=True)


async def _end(record: Record, one: str, status: Body, run: FlowRun | None, stopped: bool) -> None:
    get_run_logger().warning("%s is run by nobody, and is ended with what stands on the record", one)
    if stopped:
        await record.merge_status(one, {"cancel_requested": True})
    asked = await _parameters(record, one, status, run)
    async with (await open_leases()).hold(one) as lease:
        await end(record, one, lease, asked)
    ended = await status_of(record, one)
    if run is not None and ended is not None:
        await _correct(run, ended)


async def _correct(run: FlowRun, status: Body) -> None:
    """Let Prefect show what the record says."""
    async with get_client() as client:
        await client.set_flow_run_state(run.id, ended_state(status), force=True)


async def _parameters(record: Record, one: str, status: Body, run: FlowRun | None) -> dict[str, Any]:
    """What was asked: from the flow run, the status, or the plan."""
    if run is not None:
        return {name: value for name, value in run.parameters.items() if name != "deliberation_id"}
    if (asked := await asked_of(record, status)) is not None:
        return asked
    plan = await record.last(f"deliberations.{one}.plan")
    if plan is None:
        raise InvalidRequest("id", f"nothing says what {one!r} was asked")
    return {name: value for name, value in plan.body["request"].items() if value is not None}


# --- where they are found -------------------------------------------------------------------------


async def _candidates(record: Record) -> AsyncIterator[str]:
    seen: set[str] = set()
    async for one in _open_on_record(record):
        seen.add(one)
        if await is_unattended(record, one):
            yield one
    async for run in _open_in_prefect():
        one = id_of(run.parameters, str(run.id))
        if one not in seen and await is_unattended(record, one):
            seen.add(one)
            yield one


async def _open_on_record(record: Record) -> AsyncIterator[str]:
    after = 0
    for _ in range(MAX_LOOKED_AT):
        event = await record.next(f"$KV.{STATUS_BUCKET}.*", after)  # items have a dot, and are not looked at
        if event is None:
            return
        after = event.sequence
        if event.body.get("status") in set(Status) and not Status(event.body["status"]).final:
            yield event.subject.rpartition(".")[2]


async def _open_in_prefect() -> AsyncIterator[FlowRun]:
    """Runs of `deliberate` that Prefect shows as under way, in whatever pool; Pending ones only of the warm worker's.

    A Pending run of another pool waits for its process or pod.
    """
    flows = FlowFilter(name=FlowFilterName(any_=[DELIBERATE.rpartition(".")[2]]))
    states = FlowRunFilter.model_validate({"state": {"type": {"any_": OPEN}}})
    async with get_client() as client:
        for offset in range(0, MAX_LOOKED_AT, PAGE):
            found = await client.read_flow_runs(flow_filter=flows, flow_run_filter=states, limit=PAGE, offset=offset)
            for run in found:
                if run.state and not (run.state.is_pending() and run.work_pool_name != "conclave"):
                    yield run
            if len(found) < PAGE:
                return


async def _flow_run(one: str, status: Body) -> FlowRun | None:
    """The flow run of a deliberation: the one that its status names, or the one of its own id."""
    named = status.get("run") or (status.get("flow_run_url") or "").rpartition("/")[2] or one
    async with get_client() as client:
        try:
            return await client.read_flow_run(UUID(named))
        except (ObjectNotFound, ValueError):
            return None
