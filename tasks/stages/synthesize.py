"""The last stage: the chairman writes the decision from the best proposals and the ballots' reasons."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from tasks.council.models import Item
from tasks.council.progress.stage_end import salt_of
from tasks.council.prompts.synthesize import MAX_SOURCES, synthesis_messages
from tasks.stages.assignment import Assignment
from tasks.stages.member_stage import Fields, MemberStage, Question, answer_after
from tasks.stages.stage_gate import StageGate
from tasks.stages.text_reply import TextReply


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def synthesize(assignment: Assignment) -> dict[str, int]:
    """The chairman's syntheses of every item, each as soon as its ballots are in."""
    return await answer_after(Synthesizing, assignment)


class Synthesizing(TextReply):
    """What the chairman is shown, and how its text is read."""

    def __init__(self, member_stage: MemberStage, gate: StageGate) -> None:
        super().__init__(member_stage.member)
        self._member_stage, self._gate = member_stage, gate

    async def question(self, item: Item) -> Question | None:
        """The best proposals and what the ballots say of them; None where there is nothing to put together."""
        closing, member_stage = await self._gate.of(item), self._member_stage
        if self._member.agent_id not in closing.called:
            return None
        best = list(closing.proposals.items())[:MAX_SOURCES]
        texts, reviews = await asyncio.gather(
            asyncio.gather(*(member_stage.text_of(item, stage, author) for author, stage in best)),
            asyncio.gather(*(member_stage.answer_of(item, closing.stage, voter) for voter in closing.ballots)),
        )
        sources = {author: text for (author, _), text in zip(best, texts, strict=True)}
        ballots = [review.ballot for review in reviews if review and review.ballot]
        salt = salt_of(member_stage.plan.id, item.id, closing.stage)
        authors, prompts = list(closing.proposals), member_stage.plan.prompts
        return self.asked(item, synthesis_messages(self._member, item, sources, authors, ballots, salt, prompts))

    def read(self, item: Item, completion: Completion) -> Fields:
        """The text."""
        return self.written(item, completion)
