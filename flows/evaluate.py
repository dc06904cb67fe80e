"""The flow `evaluate`: is a council better than one call?

A table of contents: the questions are read and their checks tried, one deliberation answers all of them, its rivals do
(plain calls, and the same council in waves), every way to an answer is scored, and Prefect shows the result. What is
answered stands on the record, so the same id again repeats no call, and a check that was changed is applied to the same
answers.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings
from prefect.states import Cancelled

from blocks.connections import connections
from blocks.ray_agents import waiting_only
from blocks.task_runner import BlockTaskRunner, with_agents
from flows.deliberate import deliberate
from tasks.collect.agents import AgentKey
from tasks.collect.cancel import end_cancelled
from tasks.council.base import Name
from tasks.council.council import Deadline, Members, Rounds
from tasks.evaluate.bare import all_ended, bare_assignments
from tasks.evaluate.cancelling import cancelled_with, forget_past_cancel, is_to_stop
from tasks.evaluate.question_files import questions_named
from tasks.evaluate.steps import check_size, evaluated, in_waves, is_answered, score, show, was_cancelled
from tasks.stages.bare import bare


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="evaluate",
    task_runner=BlockTaskRunner(),
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
    rivals: bool = True,
    deliberation_id: Name | None = None,
) -> State[Any]:
    """Compare single sample, majority, rank and synthesize over the same proposals, and with plain calls.

    Args:
        questions: A JSONL file in the folder that the worker's CONCLAVE_EVALUATIONS names: one object a line with
            `task`, `check` and what an item may have.
        council: Name of the council block.
        members: The council's first N members, or more of them in the same roles.
        rounds: How often each author revises its proposal, 0 to 3; the council's own where left out.
        deadline_s: Seconds for each question; the council's own where left out.
        rivals: Also ask the task alone, five times for each question, and once more in waves (`escalate`).
        deliberation_id: Its id; the flow run's where left out. The same id again resumes.
    """
    asked, chosen_id = await questions_named(questions), deliberation_id or str(flow_run.id)
    waves_id = in_waves(chosen_id) if rivals else None
    await check_size(asked)
    async with connections():
        await asked.try_checks()
        await forget_past_cancel(chosen_id)
        council_flow: Any = await with_agents(deliberate)
        request = {"items": asked.items, "council": council, "members": members, "deadline_s": deadline_s}
        answered: State[Any] = await council_flow(
            **request, strategy="synthesize", rounds=rounds, deliberation_id=chosen_id, return_state=True
        )
        if not await is_answered(chosen_id, answered):
            return answered
        if waves_id is not None:
            if not await _asked_alone(chosen_id):
                return Cancelled(message="cancelled while the questions were asked alone")
            if not await was_cancelled(waves_id):  # one that was stays so, and its arm is left out
                async with cancelled_with(chosen_id, waves_id):
                    escalated = await council_flow(
                        **request, strategy="escalate", deliberation_id=waves_id, return_state=True
                    )
                if not await is_answered(waves_id, escalated):
                    return escalated
        evaluation, sheet = await score(chosen_id, asked, rivals)
        await show(evaluation)
        return evaluated(evaluation, sheet)


async def _asked_alone(deliberation_id: str) -> bool:
    """Put every question to the members' models alone; False where the cancel was asked for, since the run began."""
    if await is_to_stop(deliberation_id):
        return False
    with waiting_only():
        agents = {
            AgentKey(assignment.agent_id, assignment.stage): bare.submit(assignment)
            for assignment in await bare_assignments(deliberation_id)
        }
    return await all_ended(deliberation_id, agents) and not await is_to_stop(deliberation_id)
