"""A real run through the doors: created in Prefect, taken by a worker, through the queue to its end, and deleted."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from blocks.documents import open_record
from blocks.exceptions import ConclaveError
from blocks.names import stored
from blocks.record.queue import backlog
from tasks.operate.diagnose import UP, Busy, Told

ROUNDTRIP = "roundtrip"
"""The flow and deployment whose runs do nothing."""
RUN_S = 20.0
"""How long such a run may take to come through."""
LOOK_S = 0.25
FORGET_S = 5.0


class NotThrough(Told):
    """A run does not come through Prefect, the queue and a worker."""


async def run_comes_through() -> str:
    """A run that Prefect is asked for goes to a worker, through the queue, and ends; then it is deleted.

    Raises NotThrough, and Busy where it waits behind others.
    """
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(f"{ROUNDTRIP}/{stored(ROUNDTRIP)}")
        except ObjectNotFound as error:
            raise NotThrough(f"Prefect has no deployment {stored(ROUNDTRIP)}, which `{UP}` makes") from error
        run = await client.create_flow_run_from_deployment(deployment.id)
        try:
            run = await _ended(client, run)
            if run.state is not None and run.state.is_completed():
                return "a run came through Prefect, the queue and a worker"
            raise await _why_not(client, run, deployment.work_pool_name or "")
        finally:
            with suppress(httpx.HTTPError, ObjectNotFound, TimeoutError):
                async with asyncio.timeout(FORGET_S):
                    await client.delete_flow_run(run.id)


async def _ended(client: PrefectClient, run: FlowRun) -> FlowRun:
    """The run once it has ended, or as it is when it may take no longer."""
    deadline = time.monotonic() + RUN_S
    while (run.state is None or not run.state.is_final()) and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        run = await client.read_flow_run(run.id)
    return run


async def _why_not(client: PrefectClient, run: FlowRun, pool: str) -> ConclaveError:
    """What to say of a run that did not come through."""
    if run.state is not None and run.state.is_final():
        return NotThrough(f"a run that does nothing ended {run.state.name}: {run.state.message}")
    if run.state is not None and not run.state.is_scheduled():
        queue = await backlog(await open_record())
        if queue.waiting + queue.in_work > 1:
            return Busy(
                f"a run waits for {RUN_S:g} s already behind others: {queue.waiting + queue.in_work - 1} requests"
            )
        return NotThrough(f"a run was taken from Prefect, and did not end within {RUN_S:g} s")
    try:  # as every worker asks
        await client.get_scheduled_flow_runs_for_work_pool(pool, scheduled_before=datetime.now(UTC))
    except httpx.HTTPStatusError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        return NotThrough(
            f"Prefect answers {answer} to every worker that asks which runs are due: there is one that it cannot read, "
            "and no other is run until that one is gone"
        )
    return NotThrough(f"no worker has taken a run from Prefect's pool {pool} within {RUN_S:g} s")
