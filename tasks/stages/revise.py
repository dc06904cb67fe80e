"""A round of revision: each author revises its own proposal from the critiques of the others."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from tasks.council.models import Item
from tasks.council.progress.stage_end import salt_of
from tasks.council.prompts.revise import critiques_of, revise_messages
from tasks.stages.assignment import Assignment
from tasks.stages.member_stage import Fields, MemberStage, Question, answer_after
from tasks.stages.stage_gate import StageGate
from tasks.stages.text_reply import TextReply


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def revise(assignment: Assignment) -> dict[str, int]:
    """One member's revisions for every item, each as soon as its critiques are in."""
    return await answer_after(Revising, assignment)


class Revising(TextReply):
    """What an author is shown of the critiques, and how its new text is read."""

    def __init__(self, member_stage: MemberStage, gate: StageGate) -> None:
        super().__init__(member_stage.member)
        self._member_stage, self._gate = member_stage, gate
        self._earlier: dict[str, tuple[str, ...]] = {}

    async def question(self, item: Item) -> Question | None:
        """The author's own text and what the others' ballots say of it; None for one that nobody judged."""
        closing, author = await self._gate.of(item), self._member.agent_id
        if author not in closing.called:
            return None
        standing, *reviews = await asyncio.gather(
            self._member_stage.answer_of(item, closing.proposals[author], author),
            *(self._member_stage.answer_of(item, closing.stage, voter) for voter in closing.ballots),
        )
        assert standing and standing.proposal
        text = standing.proposal.content
        self._earlier[item.id] = (*standing.proposal.revisions, text)
        salt = salt_of(self._member_stage.plan.id, item.id, self._member_stage.stage)
        critiques = critiques_of(author, [review.ballot for review in reviews if review and review.ballot], salt)
        prompts = self._member_stage.plan.prompts
        return self.asked(item, revise_messages(self._member, item, text, critiques, salt, prompts))

    def read(self, item: Item, completion: Completion) -> Fields:
        """The new text, with the earlier ones kept."""
        return self.written(item, completion, self._earlier.pop(item.id))
