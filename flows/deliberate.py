"""The flow `deliberate`: a council decides a task, or an agenda of tasks.

Needs the blocks that `conclave up` makes: the councils, their model servers, the JetStream. Async, because a
sync flow waits up to a second at its end, and never retried: what is finished stands on the record, so the
same deliberation is simply run again under its id.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.documents import open_leases, open_record
from blocks.exceptions import Superseded
from blocks.ray_agents import waiting_only
from blocks.record.events import Record
from blocks.task_runner import BlockTaskRunner, untraversed
from tasks.artifacts.artifacts import record_artifacts
from tasks.collect.admission import Admission
from tasks.collect.agents import AgentKey, watch_agents
from tasks.collect.cancel import end_cancelled
from tasks.collect.collect import collect
from tasks.collect.collector import Collector
from tasks.collect.inbox import INBOX
from tasks.collect.pacing import pace_of
from tasks.collect.states import final_state, left_to
from tasks.council.base import Name, Text
from tasks.council.council import Deadline, Grace, Members, Rounds
from tasks.council.form import AnswerForm, ItemForm, JsonForm
from tasks.council.models import Budget, DeliberationRequest
from tasks.council.outcome import Outcome
from tasks.council.stages import REVIEW, REVISE, SYNTHESIZE, Strategy, kind_of
from tasks.deliberations.plan import Session, begin, convened
from tasks.deliberations.submit import asked_in
from tasks.stages.assignment import assign
from tasks.stages.propose import propose
from tasks.stages.review import review
from tasks.stages.revise import revise
from tasks.stages.synthesize import synthesize

AGENT_TASKS = {"propose": propose, REVIEW: review, REVISE: revise, SYNTHESIZE: synthesize}
"""The agent task of each kind of stage."""


# A result storage that is named keeps Prefect from asking the server for one in every run; nothing is persisted.
@flow(
    name="deliberate",
    task_runner=BlockTaskRunner(),
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
    validate_parameters=False,  # DeliberationRequest does, and names the field
    on_cancellation=[end_cancelled],
)
async def deliberate(
    task: Text | None = None,
    items: list[ItemForm] | None = None,
    council: Name = "dev",
    rubric: Text | None = None,
    requirements: list[Text] | None = None,
    context: JsonForm | None = None,
    answer_format: AnswerForm | None = None,
    strategy: Strategy | None = None,
    rounds: Rounds | None = None,
    members: Members | None = None,
    quorum: Members | None = None,
    grace_s: Grace | None = None,
    deadline_s: Deadline | None = None,
    metadata: JsonForm | None = None,
    budget: Budget | None = None,
    deliberation_id: Name | None = None,
) -> State[Any]:
    """Let a council decide.

    Args:
        task: The one task to decide (in the form, press str to write it); or give items.
        items: Several tasks, each an object with `task` and optionally `id`, `rubric`, `requirements`, `context`.
        council: Name of a council, such as dev, qa, architect, devops or data; a block of type Council.
        rubric: How proposals are judged.
        requirements: What a proposal has to meet, one thing in each line of the list.
        context: Facts that the members should know, an object.
        answer_format: Form of a closed answer, for example {"type": "choice", "options": ["yes", "no"]}.
        strategy: propose: deterministic checks decide; rank: blind ballots; synthesize: a chairman, after them;
            escalate: one member, and more of them only where the answers differ.
        rounds: How often each author revises its proposal, 0 to 3; the council's own where left out.
        members: The council's first N members, or more of them in the same roles.
        quorum: Answers that decide; floor(n/2) + 1 where left out.
        grace_s: Seconds to wait after the quorum; until the deadline where left out.
        deadline_s: Seconds for each item; the council's own where left out.
        metadata: Carried along.
        budget: The most that it may use: `max_calls`, `max_tokens`, `max_s`. Used up, no further item begins.
        deliberation_id: Its id; the flow run's where left out. The same id again resumes.
    """
    request = DeliberationRequest.read(asked_in(locals()))
    async with connections():
        record, leases, run = await open_record(), await open_leases(), str(flow_run.id)
        session = await convened(record, deliberation_id or run, request)
        try:
            async with leases.hold(session.plan.id) as lease:
                begun = await begin(record, session, lease, run, flow_run.ui_url)
                async with pace_of(begun.plan) as admission:
                    outcome = await deliberated(record, begun, admission)
        except Superseded as error:
            raise await left_to(record, session.plan.id, error, run) from error
        await record_artifacts(untraversed(session.plan), untraversed(outcome))
        return final_state(session.plan, outcome)


async def deliberated(record: Record, session: Session, admission: Admission | None = None) -> Outcome:
    """Call the members in, who must work on the record of the same installation, and decide."""
    inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX)
    collector = Collector(session, record, inbox, admission=admission)
    first = None if admission is None else await collector.begin()
    with waiting_only():
        agents = {}
        for member, stage in session.absent:
            server = session.servers[member.server]
            told = (session.epoch, record.installation, first, collector.is_of_batch)
            assignment = assign(session.plan.id, member, stage, server, *told)
            agents[AgentKey(member.agent_id, stage)] = AGENT_TASKS[kind_of(stage)].submit(assignment)
    async with watch_agents(agents, inbox):
        return await collect(untraversed(session), untraversed(collector))
