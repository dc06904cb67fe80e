"""A proposal: each member writes its own for every item, in the first stage or in the wave that asks it."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from blocks.connections import connections
from tasks.council.models import Item
from tasks.council.prompts.propose import propose_messages
from tasks.council.stages import PROPOSE
from tasks.stages.assignment import Assignment
from tasks.stages.dispatch import dispatched
from tasks.stages.member_stage import Fields, MemberStage, Question, answer_after, open_member_stage
from tasks.stages.stage_gate import StageGate
from tasks.stages.text_reply import TextReply


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def propose(assignment: Assignment) -> dict[str, int]:
    """One member's agent task: propose for every item; how many ended in which status."""
    if assignment.stage != PROPOSE:
        return await answer_after(ProposingLater, assignment)
    async with connections():
        member_stage = await open_member_stage(assignment)
        begun = None
        if assignment.first is not None:
            record, plan = member_stage.record, member_stage.plan
            begun = dispatched(record, plan, assignment.epoch, assignment.first)
        return await member_stage.answer_all(Proposing(member_stage), begun)


class Proposing(TextReply):
    """What a member is asked for its proposal."""

    def __init__(self, member_stage: MemberStage) -> None:
        super().__init__(member_stage.member)
        self._plan = member_stage.plan

    async def question(self, item: Item) -> Question | None:
        """The same for all members up to their role; None for one that is not asked first."""
        if self._member.agent_id not in self._plan.called_first(item):
            return None
        return self.asked(item, propose_messages(self._member, item, self._plan.prompts))

    def read(self, item: Item, completion: Completion) -> Fields:
        """The proposal."""
        return self.written(item, completion)


class ProposingLater(Proposing):
    """The same of a member that is asked only where the wave before left something open."""

    def __init__(self, member_stage: MemberStage, gate: StageGate) -> None:
        super().__init__(member_stage)
        self._gate = gate

    async def question(self, item: Item) -> Question | None:
        """The task, once it is known that it has to be asked; None where it has not."""
        closing = await self._gate.of(item)
        if self._member.agent_id not in closing.called:
            return None
        return self.asked(item, propose_messages(self._member, item, self._plan.prompts))
