"""What happens in deliberations, as a feed that can be taken up again anywhere: each event once, in one order.

Answers, decisions and the course of a deliberation stand on three patterns of subjects, and a cursor has how far each
was read. So whoever comes back with the cursor of the last event that it saw gets all others, once, whatever was stored
meanwhile; where several wait, the one that was stored first comes first.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from blocks.record import subjects
from blocks.record.arrivals import Arrivals
from blocks.record.envelope import Body, Event
from blocks.record.events import Record
from tasks.council.exceptions import InvalidRequest

KEPT_BYTES = 16 << 20
"""Of events that were read of late, which many listeners ask for at once."""
EVERYBODY = "*"
PATTERNS = {"answers": "answers", "decisions": "decisions", "course": "deliberations"}
"""How the subjects begin that each part of a cursor is about."""
HIDDEN_IN_PLAN = frozenset({"prompts"})
"""What a plan has that is as long as a book and nobody follows."""
_CURSOR = re.compile(r"(\d{1,19})\.(\d{1,19})\.(\d{1,19})")
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Cursor:
    """How far a feed was read: sequences of the last event on each pattern."""

    answers: int = 0
    decisions: int = 0
    course: int = 0

    @classmethod
    def read(cls, text: str, field: str = "starting_after") -> Cursor:
        """The cursor of its text. Raises InvalidRequest."""
        try:
            plain = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)).decode()
        except ValueError:
            plain = ""
        found = _CURSOR.fullmatch(plain)
        if found is None:
            raise InvalidRequest(field, "is no cursor; it is the id of an event that was received")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        plain = f"{self.answers}.{self.decisions}.{self.course}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


class FeedEvent(NamedTuple):
    """An event of a feed: what happened, in which deliberation, as JSON, and the cursor once it was read."""

    kind: str
    deliberation: str
    data: str
    cursor: Cursor


class _StoredEvent(NamedTuple):
    """An event as it was read from a stream; `kind` is None for what is not told."""

    sequence: int
    time: datetime
    deliberation: str
    kind: str | None
    data: str


class Feed:
    """Feeds of this process: what many follow is read once."""

    def __init__(self, record: Record, arrivals: Arrivals) -> None:
        self._record, self._arrivals = record, arrivals
        self._kept: OrderedDict[tuple[str, int], _StoredEvent] = OrderedDict()
        self._bytes = 0
        self._reading: dict[tuple[str, int, int, int], asyncio.Task[_StoredEvent | None]] = {}

    async def of(self, deliberation_id: str | None, cursor: Cursor) -> AsyncGenerator[FeedEvent, None]:
        """The events of a deliberation behind a cursor, as they come, up to its end; None: of all, and never ends."""
        with self._arrivals.of(deliberation_id) as woken:
            while True:
                woken.clear()
                async for told in self._stored(deliberation_id or EVERYBODY, cursor):
                    cursor = told.cursor
                    if told.kind:
                        yield told
                    if told.kind == "finished" and deliberation_id is not None:
                        return
                await woken.heard()

    async def end_of(self, deliberation_id: str) -> None:
        """Wait until a deliberation has ended. Raises RecordError."""
        with self._arrivals.of(deliberation_id) as woken:
            while True:
                woken.clear()
                if await self._next(subjects.finished(deliberation_id), 0) is not None:
                    return
                await woken.heard()

    async def is_over(self, deliberation_id: str, cursor: Cursor) -> bool:
        """Whether nothing follows this cursor any more."""
        finished = await self._next(subjects.finished(deliberation_id), 0)
        return finished is not None and finished.sequence <= cursor.course

    async def newest(self) -> Cursor:
        """The cursor behind everything that is stored now."""
        decisions = await self._record.last_sequence("decisions.>")
        return Cursor(await self._record.last_sequence("answers.>"), decisions, decisions)

    async def _stored(self, deliberation_id: str, cursor: Cursor) -> AsyncGenerator[FeedEvent, None]:
        """What is stored behind a cursor, in the order of its storing; an end comes behind the others that wait."""
        while heads := await self._heads(deliberation_id, cursor):
            which = min(heads, key=lambda name: heads[name].time)
            head = heads[which]
            cursor = replace(cursor, **{which: head.sequence})
            yield FeedEvent(head.kind or "", head.deliberation, head.data, cursor)

    async def _heads(self, deliberation_id: str, cursor: Cursor) -> dict[str, _StoredEvent]:
        """What comes next on each pattern, by its name in a cursor; what has nothing is left out."""
        heads = await self._look(deliberation_id, cursor, PATTERNS)
        if heads and len(heads) < len(PATTERNS):
            # What was stored before one of these may have come just after its own pattern was asked.
            missing = [which for which in PATTERNS if which not in heads]
            seen = sum(head.sequence for head in heads.values())
            heads |= await self._look(deliberation_id, cursor, missing, seen)
        if _is_early(heads):
            del heads["course"]
        return heads

    async def _look(
        self, deliberation_id: str, cursor: Cursor, wanted: Iterable[str], seen: int = 0
    ) -> dict[str, _StoredEvent]:
        """The first event behind a cursor on each of these patterns that has one."""
        names = list(wanted)
        asked = (self._next(f"{PATTERNS[which]}.{deliberation_id}.>", getattr(cursor, which), seen) for which in names)
        found = zip(names, await asyncio.gather(*asked), strict=True)
        return {which: head for which, head in found if head is not None}

    async def _next(self, pattern: str, after: int, seen: int = 0) -> _StoredEvent | None:
        """The first event on a pattern behind a sequence; read once for all who ask at the same time.

        Who has seen something shares only what others began to read who had seen it, too.
        """
        kept = self._kept.get((pattern, after))
        if kept is not None:
            self._kept.move_to_end((pattern, after))
            return kept
        asked = (pattern, after, seen, self._arrivals.count)  # what was asked before an arrival answers nobody after it
        task = self._reading.get(asked)
        if task is None:
            task = self._reading[asked] = asyncio.create_task(self._read(pattern, after))
            task.add_done_callback(lambda _: self._reading.pop(asked, None))
        found = await asyncio.shield(task)
        if found is not None:
            self._keep((pattern, after), found)
        return found

    async def _read(self, pattern: str, after: int) -> _StoredEvent | None:
        event = await self._record.next(pattern, after, direct=False, lenient=True)
        if event is None:
            return None
        kind, body = shown(event)
        data = json.dumps(body, ensure_ascii=False) if kind else ""
        return _StoredEvent(event.sequence, event.time or _EARLIEST, event.subject.split(".")[1], kind, data)

    def _keep(self, key: tuple[str, int], found: _StoredEvent) -> None:
        if key in self._kept:
            return
        self._kept[key] = found
        self._bytes += len(found.data)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1].data)


def _is_early(heads: Mapping[str, _StoredEvent]) -> bool:
    """Whether the course is at the end of a deliberation of which something else is still to be told."""
    course = heads.get("course")
    others = {head.deliberation for which, head in heads.items() if which != "course"}
    return course is not None and course.kind == "finished" and course.deliberation in others


def shown(event: Event) -> tuple[str | None, Body]:
    """What an event is called in a feed, and what is told of it; None for what is not told."""
    tokens = event.subject.split(".")
    if not event.body:
        return None, {}
    if tokens[0] == "answers":
        return "answer", event.body
    if tokens[0] == "decisions":
        return "decision", event.body
    match tokens[2]:
        case "plan":
            return "plan", _plan(event.body)
        case "closed":
            return "stage", event.body
        case "started" | "progress" | "finished":
            return tokens[2], event.body
    return None, {}


def _plan(body: Body) -> Body:
    """A plan without the texts that members are told."""
    plan: dict[str, Any] = body.get("plan") or {}
    council: dict[str, Any] = plan.get("council") or {}
    kept = {name: value for name, value in plan.items() if name not in HIDDEN_IN_PLAN}
    return {**kept, "council": {name: value for name, value in council.items() if name not in HIDDEN_IN_PLAN}}
