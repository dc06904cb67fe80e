"""The second stage: each author ranks the others' proposals, without knowing whose they are."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.background import background
from blocks.completions import Completion
from blocks.connections import connections
from blocks.exceptions import RecordError
from blocks.record import Record
from tasks.answering import Fields, Question
from tasks.council.answers import read_reply
from tasks.council.ballots import (
    Criterion,
    InvalidBallot,
    Sheet,
    ask_again,
    ballot_schema,
    criteria_of,
    read_ballot,
    review_messages,
    sheets,
)
from tasks.council.models import Deliberation, Item, Member, MemberStatus
from tasks.council.proposals import Answer
from tasks.council.stages import PROPOSE, REVIEW
from tasks.desk import desk_of


@task(task_run_name="review {agent_id}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def review(
    deliberation_id: str, agent_id: str, server_version: str | None = None, engine: str = "unknown"
) -> dict[str, int]:
    """One member's ballots on every item, each as soon as the item's proposals are in; inputs as for `propose`."""
    async with connections():
        desk = await desk_of(deliberation_id, agent_id, server_version, engine)
        reviewing = Reviewing(desk.plan, desk.member, desk.record)
        async with background(reviewing.hear()):
            return await desk.answer_all(reviewing)


class Reviewing:
    """What a member is shown and asked for its ballot, and how it is read."""

    stage = REVIEW

    def __init__(self, plan: Deliberation, member: Member, record: Record) -> None:
        self._plan, self._member, self._record = plan, member, record
        self._closed: dict[str, asyncio.Future[list[str]]] = {}
        self._sheets: dict[str, tuple[Sheet, tuple[Criterion, ...]]] = {}

    async def hear(self) -> None:
        """Take note of every item whose proposals are in: from then on only its listed authors count."""
        pattern = closed_subject(self._plan.id, "*", PROPOSE)
        try:
            async with aclosing(self._record.follow(pattern)) as events:
                async for event in events:
                    closing = self._closing(event.subject.split(".")[3])
                    if not closing.done():
                        closing.set_result(list(event.body["authors"]))
        except RecordError as error:
            for closing in self._closed.values():
                if not closing.done():
                    closing.set_exception(error)
            raise

    async def question(self, item: Item) -> Question | None:
        """The others' proposals under labels; None for a member without one of its own."""
        authors = await self._closing(item.id)
        if self._member.agent_id not in authors:
            return None
        salt = f"{self._plan.id}:{item.id}:{self.stage}"
        sheet, criteria = sheets(authors, authors, salt)[self._member.agent_id], criteria_of(item.rubric)
        self._sheets[item.id] = (sheet, criteria)
        texts = await asyncio.gather(*(self._text(item, author) for author in authors))
        proposals = dict(zip(authors, texts, strict=True))
        schema = {"name": "ballot", "schema": ballot_schema(sheet.labels, criteria), "strict": True}
        return Question(
            review_messages(self._member, item, sheet, proposals, criteria, salt),
            {"response_format": {"type": "json_schema", "json_schema": schema}},
        )

    def read(self, item: Item, completion: Completion) -> Fields:
        """The ballot, validated again: structured output is not to be trusted."""
        reply = read_reply(completion.content, completion.finish_reason, completion.reasoning)
        if reply.status is not MemberStatus.OK:
            return {"status": reply.status, "error": reply.reason, "error_type": reply.status.value}
        try:
            return {"status": MemberStatus.OK, "ballot": read_ballot(reply.content, *self._sheets[item.id])}
        except InvalidBallot as error:
            return {"status": MemberStatus.INVALID, "error": str(error), "error_type": "InvalidBallot"}

    def again(self, question: Question, completion: Completion, fields: Fields) -> Question | None:
        """The same chat with the answer and what is wrong with it, where it was no ballot."""
        if fields["status"] is MemberStatus.OK:
            return None
        field, _, problem = str(fields["error"]).partition(": ")
        told = InvalidBallot(field, problem or field)
        return Question(ask_again(question.messages, completion.content or "", told), question.extra)

    def _closing(self, item_id: str) -> asyncio.Future[list[str]]:
        return self._closed.setdefault(item_id, asyncio.get_running_loop().create_future())

    async def _text(self, item: Item, author: str) -> str:
        event = await self._record.last(f"answers.{self._plan.id}.{item.id}.{PROPOSE}.{author}")
        answer = Answer.model_validate(event.body) if event else None
        return answer.proposal.content if answer and answer.proposal else ""


def closed_subject(deliberation_id: str, item_id: str, stage: str) -> str:
    """Subject of the event that closes an item's stage and names the authors whose answers count."""
    return f"deliberations.{deliberation_id}.closed.{item_id}.{stage}"
