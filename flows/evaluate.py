"""The flow `evaluate`: is a council better than one call?

A table of contents: the questions are read and their checks tried, one deliberation answers all of them, every way to
an answer is scored over it, and Prefect shows the result. What is answered stands on the record, so the same id again
repeats no call, and a check that was changed is applied to the same answers.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.task_runner import with_agents
from flows.deliberate import deliberate
from tasks.collect.cancel import end_cancelled
from tasks.council.base import Name
from tasks.council.council import Deadline, Members, Rounds
from tasks.evaluate.question_files import questions_named
from tasks.evaluate.steps import check_size, evaluated, is_answered, score, show


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="evaluate",
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
    validate_parameters=False,  # as there, the request does, and names the field
    on_cancellation=[end_cancelled],
)
async def evaluate(
    questions: str,
    council: Name = "dev",
    members: Members | None = None,
    rounds: Rounds | None = None,
    deadline_s: Deadline | None = None,
    deliberation_id: Name | None = None,
) -> State[Any]:
    """Compare single sample, majority, rank and synthesize over the same proposals.

    Args:
        questions: A JSONL file in the folder that the worker's CONCLAVE_EVALUATIONS names: one object a line with
            `task`, `check` and what an item may have.
        council: Name of the council block.
        members: The council's first N members, or more of them in the same roles.
        rounds: How often each author revises its proposal, 0 to 3; the council's own where left out.
        deadline_s: Seconds for each question; the council's own where left out.
        deliberation_id: Its id; the flow run's where left out. The same id again resumes.
    """
    asked, chosen_id = await questions_named(questions), deliberation_id or str(flow_run.id)
    await check_size(asked)
    async with connections():
        await asked.check_predicates()
        council_flow: Any = await with_agents(deliberate)
        answered: State[Any] = await council_flow(
            items=asked.items,
            council=council,
            strategy="synthesize",
            rounds=rounds,
            members=members,
            deadline_s=deadline_s,
            deliberation_id=chosen_id,
            return_state=True,
        )
        if not await is_answered(chosen_id, answered):
            return answered
        evaluation, sheet = await score(chosen_id, asked)
        await show(evaluation)
        return evaluated(evaluation, sheet)
