"""The first stage: each member writes its own proposal for every item."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from blocks.connections import connections
from tasks.council.models import Item
from tasks.council.prompts.propose import propose_messages
from tasks.stages.assignment import Assignment
from tasks.stages.member_stage import Fields, Question, open_member_stage
from tasks.stages.text_reply import TextReply


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def propose(assignment: Assignment) -> dict[str, int]:
    """One member's agent task: propose for every item; how many ended in which status."""
    async with connections():
        member_stage = await open_member_stage(assignment)
        return await member_stage.answer_all(Proposing(member_stage.member))


class Proposing(TextReply):
    """What a member is asked for its proposal."""

    async def question(self, item: Item) -> Question:
        """The same for all members up to their role."""
        return self.asked(item, propose_messages(self._member, item))

    def read(self, item: Item, completion: Completion) -> Fields:
        """The proposal."""
        return self.written(item, completion)
