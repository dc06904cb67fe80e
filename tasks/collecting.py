"""Collecting: reads the record, applies the rules of `tasks/council/rules.py`, and publishes decisions.

Runs in the driver. It believes the stream and not Ray's return values, and it alone writes `timeout` and
`cancelled` for a member. One bounded inbox brings everything that can change a verdict; the clock is the only
other source.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from blocks.record import Record
from tasks.answering import WINDOW, final_answer
from tasks.council.decisions import ItemResult
from tasks.council.models import Deliberation, Item, MemberStatus, Status
from tasks.council.proposals import Answer, answer_id
from tasks.council.results import item_result
from tasks.council.rules import Rules, Verdict, judge
from tasks.inbox import Left, from_record
from tasks.outcome import Outcome


@dataclass
class OpenItem:
    """An item that waits for its members."""

    item: Item
    started_at: float
    answers: dict[str, Answer] = field(default_factory=dict)
    quorum_at: float | None = None
    wake_at: float | None = None

    def statuses(self) -> dict[str, MemberStatus]:
        """Final statuses so far."""
        return {agent_id: answer.status for agent_id, answer in self.answers.items()}

    def reasons(self) -> dict[str, str]:
        """Why members failed."""
        return {agent_id: answer.error for agent_id, answer in self.answers.items() if answer.error}


class Collector:
    """Decides every item of one stage."""

    def __init__(
        self, plan: Deliberation, stage: str, record: Record, inbox: asyncio.Queue[Any], engine: str, started: float
    ) -> None:
        self._plan, self._stage, self._record, self._inbox = plan, stage, record, inbox
        self._engine, self._started = engine, started
        self._rules = Rules(len(plan.council.members), plan.quorum, plan.grace_s, plan.deadline_s)
        self._waiting = {item.id: item for item in reversed(plan.agenda)}
        self._open: dict[str, OpenItem] = {}
        self._early: dict[str, list[Answer]] = {}
        self._unread: set[str] = set()
        self._left: dict[str, str | None] = {}
        self._cancelled = False
        self.outcome = Outcome()

    async def run(self, resumed: bool) -> Outcome:
        """Decide every item; the outcome. Items with a decision on the record are taken as they stand."""
        if resumed:
            await self._take_standing()
        async with from_record(self._record, self._plan.id, self._stage, self._inbox):
            touched = await self._open_items()
            while touched or self._open:
                for item_id in touched:
                    await self._decide(item_id)
                touched = await self._open_items()
                if self._open and not touched:
                    touched = await self._next()
        return self.outcome

    # --- what comes in ----------------------------------------------------------------------------

    async def _take_standing(self) -> None:
        """Take what an earlier run left: its decisions, and whether it was asked to stop."""
        after = 0
        while (event := await self._record.next(f"decisions.{self._plan.id}.*", after)) is not None:
            after = event.sequence
            result = ItemResult.model_validate(event.body)
            self.outcome.add(result)
            self.outcome.answers += result.total_agents
            self._waiting.pop(result.item, None)
        status = await self._record.read_status(self._plan.id) or {}
        self._cancelled = bool(status.get("cancel_requested"))

    async def _next(self) -> list[str]:
        """Wait for the next thing that can change a verdict; the items that it touches."""
        wakes = [item.wake_at for item in self._open.values() if item.wake_at is not None]
        try:
            async with asyncio.timeout_at(min(wakes, default=None)):
                news = await self._inbox.get()
        except TimeoutError:
            return list(self._open)
        if isinstance(news, Exception):
            raise news
        if isinstance(news, Answer):
            return self._take(news)
        if isinstance(news, Left):
            self._left[news.agent_id] = news.failure
            for item in self._open.values():
                await self._write_left(item, news.agent_id)
        else:
            self._cancelled = True
        return list(self._open)

    def _take(self, answer: Answer) -> list[str]:
        item = self._open.get(answer.item)
        if item is None:
            self._put_aside(answer)
            return []
        if answer.agent_id not in item.answers:
            item.answers[answer.agent_id] = answer
            self.outcome.answers += 1
        ok = sum(status is MemberStatus.OK for status in item.statuses().values())
        if ok >= self._rules.quorum and item.quorum_at is None:
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
        opened = []
        while self._waiting and len(self._open) < WINDOW:
            item_id, item = self._waiting.popitem()
            # The first items begin with their members, which were sent to work before this task began.
            self._open[item_id] = OpenItem(item, self._started if not self.outcome.lines else self._now())
            for answer in self._early.pop(item_id, []):
                self._take(answer)
            if item_id in self._unread:
                await self._read(item_id)
            for agent_id in self._left:
                await self._write_left(self._open[item_id], agent_id)
            opened.append(item_id)
        return opened

    async def _read(self, item_id: str) -> None:
        self._unread.remove(item_id)
        pattern, after = f"answers.{self._plan.id}.{item_id}.{self._stage}.*", 0
        while (event := await self._record.next(pattern, after)) is not None:
            after = event.sequence
            self._take(Answer.model_validate(event.body))

    async def _decide(self, item_id: str) -> None:
        if (item := self._open.get(item_id)) is None:
            return
        verdict = self._judge(item)
        item.wake_at = verdict.wake_at
        if verdict.status.final:
            await self._settle(item, verdict)

    def _judge(self, item: OpenItem) -> Verdict:
        return judge(
            self._rules,
            item.statuses(),
            now=self._now(),
            started_at=item.started_at,
            quorum_at=item.quorum_at,
            cancelled=self._cancelled,
            reasons=item.reasons(),
        )

    async def _write_left(self, item: OpenItem, agent_id: str) -> None:
        """Write the final answer of a member whose agent task ended without one."""
        if agent_id in item.answers:
            return
        failure = self._left[agent_id]
        if failure is None:
            reason = f"no answer within the deadline of {self._plan.deadline_s:g} s"
            await self._write(item, agent_id, MemberStatus.TIMEOUT, reason, "DeadlineExceeded")
        else:
            await self._write(item, agent_id, MemberStatus.FAILED, f"agent task {failure}", "AgentDied")

    async def _settle(self, item: OpenItem, verdict: Verdict) -> None:
        """Close an item: write who is missing, and publish the decision."""
        status, reason = self._missing(verdict)
        for member in self._plan.council.members:
            if member.agent_id not in item.answers:
                await self._write(item, member.agent_id, status, reason, status.value)
        final = self._judge(item)  # an answer may have come before our word for its member
        verdict = final if final.status is Status.COMPLETED and verdict.status is not Status.CANCELLED else verdict
        duration_ms = int((self._now() - item.started_at) * 1000)
        result = item_result(self._plan, item.item, item.answers, verdict, duration_ms, datetime.now(UTC))
        await self._publish(result)
        del self._open[item.item.id]

    def _missing(self, verdict: Verdict) -> tuple[MemberStatus, str]:
        if verdict.status is Status.CANCELLED:
            return MemberStatus.CANCELLED, "the deliberation was cancelled"
        if verdict.status is Status.FAILED:
            return MemberStatus.CANCELLED, "the quorum could no longer be reached"
        if verdict.status is Status.TIMEOUT or self._rules.grace_s is None:
            return MemberStatus.TIMEOUT, f"no answer within the deadline of {self._plan.deadline_s:g} s"
        return MemberStatus.TIMEOUT, f"no answer within {self._rules.grace_s:g} s after the quorum"

    async def _write(self, item: OpenItem, agent_id: str, status: MemberStatus, reason: str, error_type: str) -> None:
        """Write a member's final answer in its place; if its own came first, take that."""
        member = self._plan.member(agent_id)
        fields: dict[str, Any] = {"status": status, "error": reason, "error_type": error_type}
        fields |= {"duration_ms": int((self._now() - item.started_at) * 1000), "engine": self._engine}
        answer = final_answer(self._plan, item.item.id, self._stage, member, **fields)
        subject = f"answers.{self._plan.id}.{item.item.id}.{self._stage}.{agent_id}"
        body = answer.model_dump(mode="json")
        first = await self._record.publish_final(
            subject, answer_id(self._plan.id, item.item.id, self._stage, agent_id), "answer", body
        )
        if first is None:
            await self._record.announce("agent.response.failed", body)
        self._take(answer if first is None else Answer.model_validate(first.body))

    async def _publish(self, result: ItemResult) -> None:
        """Publish a decision; the first one on an item stands."""
        body = result.model_dump(mode="json")
        subject = f"decisions.{result.id}.{result.item}"
        first = await self._record.publish_final(subject, f"{result.id}:{result.item}:decision", "decision", body)
        if first is not None:
            result = ItemResult.model_validate(first.body)
        self.outcome.add(result)
        await self._record.merge_status(
            f"{result.id}.{result.item}",
            {
                "status": result.status.value,
                "degraded": result.degraded,
                "winner_id": result.winner_id,
                "completed_at": result.completed_at.isoformat(),
            },
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
