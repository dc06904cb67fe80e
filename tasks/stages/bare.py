"""The task asked without a council: no charter, no role, no ballots. The honest rival of every council."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from blocks.connections import connections
from tasks.council.models import Item
from tasks.council.prompts.propose import bare_messages
from tasks.stages.assignment import Assignment
from tasks.stages.member_stage import Fields, Question, open_member_stage
from tasks.stages.text_reply import TextReply


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def bare(assignment: Assignment) -> dict[str, int]:
    """Ask every item alone, with a member's model, temperature and limit; how many ended in which status."""
    async with connections():
        member_stage = await open_member_stage(assignment)
        return await member_stage.answer_all(AskingAlone(member_stage.member))


class AskingAlone(TextReply):
    """What is asked, and how it is read: as a proposal is, since only what is told differs."""

    async def question(self, item: Item) -> Question:
        """The task."""
        return self.asked(item, bare_messages(item))

    def read(self, item: Item, completion: Completion) -> Fields:
        """The text."""
        return self.written(item, completion)
