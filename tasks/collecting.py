"""Collecting: reads the record, applies the rules of `tasks/council/rules.py`, and publishes decisions.

Runs in the driver. It believes the stream and not Ray's return values, and it alone writes `timeout` and
`cancelled` for a member. One bounded inbox brings everything that can change a verdict: answers, agent tasks
that ended, and the wish to cancel; the clock is the only other source.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from blocks.background import end
from blocks.record import Record
from tasks.answering import WINDOW, final_answer
from tasks.attendance import Left
from tasks.council.models import (
    Answer,
    Deliberation,
    Item,
    ItemResult,
    MemberStatus,
    Status,
    Usage,
    answer_id,
)
from tasks.council.results import item_result
from tasks.council.rules import Rules, Verdict, judge

INBOX = 1024
FULL_RESULTS = 20
"""Results that are kept whole for the report; of further items only the line in the table."""


@dataclass(frozen=True)
class CancelAsked:
    """Somebody set `cancel_requested`."""


@dataclass(frozen=True)
class ItemLine:
    """What the table of a report needs of one item."""

    item: str
    status: Status
    degraded: bool
    headline: str
    winner_id: str | None
    duration_ms: int


@dataclass
class Outcome:
    """What a deliberation came to, so far: bounded, however long the agenda."""

    lines: list[ItemLine] = field(default_factory=list)
    results: list[ItemResult] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failed_agents: set[str] = field(default_factory=set)
    answers: int = 0

    def add(self, result: ItemResult) -> None:
        """Count a decided item."""
        self.lines.append(
            ItemLine(
                result.item,
                result.status,
                result.degraded,
                result.headline,
                result.winner_id,
                result.duration_ms,
            )
        )
        if len(self.results) < FULL_RESULTS:
            self.results.append(result)
        self.usage += result.usage
        self.failed_agents |= {m.agent_id for m in result.members if m.status is not MemberStatus.OK}

    def counts(self, items: int) -> dict[str, int]:
        """Items by state."""
        counts = {"items": items, "decided": len(self.lines)}
        for line in self.lines:
            counts[line.status.value] = counts.get(line.status.value, 0) + 1
        counts["degraded"] = sum(line.degraded for line in self.lines)
        return counts


@dataclass
class OpenItem:
    """An item that waits for its members."""

    item: Item
    started_at: float
    answers: dict[str, Answer] = field(default_factory=dict)
    quorum_at: float | None = None

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
        self._waiting = list(reversed(plan.agenda))
        self._open: dict[str, OpenItem] = {}
        self._early: dict[str, list[Answer]] = {}
        self._left: dict[str, str | None] = {}
        self._cancelled = False
        self.outcome = Outcome()

    async def run(self, resumed: bool) -> Outcome:
        """Decide every item; the outcome. Items with a decision on the record are taken as they stand."""
        if resumed:
            await self._take_decided()
        feeds = [asyncio.create_task(self._feed_answers()), asyncio.create_task(self._feed_cancel())]
        try:
            self._open_items()
            while self._open:
                await self._step(feeds)
        finally:
            await end(feeds)
        return self.outcome

    # --- what comes in ----------------------------------------------------------------------------

    async def _feed_answers(self) -> None:
        async for event in self._record.follow(f"answers.{self._plan.id}.*.{self._stage}.*"):
            await self._inbox.put(Answer.model_validate(event.body))

    async def _feed_cancel(self) -> None:
        async for event in self._record.follow_status(self._plan.id):
            if event.body.get("cancel_requested"):
                await self._inbox.put(CancelAsked())

    async def _take_decided(self) -> None:
        decided, after = set(), 0
        while (event := await self._record.next(f"decisions.{self._plan.id}.*", after)) is not None:
            after = event.sequence
            result = ItemResult.model_validate(event.body)
            self.outcome.add(result)
            decided.add(result.item)
        self._waiting = [item for item in self._waiting if item.id not in decided]

    async def _step(self, feeds: list[asyncio.Task[None]]) -> None:
        """Wait for the next thing that can change a verdict, and judge what it touches."""
        wakes = [wake for item in self._open.values() if (wake := self._judge(item).wake_at) is not None]
        touched: list[str] = list(self._open)
        try:
            async with asyncio.timeout_at(min(wakes) if wakes else None):
                touched = await self._receive(await self._inbox.get())
        except TimeoutError:
            pass
        for feed in feeds:
            if feed.done():
                feed.result()
        for item_id in touched:
            if item := self._open.get(item_id):
                verdict = self._judge(item)
                if verdict.status.final:
                    await self._settle(item, verdict)
        self._open_items()

    async def _receive(self, news: Any) -> list[str]:
        if isinstance(news, Answer):
            return self._take(news)
        if isinstance(news, Left):
            self._left[news.agent_id] = news.failure
            for item in list(self._open.values()):
                await self._write_left(item, news.agent_id)
            return list(self._open)
        self._cancelled = True
        return list(self._open)

    def _take(self, answer: Answer) -> list[str]:
        item = self._open.get(answer.item)
        if item is None:
            if any(waiting.id == answer.item for waiting in self._waiting[-WINDOW:]):
                self._early.setdefault(answer.item, []).append(answer)
            return []
        if answer.agent_id not in item.answers:
            item.answers[answer.agent_id] = answer
            self.outcome.answers += 1
        ok = sum(status is MemberStatus.OK for status in item.statuses().values())
        if ok >= self._rules.quorum and item.quorum_at is None:
            item.quorum_at = self._now()
        return [answer.item]

    # --- items ------------------------------------------------------------------------------------

    def _open_items(self) -> None:
        while self._waiting and len(self._open) < WINDOW:
            item = self._waiting.pop()
            # The first items begin with their members, which were sent to work before this task began.
            self._open[item.id] = OpenItem(item, self._started if not self.outcome.lines else self._now())
            for answer in self._early.pop(item.id, []):
                self._take(answer)

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
