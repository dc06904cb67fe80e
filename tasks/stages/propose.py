"""The first stage: each member writes its own proposal for every item."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from blocks.connections import connections
from tasks.council.models import Item
from tasks.council.prompts.propose import propose_messages
from tasks.stages.desk import desk_of
from tasks.stages.member_stage import Fields, Question
from tasks.stages.text_reply import Writing


@task(task_run_name="{stage} {agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def propose(
    deliberation_id: str,
    agent_id: str,
    stage: str,
    epoch: int,
    server_version: str | None,
    engine: str,
    installation: str,
) -> dict[str, int]:
    """One member's agent task: propose for every item; how many ended in which status.

    Its inputs are names only: the plan is read from the record and the server from its block, so no prompt and
    no secret is among them. `epoch` is of the run that it belongs to, `engine` what the server was found to be; an
    answer says so where there is one. `installation` is the driver's, whose record must be this host's.
    """
    async with connections():
        desk = await desk_of(deliberation_id, agent_id, stage, server_version, engine, installation)
        return await desk.answer_all(Proposing(desk.member))


class Proposing(Writing):
    """What a member is asked for its proposal."""

    async def question(self, item: Item) -> Question:
        """The same for all members up to their role."""
        return Question(propose_messages(self._member, item))

    def read(self, _item: Item, completion: Completion) -> Fields:
        """The proposal."""
        return self.written(completion)
