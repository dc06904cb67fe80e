"""The flow `diagnostics`: the canary. Every part gives a real answer, or the run fails and names who does not.

It runs where deliberations run, so it also shows that a worker takes flow runs and that Ray runs their tasks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.task_runner import BlockTaskRunner
from tasks.council.base import Name
from tasks.operate.diagnose import (
    APART,
    UP,
    agents_answer,
    asked,
    councils_answer,
    health_state,
    installation_answers,
    look_at,
    record_answers,
    show_findings,
    task_answers,
    worker_answers,
)


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="diagnostics",
    task_runner=BlockTaskRunner(),
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
)
async def diagnostics(councils: list[Name] | None = None) -> State[Any]:
    """Ask every part for a real answer.

    Args:
        councils: Only the models of these councils' members; all councils where left out.
    """
    async with connections():
        findings = [
            await asked("record", record_answers, "conclave logs nats"),
            await asked("installation", installation_answers, APART),
            await asked("worker", worker_answers, UP),
            await asked("agents", agents_answer, "conclave logs ray"),
            await asked("task", task_answers, "conclave logs ray"),
        ]
        findings += [finding async for finding in councils_answer(councils or [], look_at)]
        await show_findings(findings)
        return health_state(findings)
