"""One member at work on a stage: for each item look on the record, ask the model, and publish the answer.

An answer stands on JetStream before the agent task returns, and what already stands there is never asked
again. Failed attempts go to a subject of their own. The member works through the items concurrently, and
stops its call for an item as soon as the decision on that item passes by. What goes wrong with one item is that
item's failed answer, and the others go on. What it asks and how it reads what comes back is its `StagePrompt`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from blocks.chat import ChatCall, Completion
from blocks.connections import connections
from blocks.dialect import Dialect, read_dialect
from blocks.documents import load, open_record
from blocks.exceptions import ModelServerError, Orphaned, RecordError
from blocks.ownership import check_same
from blocks.record import subjects
from blocks.record.dialects import note_dialect
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.vllm_server import VLLM
from tasks.council.answer import Answer, Attempt, answer_id, seed_of
from tasks.council.council import Member
from tasks.council.models import Deliberation, Item, MemberStatus
from tasks.council.plain import one_line, sound
from tasks.council.prompts.propose import temperature_of
from tasks.council.proposal import Usage
from tasks.council.stages import PROPOSE
from tasks.deliberations.read import answer_in, plan_of
from tasks.stages.assignment import Assignment
from tasks.stages.stage_gate import StageGate

WINDOW = 256
"""Items that a member works on at once; further ones begin as these end."""

_log = logging.getLogger(__name__)

Messages = list[dict[str, str]]
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What a model is asked: the chat, and further fields of the request, such as a form for the answer.

    `in_words` is told in place of that form where a server does not take it.
    """

    messages: Messages
    extra: dict[str, Any] = field(default_factory=dict)
    in_words: str = ""


class StagePrompt(Protocol):
    """What one stage asks of one member, and how it reads what comes back."""

    async def question(self, item: Item) -> Question | None:
        """What to ask; None where this member has no part in the item's stage. May wait for an earlier stage."""

    def read(self, item: Item, completion: Completion) -> Fields:
        """The fields of the final answer that a completion gives, its status at least."""

    def again(self, question: Question, completion: Completion, fields: Fields) -> Question | None:
        """What to ask in place of an answer that cannot be used; None where it stands as it is."""


