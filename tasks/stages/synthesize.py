"""The last stage: the chairman writes the decision from the best proposals and the ballots' reasons."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from tasks.council.models import Item
from tasks.council.progress.stage_end import salt_of
from tasks.council.prompts.synthesize import MAX_SOURCES, synthesis_messages
from tasks.stages.desk import answer_after
from tasks.stages.member_stage import Desk, Fields, Question
from tasks.stages.stage_gate import Closings
from tasks.stages.text_reply import Writing


@task(task_run_name="{stage} {agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def synthesize(
    deliberation_id: str,
    agent_id: str,
    stage: str,
    epoch: int,
    server_version: str | None,
    engine: str,
    installation: str,
) -> dict[str, int]:
    """The chairman's syntheses of every item, each as soon as its ballots are in; inputs as for `propose`."""
    return await answer_after(
        Synthesizing, deliberation_id, agent_id, stage, epoch, server_version, engine, installation
    )


class Synthesizing(Writing):
    """What the chairman is shown, and how its text is read."""

    def __init__(self, desk: Desk, closings: Closings) -> None:
        super().__init__(desk.member)
        self._desk, self._closings = desk, closings

    async def question(self, item: Item) -> Question | None:
        """The best proposals and what the ballots say of them; None where there is nothing to put together."""
        closing, desk = await self._closings.of(item), self._desk
        if self._member.agent_id not in closing.called:
            return None
        best = list(closing.proposals.items())[:MAX_SOURCES]
        texts, reviews = await asyncio.gather(
            asyncio.gather(*(desk.text_of(item, stage, author) for author, stage in best)),
            asyncio.gather(*(desk.answer_of(item, closing.stage, voter) for voter in closing.ballots)),
        )
        sources = {author: text for (author, _), text in zip(best, texts, strict=True)}
        ballots = [review.ballot for review in reviews if review and review.ballot]
        salt = salt_of(desk.plan.id, item.id, closing.stage)
        return Question(synthesis_messages(self._member, item, sources, list(closing.proposals), ballots, salt))

    def read(self, _item: Item, completion: Completion) -> Fields:
        """The text."""
        return self.written(completion)
