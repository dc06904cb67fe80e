"""Collecting: reads the record, applies the rules of `tasks/council/progress/completion.py`, and publishes decisions.

An item goes through its strategy's stages on its own, so that stages of different items overlap. The end of each
stage is said on the record, with what counts and who is called next (`tasks/council/progress/item.py` knows). Runs in
the driver. It believes the stream and not Ray's return values, and it alone writes `timeout` and `cancelled` for a
member. One bounded inbox brings everything that can change a verdict; the clock is the only other source.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from blocks.background import background, cancel_and_wait
from blocks.documents import open_leases
from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.envelope import Body, Event
from blocks.record.events import Record
from tasks.collect.admission import Admission
from tasks.collect.inbox import AgentExited, MadeAgain, Room, from_record, made_again
from tasks.council.answer import Answer
from tasks.council.decisions import ItemResult
from tasks.council.models import MemberStatus, Status
from tasks.council.outcome import Outcome
from tasks.council.progress.completion import Rules, Verdict, judge
from tasks.council.progress.escalation import may_ask_more
from tasks.council.progress.item import ENDED_EARLY, LATE, ItemProgress, NextStage
from tasks.council.progress.result import item_result
from tasks.council.progress.stage_end import Closing
from tasks.council.stages import PROPOSAL, PROPOSE, SECOND_SAMPLE, kind_of
from tasks.deliberations.plan import Session
from tasks.deliberations.read import answers_of
from tasks.stages.member_stage import WINDOW, final_answer

HEARD_S = 0.05
"""How often it is looked whether the last answers of an agent task have come, once that has ended."""
WRITES = 64
"""Decisions that are being written at a time."""
GATHER_S = 0.004
"""How long items that begin one after another are told together."""
TELL_S = 1.0
"""How often members are told again how many items may have begun."""


@dataclass
class OpenItem:
    """An item that waits for its members in one of its stages."""

    progress: ItemProgress
    started_at: float
    stage: str
    quorum_at: float | None = None
    wake_at: float | None = None
    entered_at: float = 0.0
    """When this stage began; `started_at` is when the first one did."""
    aside: list[Answer] = field(default_factory=list)
    """Answers of later stages that came before this one was closed."""

    @property
    def id(self) -> str:
        """The item's id."""
        return self.progress.item.id

    @property
    def called(self) -> tuple[str, ...]:
        """Who is waited for in this stage."""
        return self.progress.called[self.stage]

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers in this stage."""
        return self.progress.answers[self.stage]

    @property
    def missing(self) -> list[str]:
        """Who has not answered in this stage."""
        return [agent_id for agent_id in self.called if agent_id not in self.answers]

    @property
    def ok(self) -> int:
        """Answers of this stage that can be used."""
        return sum(answer.status is MemberStatus.OK for answer in self.answers.values())

    def enter(self, stage: str, next_stage: NextStage, now: float) -> None:
        """Begin a stage."""
        self.stage, self.entered_at, self.quorum_at = stage, now, None
        self.progress.enter(stage, next_stage)


class Collector:
    """Takes every item through its stages and decides it.

    With `over` nobody is waited for: what stands on the record decides, as after the deadline. With an `admission`
    items begin as that has room for them, and their members are told.
    """

    def __init__(
        self,
        session: Session,
        record: Record,
        inbox: asyncio.Queue[Any],
        over: bool = False,
        admission: Admission | None = None,
    ) -> None:
        self._plan, self._record, self._inbox = session.plan, record, inbox
        self._engine, self._started, self._session = session.engine, session.started, session
        self._waiting = {item.id: item for item in reversed(self._plan.agenda)}
        self._open: dict[str, OpenItem] = {}
        self._early: dict[str, list[Answer]] = {}
        self._over = over
        self._unread = set(self._waiting) if over else set[str]()
        self._left: dict[tuple[str, str], str | None] = {}
        self._cancelled = self._has_begun = False
        self._admission = admission
        self._place = {item.id: place for place, item in enumerate(self._plan.agenda, 1)}
        self._again = Counter[str]()
        """How often members were asked once more, by item that is not decided yet."""
        self._opened: list[str] = []
        self._upto = 0
        self._untold = asyncio.Event()
        self._exits: list[asyncio.Task[None]] = []
        """Waits for the last answers of agent tasks that have done their work."""
        self._reached = 0
        """Sequence of the last answer that came in."""
        self._wakes: list[tuple[float, str]] = []
        """When items want to be looked at, the earliest first; what is outdated among them is passed over."""
        self._writes: set[asyncio.Task[None]] = set()
        self._write_slots = asyncio.Semaphore(WRITES)
        self._lost: BaseException | None = None
        self.outcome = Outcome()

    @property
    def is_of_batch(self) -> bool:
        """Whether a batch tells how far it is, for all its agendas."""
        return self._admission is not None and self._admission.heard is not None

    async def begin(self) -> int:
        """Take what stands on the record, and open the first items; how many of the agenda may have begun by that."""
        assert self._admission is not None
        await self._take_standing()
        self._admission.join(self._plan, self._wake)
        self._opened = await self._open_items()
        return self._upto

    async def run(self) -> Outcome:
        """Decide every item; the outcome. Items with a decision on the record are taken as they stand."""
        if self._admission is None:
            await self._take_standing()
            return await self._decide_all()
        try:
            async with (
                made_again(self._record, self._plan, self._inbox),
                background(self._tell_again()),
            ):
                return await self._decide_all()
        finally:
            self._admission.leave(self._plan)

    async def _decide_all(self) -> Outcome:
        try:
            async with from_record(self._record, self._plan, self._inbox, self._heard):
                await self._decide_as_they_come()
                await asyncio.gather(*self._writes)
                if self._lost is not None:
                    raise self._lost
                if self._admission is not None:
                    self._upto = len(self._plan.agenda) + 1
                    await self._tell()
        finally:
            await cancel_and_wait([*self._writes, *self._exits])
        return self.outcome

    async def _decide_as_they_come(self) -> None:
        touched = self._opened or await self._open_items()
        while touched or self._open or self._waiting:
            for item_id in touched:
                await self._decide(item_id)
            touched = await self._open_items()
            if not touched and (self._open or self._waiting):
                touched = await self._next()

    def _heard(self, sequence: int) -> None:
        self._reached = sequence

    def _wake(self) -> None:
        if self._inbox.empty():  # else something else comes in, after which it is looked anyway
            self._inbox.put_nowait(Room())

    async def _tell(self) -> None:
        await self._record.say(subjects.dispatch(self._plan.id, self._session.epoch, self._upto))

    async def _tell_again(self) -> None:
        """Tell how many items may have begun, those of a moment together, and again: it is said at most once."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await self._untold.wait()
            self._untold.clear()
            await self._tell()
            await asyncio.sleep(GATHER_S)

    # --- what comes in ----------------------------------------------------------------------------

    async def _take_standing(self) -> None:
        """Take what an earlier run left: its decisions, and whether it was asked to stop."""
        async for event in self._record.stored(subjects.decision(self._plan.id, "*"), direct=False):
            result = ItemResult.from_record(event.body)
            self.outcome.add(result)
            if self._admission is not None:
                self._admission.stands(result)
            self.outcome.answers += len(self._plan.posts)
            self._waiting.pop(result.item, None)
        status = await self._record.statuses.read(self._plan.id) or {}
        self._cancelled = bool(status.get("cancel_requested"))

    async def _next(self) -> list[str]:
        """Wait for the next thing that can change a verdict; the items that it touches."""
        try:
            news = await self._news()
        except TimeoutError:
            return list(self._open)
        if isinstance(news, Exception):
            raise news
        if self._lost is not None:
            raise self._lost
        if isinstance(news, Answer):
            return self._take(news)
        if isinstance(news, MadeAgain):
            self._note(news)
            return []
        if isinstance(news, Room):
            return []
        if isinstance(news, AgentExited):
            await self._exited(news)
        else:
            self._cancelled = True
        return list(self._open)

    async def _exited(self, news: AgentExited) -> None:
        """Note that an agent task has ended. The last answers of one that did its work may still be on their way."""
        if news.failure is None and not news.is_heard_out and self._admission is not None:
            self._exits.append(asyncio.create_task(self._hear_out(news)))
            return
        self._left[news.agent_id, news.stage] = news.failure
        for item in self._open.values():
            await self._write_left(item)

    async def _hear_out(self, news: AgentExited) -> None:
        """Bring an exit again, behind all answers that stood on the record when it came."""
        try:
            last = await self._record.newest(subjects.answers(self._plan.id))
        except RecordError as error:
            await self._inbox.put(error)
            return
        while self._reached < last:  # noqa: ASYNC110  # whoever follows has no event for each answer
            await asyncio.sleep(HEARD_S)
        await self._inbox.put(replace(news, is_heard_out=True))

    def _note(self, call: MadeAgain) -> None:
        """Count a call that is made again."""
        assert self._admission is not None
        if call.was_refused:
            self._admission.refused(self._plan, call.agent_id)
        elif call.item in self._open or call.item in self._waiting:
            self._again[call.item] += 1
        else:
            self._admission.asked_again()

    async def _news(self) -> Any:
        """What comes in next. Raises TimeoutError where time alone changes something before."""
        if not self._inbox.empty():  # a timeout is not for nothing
            return self._inbox.get_nowait()
        async with asyncio.timeout_at(self._next_wake()):
            return await self._inbox.get()

    def _next_wake(self) -> float | None:
        """When time alone changes something about an item that is open."""
        while self._wakes:
            wake_at, item_id = self._wakes[0]
            item = self._open.get(item_id)
            if item is not None and item.wake_at == wake_at:
                return wake_at
            heapq.heappop(self._wakes)
        return None

    def _take(self, answer: Answer) -> list[str]:
        item = self._open.get(answer.item)
        if item is None:
            self._put_aside(answer)
            return []
        if answer.stage != item.stage:
            if self._plan.stages.index(answer.stage) > self._plan.stages.index(item.stage):
                item.aside.append(answer)
            return []
        if item.progress.take(answer):
            self.outcome.answers += 1
            if self._admission is not None:
                self._admission.answered(answer)
        if item.quorum_at is None and item.ok >= self._enough(item):
            item.quorum_at = self._now()
        return [answer.item]

    def _put_aside(self, answer: Answer) -> None:
        """Keep an answer to an item that is not open yet, or remember to read it when memory is full."""
        if answer.item not in self._waiting:
            return
        if len(self._early) < WINDOW:
            self._early.setdefault(answer.item, []).append(answer)
        else:
            self._unread.add(answer.item)

    # --- items ------------------------------------------------------------------------------------

    async def _open_items(self) -> list[str]:
        """Open as many items as there is room for, with what is known of them; their ids."""
        if not self._waiting:
            return []
        # The first items begin with their members, which were sent to work before this task began.
        started = self._started if self._over or not self._has_begun else self._now()
        self._has_begun, opened = True, list[str]()
        while self._waiting and self._has_room():
            opened.append(await self._open_next(started))
        if self._admission is not None:
            await self._let_begin(self._admission, opened)
        return opened

    async def _open_next(self, started: float) -> str:
        """Open the next item with what is known of it; its id."""
        item_id, item = self._waiting.popitem()
        self._open[item_id] = opening = OpenItem(ItemProgress(self._plan, item), started, PROPOSE)
        opening.enter(PROPOSE, NextStage(self._plan.called_first(item)), started)
        if self._admission is not None and self._cancelled:  # it was not asked for room
            self._admission.entered(self._plan, opening.called)
        for answer in self._early.pop(item_id, []):
            self._take(answer)
        if item_id in self._unread:
            await self._read(item_id)
        await self._write_left(opening)
        return item_id

    async def _let_begin(self, admission: Admission, opened: list[str]) -> None:
        """Let members begin what was opened, and end what will not begin. What is only to be ended they never begin."""
        if opened and not self._cancelled:
            self._upto = self._place[opened[-1]]
            self._untold.set()
        if admission.stopped and not self._cancelled:
            await self._leave_out(admission.stopped)
        if not self._waiting:
            admission.is_served(self._plan)

    def _has_room(self) -> bool:
        """Whether the next item may begin. One that is only to be ended needs no room."""
        if self._admission is None or self._cancelled:
            return len(self._open) < WINDOW
        return self._admission.admit(self._plan, self._waiting[next(reversed(self._waiting))])

    async def _leave_out(self, reason: str) -> None:
        """End the items that have not begun: nothing begins any more."""
        while self._waiting:
            _, item = self._waiting.popitem()
            verdict = Verdict(Status.CANCELLED, reason=reason)
            await self._publish_beside(item_result(ItemProgress(self._plan, item), verdict, 0, datetime.now(UTC)))
            self.outcome.unneeded += len(self._plan.posts)

    async def _read(self, item_id: str) -> None:
        self._unread.remove(item_id)
        answers = await answers_of(self._record, self._plan.id, item_id)
        for stage in self._plan.stages:
            for answer in answers.get(stage, {}).values():
                self._take(answer)

    async def _decide(self, item_id: str) -> None:
        """Judge an item as it stands: close its stage, or decide it, or wait on."""
        while (item := self._open.get(item_id)) is not None:
            early = None if self._cancelled else item.progress.early_end(item.stage)
            verdict = Verdict(Status.COMPLETED) if early else self._judge(item)
            if verdict.wake_at is not None and verdict.wake_at != item.wake_at:
                heapq.heappush(self._wakes, (verdict.wake_at, item.id))
            item.wake_at = verdict.wake_at
            if not verdict.status.final:
                return
            verdict = await self._complete(item, verdict, early)
            following = self._following(item)
            if following is None or verdict.status is not Status.COMPLETED:
                await self._settle(item, verdict)
            else:
                await self._go_on(item, following)

    def _following(self, item: OpenItem) -> str | None:
        """The next stage of an item that needs one."""
        if item.progress.agreed():
            return None
        if self._plan.escalates and self._late(item) and not item.aside:  # else a run before went further
            item.progress.leave_out(LATE)
            return None
        return self._plan.next_stage(item.stage)

    def _enough(self, item: OpenItem) -> int:
        """Answers from which on the grace runs: the quorum; of a wave half of those called, later more than half."""
        if kind_of(item.stage) != PROPOSAL:
            return len(item.called) // 2 + 1
        return -(-len(item.called) // 2) if self._plan.escalates else self._plan.quorum

    def _rules(self, item: OpenItem) -> Rules:
        """A council needs its quorum of proposals; later it takes what comes, since proposals can stand alone."""
        plan = self._plan
        waved = plan.grace_s if item.quorum_at is not None else None  # until enough of this stage are there
        if self._last_to_propose(item):
            asked = len(item.progress.asked)
            return Rules(asked, plan.quorum_of(asked), waved if plan.escalates else plan.grace_s, plan.deadline_s)
        return Rules(len(item.called), 0, waved, plan.deadline_s)

    def _last_to_propose(self, item: OpenItem) -> bool:
        """Whether this stage has to bring the quorum: nobody further can be asked, or there is no time for it."""
        if kind_of(item.stage) != PROPOSAL or item.stage == SECOND_SAMPLE:
            return False
        return not self._plan.escalates or self._late(item) or not may_ask_more(item.progress, item.stage)

    def _late(self, item: OpenItem) -> bool:
        return self._now() >= item.started_at + self._plan.deadline_s

    def _judge(self, item: OpenItem) -> Verdict:
        given = item.progress.first if self._last_to_propose(item) else item.answers
        return judge(
            self._rules(item),
            {agent_id: answer.status for agent_id, answer in given.items()},
            now=self._now(),
            started_at=item.started_at,
            quorum_at=item.quorum_at,
            cancelled=self._cancelled,
            reasons={agent_id: answer.error for agent_id, answer in given.items() if answer.error},
            where="" if kind_of(item.stage) == PROPOSAL else f" in {item.stage}",
        )

    async def _complete(self, item: OpenItem, verdict: Verdict, early: str | None) -> Verdict:
        """Write who is missing in this stage; the verdict with an answer that may have come before our word for it."""
        status, reason = (MemberStatus.CANCELLED, early) if early else self._missing(item, verdict)
        if self._admission is not None and item.missing:
            await self._record.say(subjects.leave(self._plan.id, item.id, item.stage))
        for agent_id in item.missing:
            await self._write(item, agent_id, status, reason, ENDED_EARLY if early else status.value)
        final = self._judge(item)
        return final if final.status is Status.COMPLETED and verdict.status is not Status.CANCELLED else verdict

    async def _go_on(self, item: OpenItem, following: str) -> None:
        """Close the stage on the record, and wait for those who are called in the next one."""
        closing = item.progress.closing(item.stage, item.progress.next_stage(following), self._session.epoch)
        subject = subjects.closed(self._plan.id, item.id, item.stage)
        event_id = f"{self._plan.id}:{item.id}:{item.stage}:closed"
        first = await self._publish_final(subject, event_id, "stage.closed", closing.model_dump(mode="json"))
        if first is not None:
            closing = Closing.from_record(first.body)
        item.enter(following, NextStage(closing.called, closing.skipped), self._now())
        if self._admission is not None:
            self._admission.entered(self._plan, closing.called)
        aside, item.aside = item.aside, []
        for answer in aside:
            self._take(answer)
        await self._write_left(item)

    # --- the end ----------------------------------------------------------------------------------

    async def _write_left(self, item: OpenItem) -> None:
        """Write the final answers of members whose agent tasks ended without one."""
        for agent_id in item.missing:
            if (agent_id, item.stage) not in self._left:
                continue
            failure = self._left[agent_id, item.stage]
            if failure is None:
                reason = f"no answer within the deadline of {self._plan.deadline_s:g} s"
                await self._write(item, agent_id, MemberStatus.TIMEOUT, reason, "DeadlineExceeded")
            else:
                await self._write(item, agent_id, MemberStatus.FAILED, f"agent task {failure}", "AgentDied")

    async def _settle(self, item: OpenItem, verdict: Verdict) -> None:
        """Close an item: publish what it came to."""
        duration_ms = int((self._now() - item.started_at) * 1000)
        await self._publish_beside(item_result(item.progress, verdict, duration_ms, datetime.now(UTC)))
        self.outcome.unneeded += len(self._plan.posts) - sum(map(len, item.progress.answers.values()))
        del self._open[item.id]

    def _missing(self, item: OpenItem, verdict: Verdict) -> tuple[MemberStatus, str]:
        if verdict.status is Status.CANCELLED:
            return MemberStatus.CANCELLED, "the deliberation was cancelled"
        if verdict.status is Status.FAILED:
            return MemberStatus.CANCELLED, "the quorum could no longer be reached"
        grace_s = self._rules(item).grace_s
        if verdict.status is Status.TIMEOUT or grace_s is None:
            return MemberStatus.TIMEOUT, f"no answer within the deadline of {self._plan.deadline_s:g} s"
        return MemberStatus.TIMEOUT, f"no answer within {grace_s:g} s after the quorum"

    async def _write(self, item: OpenItem, agent_id: str, status: MemberStatus, reason: str, error_type: str) -> None:
        """Write a member's final answer in its place; if its own came first, take that."""
        member = self._plan.asked(agent_id, item.stage)
        fields: dict[str, Any] = {"status": status, "error": reason, "error_type": error_type}
        fields |= {"duration_ms": int((self._now() - item.entered_at) * 1000), "engine": self._engine}
        answer = final_answer(self._plan, item.id, item.stage, member, **fields)
        subject = subjects.answer(self._plan.id, item.id, item.stage, agent_id)
        body = answer.model_dump(mode="json")
        if self._session.lease is not None:  # this word for a member is not fenced: its own answer may come first
            await (await open_leases()).check(self._session.lease)
        first = await self._record.publish_final(subject, answer.id, "answer", body)
        if first is None:
            await self._record.announce("agent.response.failed", body)
        self._take(answer if first is None else Answer.from_record(first.body))

    async def _publish_beside(self, result: ItemResult) -> None:
        """Publish a decision while others are decided; what goes wrong ends all."""
        await self._write_slots.acquire()
        write = asyncio.create_task(self._publish(result))
        self._writes.add(write)
        write.add_done_callback(self._written)

    def _written(self, write: asyncio.Task[None]) -> None:
        self._writes.discard(write)
        self._write_slots.release()
        if not write.cancelled() and (error := write.exception()) is not None:
            self._lost = self._lost or error
            self._wake()

    async def _publish(self, result: ItemResult) -> None:
        """Publish a decision; the first one on an item stands."""
        body = result.model_dump(mode="json")
        subject = subjects.decision(result.id, result.item)
        # What stood there was taken when this run began, and nobody else writes under its fence.
        first = await self._publish_final(subject, f"{result.id}:{result.item}:decision", "decision", body, True)
        if first is not None:
            result = ItemResult.from_record(first.body)
        self.outcome.add(result)
        if self._admission is not None:
            self._admission.settled(result, self._again.pop(result.item, 0))
        await self._record.statuses.put(
            f"{result.id}.{result.item}",
            {
                "status": result.status.value,
                "degraded": result.degraded,
                "winner_id": result.winner_id,
                "completed_at": result.completed_at and result.completed_at.isoformat(),
            },
        )

    async def _publish_final(
        self, subject: str, event_id: str, kind: str, body: Body, is_first: bool = False
    ) -> Event | None:
        """As the holder of the lease. Raises Superseded where this run is not that any more."""
        fence, version = self._session.fence, self._plan.version
        is_first = is_first or (fence is not None and fence.is_first)
        return await self._record.publish_final(subject, event_id, kind, body, fence, version, is_first)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