@dataclass
class MemberStage:
    """One member, answering the items of one stage."""

    plan: Deliberation
    member: Member
    stage: str
    record: Record
    server: VLLM
    engine: str
    may_wait: bool = False
    _calls: dict[str, asyncio.Task[MemberStatus | None]] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)
    _is_alone: bool = False
    """Whether no answer of this member stood in the stage when it began, so that none need be looked for."""

    async def answer_all(self, prompt: StagePrompt, begun: AsyncGenerator[Item, None] | None = None) -> dict[str, int]:
        """Answer every item of a stage; how many ended in which status. Raises RecordError.

        `begun` gives the items as they may begin; without it as many are at work as the member's own window holds.
        """
        window, statuses = asyncio.Semaphore(WINDOW), Counter[str]()
        heard = [await self.record.listen(pattern, self._leave) for pattern in self._ends(begun is not None)]
        if begun is not None:
            own = subjects.answer(self.plan.id, "*", self.stage, self.member.agent_id)
            self._is_alone = not await self.record.standing(own)
        try:
            async with asyncio.TaskGroup() as group, aclosing(begun or self._within(window)) as items:
                async for item in items:
                    call = group.create_task(self._answer(prompt, item))
                    self._calls[item.id] = call
                    call.add_done_callback(partial(self._ended, item, window, statuses))
                    if item.id in self._closed:
                        call.cancel()
        finally:
            await asyncio.gather(*(subscription.unsubscribe() for subscription in heard))
        return dict(statuses)

    async def _within(self, window: asyncio.Semaphore) -> AsyncGenerator[Item, None]:
        """The items of the agenda, as there is room for them."""
        for item in self.plan.agenda:
            await window.acquire()
            yield item

    async def answer_of(self, item: Item, stage: str, agent_id: str) -> Answer | None:
        """A final answer that stands on the record. Raises RecordError.

        The leader is asked: a replica may lag behind, and the call would be made again.
        """
        event = await self.record.last(subjects.answer(self.plan.id, item.id, stage, agent_id), direct=False)
        return answer_in(event) if event else None

    async def text_of(self, item: Item, stage: str, agent_id: str) -> str:
        """The text of a proposal or revision on the record; empty where there is none. Raises RecordError."""
        answer = await self.answer_of(item, stage, agent_id)
        return answer.proposal.content if answer and answer.proposal else ""

    def _ends(self, is_told: bool) -> tuple[str, ...]:
        """Subjects on which it passes by that nobody waits for this member's answer to an item any more.

        A driver that lets items begin tells that, too, where a member is late; else decisions and closings do.
        """
        if is_told:
            return (subjects.leave(self.plan.id, "*", self.stage),)
        return (subjects.decision(self.plan.id, "*"), subjects.closed(self.plan.id, "*", self.stage))

    def _leave(self, subject: str) -> None:
        """The item is decided, or this stage of it closed: nobody waits for this member's answer."""
        item = subject.split(".")[2 if subject.startswith("decisions.") else 3]
        self._closed.add(item)
        if call := self._calls.get(item):
            call.cancel()

    def _ended(
        self, item: Item, window: asyncio.Semaphore, statuses: Counter[str], call: asyncio.Task[MemberStatus | None]
    ) -> None:
        window.release()
        self._calls.pop(item.id, None)
        if call.cancelled():
            statuses[MemberStatus.CANCELLED] += 1
        elif call.exception() is None and (status := call.result()) is not None:
            statuses[status] += 1

    async def _answer(self, prompt: StagePrompt, item: Item) -> MemberStatus | None:
        """Answer an item; raises only where JetStream is away or nobody waits, which ends the others' work too."""
        begun = time.monotonic()
        try:
            return await self._answered(prompt, item)
        except (RecordError, Orphaned):
            raise
        except Exception as error:  # noqa: BLE001  # whatever one item brings up must not end the others
            failed = self._failure(item, error, Usage(), _since(begun))
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.warning("item %s is answered as failed: %s: %s\n%s", item.id, failed.error_type, failed.error, where)
            return await self._publish(item, failed)

    async def _answered(self, prompt: StagePrompt, item: Item) -> MemberStatus | None:
        if not self._is_alone and (standing := await self._standing(item)) is not None:
            return standing
        question = await prompt.question(item)
        if question is None:
            return None
        # While it waited for the stage before, it may have been written for; what tells it so passes by only once.
        waited = self.stage != PROPOSE and not self._is_alone
        if waited and (standing := await self._standing(item)) is not None:
            return standing
        answer = await self._ask(prompt, item, question)
        if answer is None:
            return MemberStatus.TIMEOUT  # the collection task writes it: it alone knows the deadline
        return await self._publish(item, answer)

    async def _standing(self, item: Item) -> MemberStatus | None:
        """Status of this member's final answer, where one stands."""
        standing = await self.answer_of(item, self.stage, self.member.agent_id)
        return None if standing is None else standing.status

    async def _publish(self, item: Item, answer: Answer) -> MemberStatus:
        subject = subjects.answer(self.plan.id, item.id, self.stage, self.member.agent_id)
        body = answer.model_dump(mode="json")
        first = await self.record.publish_final(subject, answer.id, "answer", body)
        if first is not None:
            return _status_in(first.body)
        done = "completed" if answer.status is MemberStatus.OK else "failed"
        await self.record.announce(f"agent.response.{done}", body)
        return answer.status

    async def _ask(self, prompt: StagePrompt, item: Item, question: Question) -> Answer | None:
        """Ask, and once more where the stage cannot use the answer; None when the deadline comes first."""
        started, spent = time.monotonic(), Usage()
        deadline = asyncio.get_running_loop().time() + self.plan.deadline_s

        async def failed(attempt: int, error: ModelServerError, duration_ms: int) -> None:
            await self._note_attempt(item, attempt, type(error).__name__, str(error), duration_ms)

        call_id, attempt = self._id(item), 1
        while True:
            try:
                completion = await self.server.complete(self._call(call_id, question), deadline, failed, self._learnt)
            except TimeoutError:
                return None
            except ModelServerError as error:
                return self._failure(item, error, spent, _since(started))
            spent += completion.usage
            fields = prompt.read(item, completion)
            second = prompt.again(question, completion, fields) if attempt == 1 else None
            if second is None:
                break
            await self._note_attempt(item, attempt, fields["error_type"], fields["error"], _since(started))
            question, call_id, attempt = second, f"{call_id}:again", 2
        told = {"model": completion.model, "engine": completion.engine, "duration_ms": _since(started), "usage": spent}
        return self._final(item, **told, **fields)

    async def _learnt(self, model: str, dialect: Dialect) -> None:
        """Tell later runs, other processes and other hosts how the server takes a model."""
        await note_dialect(self.record, self.server.base_url, model, dialect)

    def _id(self, item: Item) -> str:
        return answer_id(self.plan.id, item.id, self.stage, self.member.agent_id)

    def _call(self, call_id: str, question: Question) -> ChatCall:
        return ChatCall(
            messages=question.messages,
            request_id=call_id,
            seed=seed_of(call_id),
            temperature=temperature_of(self.member),
            max_tokens=self.member.max_tokens,
            model=self.member.model,
            extra=question.extra,
            in_words=question.in_words,
            may_wait=self.may_wait,
        )

    def _failure(self, item: Item, error: Exception, spent: Usage, duration_ms: int) -> Answer:
        return self._final(
            item,
            status=MemberStatus.FAILED,
            error=one_line(sound(str(error))) or type(error).__name__,
            error_type=type(error).__name__,
            duration_ms=duration_ms,
            usage=spent,
            model=self.member.model or self.server.model,
            engine=self.engine,
        )

    def _final(self, item: Item, **fields: object) -> Answer:
        return final_answer(self.plan, item.id, self.stage, self.member, **fields)

    async def _note_attempt(self, item: Item, attempt: int, error_type: str, error: str, duration_ms: int) -> None:
        note = Attempt(
            task_id=self.plan.id,
            item=item.id,
            stage=self.stage,
            agent_id=self.member.agent_id,
            role=self.member.role,
            attempt=attempt,
            error=error,
            error_type=error_type,
            duration_ms=duration_ms,
            engine=self.engine,
            timestamp=datetime.now(UTC),
        )
        subject = subjects.attempt(note.task_id, note.item, note.stage, note.agent_id)
        event_id = f"{self._id(item)}:attempt:{attempt}"
        await self.record.publish(subject, event_id, "attempt", note.model_dump(mode="json"))


