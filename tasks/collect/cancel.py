"""Cancelling: the flag that whoever runs a deliberation hears, and the end of one that nobody runs.

What a run leaves open that its worker has stopped is ended by a hook: Prefect's process worker stops a run by SIGTERM,
and calls the hooks of a cancel from itself once the process is gone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from blocks.connections import connections
from blocks.documents import open_leases, open_record
from blocks.record import subjects
from blocks.record.events import Record
from tasks.collect.end import end
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import check_id
from tasks.deliberations.ownership import runs_under
from tasks.deliberations.read import has_ended, status_of
from tasks.deliberations.submit import DELIBERATE, ask_to_cancel, asked_in, id_of, queued_request
from tasks.deliberations.watch import end_of

CANCEL_S = 60.0
"""How long a cancel is waited for where somebody runs the deliberation; two seconds are usual."""
END_S = 30.0
"""How long the hook may take: the lease of a process that was killed is forgotten after 6 s."""


async def cancel(record: Record, deliberation_id: str) -> tuple[str | None, str | None]:
    """Ask it to stop and wait for its end: the final status it had before, and the one it has now.

    None stands for no final status yet. One that has ended gets the flag, too: an evaluation of that id may still make
    calls beside its council. Raises InvalidRequest for an unknown id, and RecordError.
    """
    if await status_of(record, check_id(deliberation_id)) is None:
        raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
    finished = await record.last(subjects.finished(deliberation_id))
    if finished is not None:
        await record.statuses.merge(deliberation_id, {"cancel_requested": True})
        return finished.body["status"], finished.body["status"]
    await ask_to_cancel(record, deliberation_id)
    await end_queued(record, deliberation_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_S):
            return None, await end_of(record, deliberation_id)
    return None, None


async def end_queued(record: Record, deliberation_id: str) -> bool:
    """End a deliberation that waits in the queue, at once and not when its turn comes; whether that was done.

    Whoever runs one hears the flag by itself. Raises RecordError.
    """
    request = await queued_request(record, deliberation_id)
    if request is None or request.flow != DELIBERATE:
        return False
    leases = await open_leases()
    lease = await leases.take(deliberation_id)
    if lease is None:
        return False
    try:
        await end(record, deliberation_id, lease, request.asked)
    finally:
        await leases.release(lease)
    return True


async def end_cancelled(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook `on_cancellation`: the flag, which ends the members' calls, then the end from what stands on the record.

    A run that only waited for another one of the same id ends nothing. Raises RecordError and TimeoutError; then
    housekeeping ends the deliberation.
    """
    deliberation_id = id_of(flow_run.parameters, str(flow_run.id))
    asked = asked_in(flow_run.parameters)
    async with asyncio.timeout(END_S), connections():
        record = await open_record()
        status = await status_of(record, deliberation_id)
        if status is None or has_ended(status):
            return
        if not await runs_under(record, deliberation_id, flow_run):
            return
        await ask_to_cancel(record, deliberation_id)
        async with (await open_leases()).hold(deliberation_id) as lease:
            await end(record, deliberation_id, lease, asked)
