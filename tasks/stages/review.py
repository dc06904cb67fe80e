"""A review: each author ranks the others' proposals, without knowing whose they are."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.chat import Completion
from tasks.council.models import Item, MemberStatus
from tasks.council.progress.stage_end import salt_of
from tasks.council.prompts.ballot_forms import BallotForm, ballot_form
from tasks.council.prompts.review import ask_again
from tasks.council.replies import read_reply
from tasks.council.voting.ballots import InvalidBallot, Sheet, sheets
from tasks.stages.assignment import Assignment
from tasks.stages.member_stage import Fields, MemberStage, Question, answer_after
from tasks.stages.stage_gate import StageGate


@task(task_run_name="{assignment.stage} {assignment.agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def review(assignment: Assignment) -> dict[str, int]:
    """One member's ballots on every item, each as soon as the item's texts are in."""
    return await answer_after(Reviewing, assignment)


class Reviewing:
    """What a member is shown and asked for its ballot, and how it is read."""

    def __init__(self, member_stage: MemberStage, gate: StageGate) -> None:
        self._member_stage, self._gate = member_stage, gate
        self._sheets: dict[str, tuple[Sheet, BallotForm]] = {}

    async def question(self, item: Item) -> Question | None:
        """The others' proposals under labels; None for a member without one of its own."""
        closing, member_stage = await self._gate.of(item), self._member_stage
        if member_stage.member.agent_id not in closing.called:
            return None
        plan = member_stage.plan
        salt = salt_of(plan.id, item.id, member_stage.stage)
        sheet = sheets(closing.proposals, closing.called, salt)[member_stage.member.agent_id]
        form = ballot_form(item, plan.feeds_revision(member_stage.stage), plan.prompts, member_stage.member, sheet)
        self._sheets[item.id] = (sheet, form)
        stands = closing.proposals.items()
        texts = await asyncio.gather(*(member_stage.text_of(item, stage, author) for author, stage in stands))
        proposals = dict(zip(closing.proposals, texts, strict=True))
        schema = {"name": "ballot", "schema": form.schema(sheet), "strict": True}
        return Question(
            form.messages(member_stage.member, item, sheet, proposals, salt),
            {"response_format": {"type": "json_schema", "json_schema": schema}},
        )

    def read(self, item: Item, completion: Completion) -> Fields:
        """The ballot, validated again: structured output is not to be trusted."""
        reply = read_reply(completion.content, completion.finish_reason, completion.reasoning)
        if reply.status is not MemberStatus.OK:
            return {"status": reply.status, "error": reply.reason, "error_type": reply.status.value}
        sheet, form = self._sheets[item.id]
        try:
            return {"status": MemberStatus.OK, "ballot": form.read(reply.content, sheet)}
        except InvalidBallot as error:
            return {"status": MemberStatus.INVALID, "error": str(error), "error_type": "InvalidBallot"}

    def again(self, question: Question, completion: Completion, fields: Fields) -> Question | None:
        """The same chat with the answer and what is wrong with it, where it was no ballot."""
        if fields["status"] is MemberStatus.OK:
            return None
        field, _, problem = str(fields["error"]).partition(": ")
        told = InvalidBallot(field, problem or field)
        return Question(ask_again(question.messages, completion.content or "", told), question.extra)
