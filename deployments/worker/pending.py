"""Runs that were lost between Prefect and the queue: their worker was killed after Prefect called them Pending.

Prefect hands such a run to nobody again, so every living worker looks for them. One counts as lost when it is seen so
at both ends of `EVERY_S`, by this worker's clock alone. A Pending run whose request is in the queue waits for its turn,
and one of another type's pool for its process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from blocks.exceptions import RecordError, RecordUnavailable
from blocks.record.events import Record
from blocks.record.installation import pools
from deployments.worker.flow_runs import tell_prefect
from deployments.worker.pools import of_our_type
from deployments.worker.requests import UnknownFlow, request_for
from deployments.worker.runs import Runs
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_BRIEFLY, error_line, one_line
from tasks.deliberations.ownership import in_states, listed, ours_by_tag
from tasks.deliberations.submit import enqueue, id_of, queued_request

EVERY_S = 10.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Seen = dict[UUID, UUID | None]
"""Flow runs that looked lost, with the state that they were in."""


async def watch_pending(runs: Runs, log: Log) -> None:
    """Put what was lost between Prefect and the queue into the queue; never ends."""
    before: Seen = {}
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            before = await _look(runs, before, log)
        except (httpx.HTTPError, RecordError) as error:
            log.debug("pending runs are not seen just now: %s", error)


async def _look(runs: Runs, before: Seen, log: Log) -> Seen:
    """Take up what was lost at the last look, too; what is lost now."""
    lost: Seen = {}
    async for run in _pending(runs.record):
        try:
            if run.state is None or not await _is_lost(runs.record, run):
                continue
            lost[run.id] = run.state.id
            if run.id in before and before[run.id] == run.state.id:
                await _take_up(runs, run, log)
        except (httpx.TransportError, RecordUnavailable):
            raise
        except Exception as error:  # noqa: BLE001  # whatever one run brings up must not end the watch
            log.warning("flow run %s is left Pending: %s", run.id, error_line(error))
    return lost


async def _is_lost(record: Record, run: FlowRun) -> bool:
    """Whether no request for the run is in the queue, and nobody works under its id."""
    own, one = str(run.id), id_of(run.parameters, str(run.id))
    for waiting in {own, one}:
        request = await queued_request(record, waiting)
        if request is not None and request.run in (own, None):
            return False
        if await record.leases.held(waiting):
            return False
    return True


async def _take_up(runs: Runs, run: FlowRun, log: Log) -> None:
    lease = await runs.leases.take(f"pending.{run.id}")  # one worker is enough; ids of deliberations have no dot
    if lease is None:
        return
    try:
        if not await _is_lost(runs.record, run):
            return
        log.warning("flow run %s was lost on its way to the queue, and goes there now", run.id)
        await enqueue(runs.record, request_for(run, await _entrypoint(run)))
    except (UnknownFlow, InvalidRequest, ObjectNotFound) as error:  # none: its deployment was deleted
        reason = one_line(str(error), SHOWN_BRIEFLY)
        await tell_prefect(str(run.id), Crashed(message=f"Refused: {reason}"))
    finally:
        await runs.leases.release(lease)


async def _entrypoint(run: FlowRun) -> str | None:
    if run.deployment_id is None:
        return None
    async with get_client() as client:
        return (await client.read_deployment(run.deployment_id)).entrypoint


async def _pending(record: Record) -> AsyncIterator[FlowRun]:
    """Pending runs of ours in the pools of our type: those with our tag, and all of pools that our workers serve."""
    kind, served = await of_our_type(), await pools(record)
    if not kind:
        return
    of_kind = WorkPoolFilter(name=WorkPoolFilterName(any_=sorted(kind)))
    async for run in listed(in_states([StateType.PENDING]), work_pools=of_kind):
        ours = ours_by_tag(record, run)
        if ours or (ours is None and run.work_pool_name in served):
            yield run
