"""One member at work: for each item look on the record, ask the model, and publish the answer.

An answer stands on JetStream before the agent task returns, and what already stands there is never asked
again. Failed attempts go to a subject of their own. The member works through the items concurrently, and
stops its call for an item as soon as the decision on that item passes by.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from blocks.completions import Completion
from blocks.exceptions import ModelServerError
from blocks.record import Record
from blocks.vllm_server import VLLM, ChatCall
from tasks.council.answers import read_reply
from tasks.council.models import Deliberation, Item, Member, MemberStatus
from tasks.council.prompts import temperature_of
from tasks.council.proposals import Answer, Attempt, Proposal, answer_id, seed_of

WINDOW = 256
"""Items that a member works on at once; further ones begin as these end."""

Prompt = Callable[[Member, Item], list[dict[str, str]]]


@dataclass
class Desk:
    """Where one member answers the items of one stage."""

    plan: Deliberation
    member: Member
    stage: str
    prompt: Prompt
    record: Record
    server: VLLM
    engine: str
    _calls: dict[str, asyncio.Task[MemberStatus]] = field(default_factory=dict)
    _decided: set[str] = field(default_factory=set)

    async def answer_all(self) -> dict[str, int]:
        """Answer every item; how many ended in which status. Raises RecordError."""
        listening = await self.record.listen(f"decisions.{self.plan.id}.*", self._heard)
        window, statuses = asyncio.Semaphore(WINDOW), Counter[str]()
        try:
            async with asyncio.TaskGroup() as group:
                for item in self.plan.agenda:
                    await window.acquire()
                    call = group.create_task(self._answer(item))
                    self._calls[item.id] = call
                    call.add_done_callback(partial(self._ended, item, window, statuses))
                    if item.id in self._decided:
                        call.cancel()
        finally:
            await listening.unsubscribe()
        return dict(statuses)

    def _heard(self, subject: str) -> None:
        """A decision was published: nobody waits for this member's answer to that item."""
        item = subject.rpartition(".")[2]
        self._decided.add(item)
        if call := self._calls.get(item):
            call.cancel()

    def _ended(
        self, item: Item, window: asyncio.Semaphore, statuses: Counter[str], call: asyncio.Task[MemberStatus]
    ) -> None:
        window.release()
        self._calls.pop(item.id, None)
        if call.cancelled():
            statuses[MemberStatus.CANCELLED] += 1
        elif call.exception() is None:
            statuses[call.result()] += 1

    async def _answer(self, item: Item) -> MemberStatus:
        subject = f"answers.{self.plan.id}.{item.id}.{self.stage}.{self.member.agent_id}"
        if (standing := await self.record.last(subject)) is not None:
            return Answer.model_validate(standing.body).status
        answer = await self._ask(item)
        if answer is None:
            return MemberStatus.TIMEOUT  # the collection task writes it: it alone knows the deadline
        body = answer.model_dump(mode="json")
        first = await self.record.publish_final(subject, answer.id, "answer", body)
        if first is not None:
            return Answer.model_validate(first.body).status
        done = "completed" if answer.status is MemberStatus.OK else "failed"
        await self.record.announce(f"agent.response.{done}", body)
        return answer.status

    async def _ask(self, item: Item) -> Answer | None:
        call = self._call(item)
        started = time.monotonic()
        deadline = asyncio.get_running_loop().time() + self.plan.deadline_s

        async def failed(attempt: int, error: ModelServerError, duration_ms: int) -> None:
            await self._note_attempt(item, attempt, error, duration_ms)

        try:
            completion = await self.server.complete(call, deadline, failed)
        except TimeoutError:
            return None
        except ModelServerError as error:
            return self._failure(item, error, _since(started))
        return self._proposal(item, completion, _since(started))

    def _call(self, item: Item) -> ChatCall:
        request_id = answer_id(self.plan.id, item.id, self.stage, self.member.agent_id)
        return ChatCall(
            messages=self.prompt(self.member, item),
            request_id=request_id,
            seed=seed_of(request_id),
            temperature=temperature_of(self.member),
            max_tokens=self.member.max_tokens,
            model=self.member.model,
        )

    def _proposal(self, item: Item, completion: Completion, duration_ms: int) -> Answer:
        reply = read_reply(completion.content, completion.finish_reason, completion.reasoning)
        proposal = Proposal(
            author_id=self.member.agent_id,
            author_role=self.member.role,
            content=reply.content,
            model=completion.model,
            tokens=completion.usage.completion_tokens,
            finish_reason=completion.finish_reason or "none",
            reasoning=reply.reasoning,
        )
        return self._final(
            item,
            status=reply.status,
            proposal=proposal if reply.content else None,
            error=reply.reason,
            error_type=None if reply.reason is None else reply.status.value,
            duration_ms=duration_ms,
            usage=completion.usage,
            model=completion.model,
            engine=completion.engine,
        )

    def _failure(self, item: Item, error: ModelServerError, duration_ms: int) -> Answer:
        return self._final(
            item,
            status=MemberStatus.FAILED,
            error=str(error),
            error_type=type(error).__name__,
            duration_ms=duration_ms,
            model=self.member.model or self.server.model,
            engine=self.engine,
        )

    def _final(self, item: Item, **fields: object) -> Answer:
        return final_answer(self.plan, item.id, self.stage, self.member, **fields)

    async def _note_attempt(self, item: Item, attempt: int, error: ModelServerError, duration_ms: int) -> None:
        note = Attempt(
            task_id=self.plan.id,
            item=item.id,
            stage=self.stage,
            agent_id=self.member.agent_id,
            role=self.member.role,
            attempt=attempt,
            error=str(error),
            error_type=type(error).__name__,
            duration_ms=duration_ms,
            engine=self.engine,
            timestamp=datetime.now(UTC),
        )
        subject = f"attempts.{note.task_id}.{note.item}.{note.stage}.{note.agent_id}"
        event_id = f"{answer_id(note.task_id, note.item, note.stage, note.agent_id)}:attempt:{attempt}"
        await self.record.publish(subject, event_id, "attempt", note.model_dump(mode="json"))


def final_answer(plan: Deliberation, item: str, stage: str, member: Member, **fields: object) -> Answer:
    """A member's final answer with what every answer carries."""
    return Answer.model_validate(
        {
            "task_id": plan.id,
            "item": item,
            "stage": stage,
            "agent_id": member.agent_id,
            "role": member.role,
            "diversity": member.diversity,
            "num_agents": len(plan.council.members),
            "timestamp": datetime.now(UTC),
            **fields,
        }
    )


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
