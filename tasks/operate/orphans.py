"""Deliberations that nobody runs: found, and put into the queue again, or ended with what stands on the record.

Whoever runs a deliberation holds its lease; a request that waits, or that a killed worker had, stands in the queue. One
that has neither was left by a process of a stock worker, or by a command, that was killed. In Prefect nothing is looked
at but what is ours. Ages are measured by one clock, the NATS server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed

from blocks.documents import open_leases, open_record
from blocks.exceptions import RecordUnreadable
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.installation import pools, server_time
from blocks.record.lease_keys import LEASE_S
from blocks.record.queue import LANES, workers
from blocks.record.server import Retention
from tasks.collect.end import end
from tasks.collect.states import ended_state, wants_end
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import error_line
from tasks.council.report.markup import cell
from tasks.deliberations.ownership import begun_under, ours_in_prefect
from tasks.deliberations.read import has_ended, status_of
from tasks.deliberations.submit import Request, ask_to_cancel, asked_in, asked_of, enqueue, id_of, queued
from tasks.operate.cursors import note_cursor, read_cursor

T = TypeVar("T")

DELIBERATE_FLOW = "deliberate"
MAX_NESTED = 5
"""Flow runs above a flow run that are looked at."""
MAX_LOOKED_AT = 10_000
MAX_TREATED = 1_000
"""Deliberations that one run resumes or ends; the next one goes on."""
LOOK_AGAIN_S = 2 * LEASE_S
"""A deliberation counts as unattended when it is so at both ends of this time."""
CURSOR = "housekeeping.cursor"
"""Note of how far the last run came among the keys: what one run cannot look at, the next ones do."""
OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


@dataclass
class Done:
    """What one run of housekeeping did, by deliberation."""

    resumed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    """Flow runs that Prefect showed as open, though their deliberations had ended."""


@dataclass
class Orphans:
    """What nobody sees to: deliberations by id, and flow runs that are to stop and belong to none."""

    deliberations: list[str] = field(default_factory=list)
    runs: list[FlowRun] = field(default_factory=list)


@task(name="find unattended", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def find_orphans() -> Orphans:
    """What is open on the record or in Prefect, is ours, and is run by nobody. Raises RecordError."""
    record = await open_record()
    first = await _candidates(record)
    if first.deliberations or first.runs:
        await asyncio.sleep(LOOK_AGAIN_S)
    still = [one for one in first.deliberations if await _isolated(one, is_orphan(record, one))]
    runs = [run for run in first.runs if await _isolated(str(run.id), _is_left(record, run))]
    return Orphans(still[:MAX_TREATED], runs[:MAX_TREATED])


async def is_orphan(record: Record, deliberation_id: str) -> bool:
    """Whether nobody holds its lease, and no request for it is in the queue."""
    if await record.leases.held(deliberation_id):
        return False
    status = await record.statuses.read(deliberation_id) or {}
    runs = [status.get("batch"), status.get("run")] if "batch" in status else []
    for run in runs:  # of a batch, which goes on with its agendas, or will
        if isinstance(run, str) and not await is_orphan(record, run):
            return False
    return not any([await queued(record, deliberation_id, lane) for lane in LANES])


@task(name="attend", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def handle_orphans(orphans: Orphans, timeout_s: float) -> Done:
    """Resume each, or end it where it waits too long already or no worker is there. Raises RecordError.

    One that cannot be seen to is told, and keeps nobody from the others.
    """
    record, done = await open_record(), Done()
    anybody, now = await workers(record) > 0, await server_time(record)
    for one in orphans.deliberations:
        await _isolated(one, _handle(record, one, timeout_s, anybody, now, done))
    for run in orphans.runs:
        await _isolated(str(run.id), _stop(run, done))
    return done


@task(name="show", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def show_done(done: Done, statuses: int, artifacts: int, streams: Retention) -> None:
    """A table in Prefect's UI."""
    rows = [
        {"what": what, "count": len(which), "which": cell(", ".join(which), 500)}
        for what, which in (
            ("resumed", done.resumed),
            ("ended", done.ended),
            ("flow runs corrected", done.corrected),
            ("streams with a new retention", streams.changed),
            ("streams that keep longer than their block says", streams.longer),
        )
    ]
    rows += [
        {"what": "statuses let go", "count": statuses, "which": ""},
        {"what": "artifacts let go", "count": artifacts, "which": ""},
    ]
    await acreate_table_artifact(rows, key="housekeeping", description="What housekeeping did")


