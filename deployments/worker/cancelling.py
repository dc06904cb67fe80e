"""Cancels from Prefect: its own worker does nothing for a run that has started, so this one looks for them itself.

A cancel is a flag on the record, set before anything is stopped. It is set for the run that a deliberation runs under;
of others with the same id, which wait for that one, only the flow run is ended.
"""

from __future__ import annotations

import asyncio
import logging

import httpx
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled

from blocks.exceptions import RecordError, RecordUnavailable
from blocks.record.envelope import Body
from blocks.record.events import Record
from deployments.worker.flow_runs import tell_prefect
from deployments.worker.pools import of_our_type
from deployments.worker.runs import Runs
from tasks.batch.store import ask_batch_to_stop
from tasks.batch.tries import batch_of
from tasks.collect.cancel import end_queued
from tasks.council.plain import error_line
from tasks.deliberations.ownership import ours_in_prefect, runs_under
from tasks.deliberations.read import has_ended, status_of
from tasks.deliberations.submit import DELIBERATE, ask_to_cancel, id_of, queued_request

EVERY_S = 1.0
MAX_TOLD = 1_000

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


async def watch_cancels(runs: Runs, log: Log) -> None:
    """Stop what Prefect shows as Cancelling and is ours, wherever it was set; never ends."""
    told: dict[str, str] = {}
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            async for run in ours_in_prefect(runs.record, [StateType.CANCELLING]):
                await _isolated(runs, run, told, log)
        except (httpx.HTTPError, RecordError) as error:
            log.debug("cancels are not seen just now: %s", error)


async def _isolated(runs: Runs, run: FlowRun, told: dict[str, str], log: Log) -> None:
    """Cancel one; what goes wrong is told once, and keeps nobody from the others."""
    try:
        await _cancel(runs, run)
    except (httpx.TransportError, RecordUnavailable):
        raise
    except Exception as error:  # noqa: BLE001  # whatever one run brings up must not end the watch
        said = error_line(error)
        if told.get(str(run.id)) != said:
            log.warning("flow run %s cannot be cancelled: %s", run.id, said)
        if len(told) >= MAX_TOLD:
            told.clear()
        told[str(run.id)] = said


async def _cancel(runs: Runs, run: FlowRun) -> None:
    """A deliberation hears its flag, whoever runs it; other code of this worker's is stopped here."""
    own, one = str(run.id), id_of(run.parameters, str(run.id))
    work = runs.work_for(own)
    status = await _open_status(runs.record, one)
    if status is not None and await runs_under(runs.record, one, run):
        if not status.get("cancel_requested"):
            await ask_to_cancel(runs.record, one)
        if work is None and await end_queued(runs.record, one):
            await tell_prefect(own, Cancelled(message="Cancelled while nobody ran it."))
    elif (batch := await _batch_of(runs.record, run)) is not None and await ask_batch_to_stop(runs.record, batch):
        if work is None:
            await _end_flow_run(runs, run, batch, goes_on=False)
    elif work is not None:
        work.cancel()
    else:
        await _end_flow_run(runs, run, one, goes_on=status is not None)


async def _batch_of(record: Record, run: FlowRun) -> str | None:
    """The batch that a flow run is at, or is to begin."""
    named = run.parameters.get("batch_id")
    return named if isinstance(named, str) else await batch_of(record, str(run.id))


async def _open_status(record: Record, deliberation_id: str) -> Body | None:
    """The status of a deliberation; None for one that is unknown or has ended."""
    status = await status_of(record, deliberation_id)
    return None if status is None or has_ended(status) else status


async def _end_flow_run(runs: Runs, run: FlowRun, deliberation_id: str, goes_on: bool) -> None:
    """End a flow run that no deliberation would end: one that waits in the queue, or that waits for another run."""
    own = str(run.id)
    request = await queued_request(runs.record, own) or await queued_request(runs.record, deliberation_id)
    if request is not None and request.run == own and request.flow != DELIBERATE:
        lease = await runs.leases.take(request.id)
        if lease is not None:  # else somebody is at it, and stops it
            try:
                await tell_prefect(own, Cancelled(message="Cancelled before it began."))
            finally:
                await runs.leases.release(lease)
    elif goes_on and own != deliberation_id and await _is_for_us(run):
        message = f"A second run of {deliberation_id}, which goes on in its first."
        await tell_prefect(own, Cancelled(message=message))


async def _is_for_us(run: FlowRun) -> bool:
    """Whether nobody else would end it: a worker of Prefect's own types stops the processes of its pool."""
    return run.work_pool_name is None or run.work_pool_name in await of_our_type()
