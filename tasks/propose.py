"""The first stage: each member writes its own proposal for every item."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.completions import Completion
from blocks.connections import connections
from tasks.answering import Fields, Question
from tasks.council.answers import read_reply
from tasks.council.models import Item, Member
from tasks.council.prompts import propose_messages
from tasks.council.proposals import Proposal
from tasks.council.stages import PROPOSE
from tasks.desk import desk_of


@task(task_run_name="propose {agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def propose(
    deliberation_id: str, agent_id: str, server_version: str | None = None, engine: str = "unknown"
) -> dict[str, int]:
    """One member's agent task: propose for every item; how many ended in which status.

    Its inputs are names only: the plan is read from the record and the server from its block, so no prompt and
    no secret is among them. `engine` is what the server was found to be; an answer says so where there is one.
    """
    async with connections():
        desk = await desk_of(deliberation_id, agent_id, server_version, engine)
        return await desk.answer_all(Proposing(desk.member))


class Proposing:
    """What a member is asked for its proposal, and how the text is read."""

    stage = PROPOSE

    def __init__(self, member: Member) -> None:
        self._member = member

    async def question(self, item: Item) -> Question:
        """The same for all members up to their role."""
        return Question(propose_messages(self._member, item))

    def read(self, _item: Item, completion: Completion) -> Fields:
        """The proposal, with thinking kept apart; without a text there is none."""
        reply = read_reply(completion.content, completion.finish_reason, completion.reasoning)
        proposal = Proposal(
            author_id=self._member.agent_id,
            author_role=self._member.role,
            content=reply.content,
            model=completion.model,
            tokens=completion.usage.completion_tokens,
            finish_reason=completion.finish_reason or "none",
            reasoning=reply.reasoning,
        )
        return {
            "status": reply.status,
            "proposal": proposal if reply.content else None,
            "error": reply.reason,
            "error_type": None if reply.reason is None else reply.status.value,
        }

    def again(self, _question: Question, _completion: Completion, _fields: Fields) -> None:
        """A proposal stands as it came."""
