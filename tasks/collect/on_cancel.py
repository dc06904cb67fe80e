"""A run that its worker has stopped: what it leaves open on the record is ended there.

Prefect's process worker stops a run by SIGTERM, and calls the hooks of a cancel from itself once the process is gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from blocks.connections import connections
from blocks.documents import open_leases, open_record
from tasks.collect.end import end
from tasks.council.models import Status
from tasks.deliberations.ownership import runs_under
from tasks.deliberations.read import status_of
from tasks.deliberations.submit import id_of

END_S = 30.0
"""How long it may take: the lease of a process that was killed is forgotten after 6 s."""


async def end_cancelled(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook `on_cancellation`: the flag, which ends the members' calls, then the end from what stands on the record.

    A run that only waited for another one of the same id ends nothing. Raises RecordError and TimeoutError; then
    housekeeping ends the deliberation.
    """
    deliberation_id = id_of(flow_run.parameters, str(flow_run.id))
    asked = {name: value for name, value in flow_run.parameters.items() if name != "deliberation_id"}
    async with asyncio.timeout(END_S), connections():
        record = await open_record()
        status = await status_of(record, deliberation_id)
        if status is None or Status(status["status"]).final:
            return
        if not await runs_under(record, deliberation_id, flow_run):
            return
        await record.merge_status(deliberation_id, {"cancel_requested": True})
        async with (await open_leases()).hold(deliberation_id) as lease:
            await end(record, deliberation_id, lease, asked)
