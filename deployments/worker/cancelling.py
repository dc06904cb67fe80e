"""Cancels from Prefect: its own worker does nothing for a run that has started, so this one looks for them itself."""

from __future__ import annotations

import asyncio
import logging

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled

from blocks.exceptions import RecordError
from deployments.worker.flow_runs import tell_prefect
from deployments.worker.runs import Runs
from tasks.council.models import Status
from tasks.enqueue import DELIBERATE, id_of, queued_request

EVERY_S = 1.0
MOST = 200
"""Flow runs that one look takes; the next one goes on."""

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


async def watch_cancels(runs: Runs, log: Log) -> None:
    """Stop what Prefect shows as Cancelling, wherever it was set; never ends."""
    cancelling = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])))
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            async with get_client() as client:
                found = await client.read_flow_runs(flow_run_filter=cancelling, limit=MOST)
            for run in found:
                await _cancel(runs, run)
        except (httpx.HTTPError, RecordError) as error:
            log.debug("cancels are not seen just now: %s", error)


async def _cancel(runs: Runs, run: FlowRun) -> None:
    """A deliberation hears its flag, whoever runs it; another flow of this worker's is stopped here."""
    work = next((work for work in runs.in_work.values() if work.run == str(run.id)), None)
    flagged = await _flag(runs, work.request.id if work and work.request else id_of(run.parameters, str(run.id)))
    if work is None:
        await _end_queued(runs, run)
    elif not flagged:
        work.cancel()


async def _flag(runs: Runs, deliberation_id: str) -> bool:
    """Ask a deliberation to stop; False where there is none of that id that goes on."""
    status = await runs.record.read_status(deliberation_id)
    if status is None or Status(status["status"]).final:
        return False
    if not status.get("cancel_requested"):
        await runs.record.merge_status(deliberation_id, {"cancel_requested": True})
    return True


async def _end_queued(runs: Runs, run: FlowRun) -> None:
    """End what waits in the queue at once, and not when its turn comes."""
    request = await queued_request(runs.record, id_of(run.parameters, str(run.id)))
    if request is None:
        return
    lease = await runs.leases.take(request.id)
    if lease is None:  # somebody runs it, and hears the flag
        return
    try:
        if request.flow == DELIBERATE:
            await runs.cancelled(request, run, lease)
        else:
            await tell_prefect(str(run.id), Cancelled(message="Cancelled before it began."))
    finally:
        await runs.leases.release(lease)
