"""How far a deliberation is, told while it runs: an event on the record and a progress bar in Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from blocks.background import background
from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.events import Record
from tasks.artifacts.keys import artifact_key
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, Status
from tasks.council.outcome import Outcome

EVERY_S = 1.0
"""A deliberation shorter than this shows its progress only in its answers."""


@asynccontextmanager
async def progress(record: Record, plan: Deliberation, outcome: Outcome, engine: str) -> AsyncGenerator[None, None]:
    """Tell the progress once a second while the block runs; a failure to tell never fails the deliberation."""
    async with background(_tell(record, plan, outcome, engine)):
        yield


async def _tell(record: Record, plan: Deliberation, outcome: Outcome, engine: str) -> None:
    told = -1
    while True:
        await asyncio.sleep(EVERY_S)
        if outcome.answers == told:
            continue
        told = outcome.answers
        body = {
            "task_id": plan.id,
            "status": Status.IN_PROGRESS.value,
            "engine": engine,
            "counts": {
                **outcome.counts(len(plan.agenda)),
                "answers": told,
                "expected_answers": _expected(plan, outcome),
            },
        }
        try:
            await record.publish(subjects.progress(plan.id), f"{plan.id}:progress:{told}", "progress", body)
            await record.statuses.merge(plan.id, {"counts": body["counts"]})
            await _show(plan, engine, outcome)
        except (RecordError, httpx.HTTPError, PrefectException) as error:
            get_run_logger().debug("progress could not be told: %s", error)


async def move_bar(plan: Deliberation, outcome: Outcome) -> None:
    """Move the progress bar, if there is one, to where the deliberation is."""
    if outcome.bar is not None:
        await aupdate_progress_artifact(outcome.bar, 100 * outcome.answers / _expected(plan, outcome))


async def _show(plan: Deliberation, engine: str, outcome: Outcome) -> None:
    """Move the bar, or make it at first."""
    if outcome.bar is not None:
        await move_bar(plan, outcome)
        return
    simulated = " (simulated)" if engine == SIMULATOR else ""
    description = f"Answers of council {plan.council.name}{simulated}"
    key = artifact_key("progress", plan.id)
    percent = 100 * outcome.answers / _expected(plan, outcome)
    outcome.bar = await acreate_progress_artifact(percent, key=key, description=description)


def _expected(plan: Deliberation, outcome: Outcome) -> int:
    """Answers at the end, as far as is known: fewer with every stage that is skipped."""
    return len(plan.agenda) * len(plan.posts) - outcome.unneeded