def housekeeping_state(done: Done, statuses: int, artifacts: int) -> State[Any]:
    """What Prefect shows of the run."""
    told = f"{len(done.resumed)} resumed, {len(done.ended)} ended, {len(done.corrected)} flow runs corrected, "
    return Completed(message=told + f"{statuses} statuses and {artifacts} artifacts let go")


# --- one deliberation -----------------------------------------------------------------------------


async def _isolated(one: str, work: Awaitable[T]) -> T | None:
    """What the work on one brings, None where it fails, which is told: others go on."""
    try:
        async with asyncio.timeout(60):
            return await work
    except Exception as error:  # noqa: BLE001  # whatever one of them brings up must not end the others
        get_run_logger().warning("%s could not be seen to: %s", one[:64], error_line(error))
        return None


async def _handle(record: Record, one: str, timeout_s: float, anybody: bool, now: datetime, done: Done) -> None:
    """Resume or end one; where it has ended meanwhile, see to it that Prefect shows it. Raises RecordError."""
    status = await status_of(record, one) or {}
    run = await _flow_run(record, one, status)
    if has_ended(status):
        if run is not None and _is_shown_as_open(run):
            await _correct(run, status)
            done.corrected.append(one)
        return
    stopped = await _is_to_stop(status, run)
    since = _since(status, now)
    if stopped or (now - since).total_seconds() >= timeout_s:
        await _end(record, one, status, run, stopped)
        done.ended.append(one)
        return
    await record.statuses.merge(one, {"unattended_since": since.isoformat()})
    if anybody:  # else it waits for a worker, until its time is over
        await _resume(record, one, status, run)
        done.resumed.append(one)


def _is_shown_as_open(run: FlowRun) -> bool:
    return run.state is not None and not run.state.is_final()


async def _is_to_stop(status: Body, run: FlowRun | None) -> bool:
    """Whether somebody asked for its end, on the record or in Prefect."""
    if status.get("cancel_requested"):
        return True
    return run is not None and await _is_stopped(run)


async def _resume(record: Record, one: str, status: Body, run: FlowRun | None) -> None:
    get_run_logger().warning("%s is run by nobody, and goes into the queue again", one)
    parameters = await _parameters(record, one, status, run)
    request = Request(id=one, parameters=parameters, run=str(run.id) if run else None, door="housekeeping")
    await enqueue(record, request, again=bool(status))


async def _end(record: Record, one: str, status: Body, run: FlowRun | None, stopped: bool) -> None:
    get_run_logger().warning("%s is run by nobody, and is ended with what stands on the record", one)
    if stopped:
        await ask_to_cancel(record, one)
    try:
        asked = await _parameters(record, one, status, run)
    except (InvalidRequest, RecordUnreadable):  # as of a command that was stopped before it had asked
        asked = {}
    async with (await open_leases()).hold(one) as lease:
        await end(record, one, lease, asked)
    ended = await status_of(record, one)
    if run is not None and ended is not None:
        await _correct(run, ended)


async def _correct(run: FlowRun, status: Body) -> None:
    """Let Prefect show what the record says."""
    async with get_client() as client:
        await client.set_flow_run_state(run.id, ended_state(status), force=True)


async def _stop(run: FlowRun, done: Done) -> None:
    """Show a run as Cancelled that nobody runs, and that is no deliberation which could end by itself."""
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Cancelled(message="Cancelled while nobody ran it."), force=True)
    done.corrected.append(str(run.id))


