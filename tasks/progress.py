"""How far a deliberation is, told while it runs: an event on the record and a progress bar in Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from blocks.background import end
from blocks.exceptions import RecordError
from blocks.record import Record
from tasks.artifact_keys import artifact_key
from tasks.council.models import Deliberation, Status
from tasks.outcome import Outcome

EVERY_S = 1.0
"""A deliberation shorter than this shows its progress only in its answers."""
LAST_S = 2.0
"""How long the last word on the progress may take."""


@asynccontextmanager
async def progress(record: Record, plan: Deliberation, outcome: Outcome, engine: str) -> AsyncGenerator[None, None]:
    """Tell the progress once a second while the block runs; a failure to tell never fails the deliberation."""
    bars: list[UUID] = []
    teller = asyncio.create_task(_tell(record, plan, outcome, engine, bars))
    try:
        yield
    finally:
        await end([teller])
        with suppress(TimeoutError, httpx.HTTPError, PrefectException):
            async with asyncio.timeout(LAST_S):
                if bars:
                    await _show(plan, engine, outcome, bars)


async def _tell(record: Record, plan: Deliberation, outcome: Outcome, engine: str, bars: list[UUID]) -> None:
    told = -1
    expected = _expected(plan)
    while True:
        await asyncio.sleep(EVERY_S)
        if outcome.answers == told:
            continue
        told = outcome.answers
        body = {
            "task_id": plan.id,
            "status": Status.IN_PROGRESS.value,
            "engine": engine,
            "counts": {**outcome.counts(len(plan.agenda)), "answers": told, "expected_answers": expected},
        }
        try:
            await record.publish(f"deliberations.{plan.id}.progress", f"{plan.id}:progress:{told}", "progress", body)
            await record.merge_status(plan.id, {"counts": body["counts"]})
            await _show(plan, engine, outcome, bars)
        except (RecordError, httpx.HTTPError, PrefectException) as error:
            get_run_logger().debug("progress could not be told: %s", error)


async def _show(plan: Deliberation, engine: str, outcome: Outcome, bars: list[UUID]) -> None:
    """Move the bar, or make it at first; `bars` holds the one there is."""
    percent = 100 * outcome.answers / _expected(plan)
    if bars:
        await aupdate_progress_artifact(bars[0], percent)
        return
    simulated = " (simulated)" if engine == "simulator" else ""
    description = f"Answers of council {plan.council.name}{simulated}"
    key = artifact_key("progress", plan.id)
    bars.append(await acreate_progress_artifact(percent, key=key, description=description))


def _expected(plan: Deliberation) -> int:
    return len(plan.agenda) * len(plan.council.members)