async def open_member_stage(assignment: Assignment) -> MemberStage:
    """A member at its stage, with plan, record and model server; needs an open `connections()` scope.

    Raises OtherInstallation where the driver works on another record than this host.
    """
    record = await open_record()
    await check_same(record, assignment.installation)
    plan = await plan_of(record, assignment.deliberation_id)
    member = plan.asked(assignment.agent_id, assignment.stage)
    server = await load(VLLM, member.server, assignment.server_version)
    await server.recall({model: read_dialect(told) for model, told in assignment.dialects.items()})
    return MemberStage(plan, member, assignment.stage, record, server, assignment.engine, assignment.may_wait)


async def answer_after(
    prompt: Callable[[MemberStage, StageGate], StagePrompt], assignment: Assignment
) -> dict[str, int]:
    """Answer every item of a later stage, each once the stage before is closed; how many ended in which status."""
    async with connections():
        member_stage = await open_member_stage(assignment)
        gate = StageGate(member_stage.record, member_stage.plan, assignment.stage, assignment.epoch)
        async with gate.heard():
            begun = None if assignment.first is None else gate.items()
            return await member_stage.answer_all(prompt(member_stage, gate), begun)


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


def _status_in(body: Body) -> MemberStatus:
    """Of an answer that another writer put there, perhaps in a form of a later version."""
    try:
        return MemberStatus(str(body.get("status")))
    except ValueError:
        return MemberStatus.FAILED


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