async def _is_stopped(run: FlowRun) -> bool:
    """Whether Prefect was told to stop a run, or the run that it is a part of, as of an evaluation."""
    async with get_client() as client:
        for _ in range(MAX_NESTED):
            if wants_end(run.state):
                return True
            if run.parent_task_run_id is None:
                return False
            try:
                part = await client.read_task_run(run.parent_task_run_id)
                if part.flow_run_id is None:
                    return False
                run = await client.read_flow_run(part.flow_run_id)
            except ObjectNotFound:
                return False
    return False


def _since(status: Body, now: datetime) -> datetime:
    """Since when nobody has run it, by the server's clock; a value that is no time counts from now."""
    try:
        since = datetime.fromisoformat(status.get("unattended_since") or now.isoformat())
    except (TypeError, ValueError):
        return now
    return since if since.tzinfo else now


async def _parameters(record: Record, one: str, status: Body, run: FlowRun | None) -> dict[str, Any]:
    """What was asked: from the flow run, the status, or the plan."""
    if run is not None:
        return asked_in(run.parameters)
    if (asked := await asked_of(record, status)) is not None:
        return asked
    plan = await record.last(subjects.plan(one))
    if plan is None:
        raise InvalidRequest("id", f"nothing says what {one!r} was asked")
    return {name: value for name, value in plan.body["request"].items() if value is not None}


# --- where they are found -------------------------------------------------------------------------


async def _candidates(record: Record) -> Orphans:
    found, seen = Orphans(), set[str]()
    async for one in _open_on_record(record):
        seen.add(one)
        if await _isolated(one, is_orphan(record, one)):
            found.deliberations.append(one)
    served = await pools(record)
    async for run in ours_in_prefect(record, OPEN):
        one = id_of(run.parameters, str(run.id))
        if one not in seen and await _isolated(one, _is_unattended(record, one, run, served)):
            seen.add(one)
            found.deliberations.append(one)
        elif await _isolated(str(run.id), _is_left(record, run)):
            found.runs.append(run)
    return found


async def _is_unattended(record: Record, one: str, run: FlowRun, served: Collection[str]) -> bool:
    """Whether a run that Prefect shows as under way is that of a deliberation which nobody runs.

    A Pending run of a pool that our workers do not take from waits for its process or pod.
    """
    if run.state is None or (run.state.is_pending() and run.work_pool_name not in served):
        return False
    if await status_of(record, one) is None and await _flow_name(run) != DELIBERATE_FLOW:
        return False
    return await is_orphan(record, one)


async def _is_left(record: Record, run: FlowRun) -> bool:
    """Whether a run is to stop, and neither anybody runs it nor a deliberation could end it."""
    if run.state is None or not run.state.is_cancelling() or await _flow_name(run) == DELIBERATE_FLOW:
        return False
    own, one = str(run.id), id_of(run.parameters, str(run.id))
    return await is_orphan(record, own) and await is_orphan(record, one)


async def _flow_name(run: FlowRun) -> str:
    async with get_client() as client:
        return (await client.read_flow(run.flow_id)).name


async def _open_on_record(record: Record) -> AsyncIterator[str]:
    """Open deliberations, from where the last look ended and once around, as far as one look goes."""
    begin = await read_cursor(record, CURSOR)
    after, around = begin, False
    for _ in range(MAX_LOOKED_AT):
        # Items have a dot, and are not looked at.
        event = await record.next(subjects.status("*"), after, lenient=True)
        if event is None and not around:
            after, around = 0, True
            continue
        if event is None or (around and event.sequence > begin):
            break
        after = event.sequence
        if event.body and not has_ended(event.body):  # a key without a status is PENDING; a deleted one empty
            yield event.subject.rpartition(".")[2]
    await note_cursor(record, CURSOR, after)


async def _flow_run(record: Record, one: str, status: Body) -> FlowRun | None:
    """The flow run of a deliberation: the one that it ran under last, that its status names, or that of its own id."""
    shown = str(status.get("flow_run_url") or "").rpartition("/")[2]
    named = await begun_under(record, one) or status.get("run") or shown or one
    async with get_client() as client:
        try:
            return await client.read_flow_run(UUID(str(named)))
        except (ObjectNotFound, ValueError):
            return None
