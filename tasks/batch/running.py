"""A batch at work: its agendas, each a deliberation of its own, under one pace and one budget.

Two agendas at most wait for room while others are at work, so that a seam between them costs nothing. Rows whose server
was away, or had no time, are asked again in an agenda of their own, after a while of their own.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

from blocks.background import cancel_and_wait
from blocks.documents import open_leases
from blocks.exceptions import ModelServerUnavailable
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.batch.asked import AskedRow, agenda_id
from tasks.batch.store import Batch, agendas_again, note, put_agenda, require_of_batch, rows_of
from tasks.collect.admission import Admission
from tasks.collect.end import end
from tasks.council.council import CouncilSpec
from tasks.council.decisions import ItemResult
from tasks.council.engines import UNKNOWN, engine_of
from tasks.council.finished import Finished
from tasks.council.models import DeliberationRequest, MemberStatus, Status
from tasks.council.outcome import Outcome
from tasks.council.proposal import Usage
from tasks.deliberations.plan import Session, begin, convene
from tasks.deliberations.read import answers_of
from tasks.deliberations.submit import ask_to_cancel

MAX_AT_WORK = 8
"""Agendas at work at a time, however slow their last rows are."""
AHEAD = 2
"""Agendas that wait for room, the one that is being served among them."""
LOOK_S = 0.05
TELL_S = 1.0
AGAIN_S = 5.0
"""How long rows wait that are asked again, for each time that they were asked."""
PASSING = (ModelServerUnavailable.__name__, "AgentDied")
"""Types of errors of answers that may pass."""
CANCELLED = "cancelled"
DRAIN_S = 20.0
"""How long what has begun may take to its end once a batch is asked to stop."""
FAILED = (Status.FAILED, Status.TIMEOUT)

Ask = Callable[[Record, Session, Admission], Awaitable[Outcome]]
"""Lets a council decide the agenda of a session: `flows.deliberate.deliberated`."""


@dataclass
class BatchRun:
    """One run of a batch, first or again after a crash: what is decided stays so, and the rest is asked."""

    batch: Batch
    record: Record
    council: CouncilSpec
    admission: Admission
    ask: Ask
    run: str
    run_url: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by what they came to, and those of them that are `degraded`."""
    usage: Usage = field(default_factory=Usage)
    engine: str = UNKNOWN
    last_decision_at: str | None = None
    is_cancelled: bool = False
    stood: int = 0
    """Rows that earlier runs had decided."""
    _cut_off_at: float = math.inf
    _agendas: int = 0
    _due: list[tuple[float, int]] = field(default_factory=list)
    _at_work: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _again: dict[int, int] = field(default_factory=dict)
    """Agendas of rows that are asked again, and in which one each failed."""
    _numbering: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def decide_all(self) -> None:
        """Decide the rows of all agendas, as far as a cancel and the budget let them.

        Raises what a deliberation raises.
        """
        self._again = await agendas_again(self.record, self.batch)
        self._agendas = self.batch.request.agendas + len(self._again)
        self._due = [(0.0, number) for number in range(1, self._agendas + 1)]
        self.admission.heard = self._heard
        self.is_cancelled = bool(self.batch.body.get("cancel_requested"))
        await self._take_standing()
        telling = asyncio.create_task(self._tell())
        try:
            while self._due or self._at_work:
                self._begin_what_is_due()
                await asyncio.wait({telling, *self._at_work.values()}, timeout=LOOK_S)
                if telling.done():
                    telling.result()
                for number in [number for number, work in self._at_work.items() if work.done()]:
                    self._at_work.pop(number).result()
        finally:
            await cancel_and_wait([telling, *self._at_work.values()])

    def told(self) -> Body:
        """What the record says of it while it runs."""
        windows = self.admission.windows
        return {
            "agendas": self._agendas,
            "counts": {name: count for name, count in self.counts.items() if count > 0},
            "usage": self.usage.model_dump(mode="json"),
            "engine": self.engine,
            "windows": {server: int(window.size) for server, window in windows.items()},
            "calls": self.admission.ledger.used.calls,
            "tokens": self.admission.ledger.used.tokens,
            "in_flight": sum(window.in_flight for window in windows.values()),
            "last_decision_at": self.last_decision_at,
        }

    # --- agendas ----------------------------------------------------------------------------------

    def _begin_what_is_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now and self._has_place():
            _, number = heapq.heappop(self._due)
            work = self._leave(number) if self._is_stopped else self._decide(number)
            self._at_work[number] = asyncio.create_task(work)

    @property
    def _is_stopped(self) -> bool:
        return self.is_cancelled or self.admission.stopped is not None

    def _has_place(self) -> bool:
        begun = self.admission.waiting + len(self._at_work) - self.admission.joined
        return self._is_stopped or (len(self._at_work) < MAX_AT_WORK and begun < AHEAD)

    async def _decide(self, number: int) -> None:
        """Decide one agenda, or take what an earlier run came to; then see to its failed rows."""
        one = agenda_id(self.batch.id, number)
        rows = await rows_of(self.record, self.batch.id, number)
        await require_of_batch(self.record, self.batch, one)
        ended = await self.record.last(subjects.finished(one), direct=False)
        if ended is None:
            await self._deliberate(one, rows)
        else:
            self.engine = engine_of((self.engine, Finished.from_record(ended.body).engine))
        if number not in self._again.values() and not self._is_stopped:
            await self._ask_again(number, one, rows)

    async def _leave(self, number: int) -> None:
        """Leave an agenda that is not to begin: its rows, where they were to be asked again, stay what they came to."""
        one = agenda_id(self.batch.id, number)
        if self.is_cancelled:
            await end_begun(self.record, one)
        if number in self._again and not await self.record.exists(subjects.plan(one)):
            await self._take_back(agenda_id(self.batch.id, self._again[number]), number)

    async def _deliberate(self, one: str, rows: Sequence[AskedRow]) -> None:
        request = await asyncio.to_thread(self._request, rows)
        key: Body = {"id": one, "status": Status.PENDING.value, "batch": self.batch.id, "council": self.council.name}
        key |= {"request_digest": request.digest, "owner": self.batch.body.get("owner"), "lane": "batch"}
        await self.record.statuses.create(one, {**key, "run": self.run})
        async with (await open_leases()).hold(one) as lease:
            session = await convene(self.record, one, request, council=self.council)
            self.engine = engine_of((self.engine, session.engine))
            session = await begin(self.record, session, lease, self.run, self.run_url)
            try:
                await self.ask(self.record, session, self.admission)
            except asyncio.CancelledError:
                if self.is_cancelled:
                    await asyncio.shield(end(self.record, one, lease, request.given))
                raise

    def _request(self, rows: Sequence[AskedRow]) -> DeliberationRequest:
        request = self.batch.request.of_items([row.item for row in rows])
        return request.model_copy(update={"metadata": {**request.metadata, "batch": self.batch.id}})

    def _heard(self, result: ItemResult) -> None:
        """Count a decision."""
        self._count(result.status, result.degraded, 1)
        self.usage += result.usage
        self.last_decision_at = datetime.now(UTC).isoformat()

    async def _take_standing(self) -> None:
        """Take what earlier runs decided before anything begins: it is used of the budget, and counts."""
        open_again: dict[int, set[str]] = {}
        for number, failed_in in self._again.items():
            rows = await rows_of(self.record, self.batch.id, number)
            open_again.setdefault(failed_in, set()).update(str(row.item.id) for row in rows)
        for number in range(1, self._agendas + 1):
            one = agenda_id(self.batch.id, number)
            async for event in self.record.stored(subjects.decision(one, "*"), direct=False):
                result = ItemResult.from_record(event.body)
                self.admission.stands(result)
                if result.item in open_again.get(number, ()):
                    self._asked_again(result.status, result.degraded)
            if await self.record.last(subjects.finished(one), direct=False) is not None:
                self.admission.forget(one)
        self.stood = self.counts["decided"]

    # --- rows again -------------------------------------------------------------------------------

    async def _ask_again(self, number: int, one: str, rows: Sequence[AskedRow]) -> None:
        """Put the rows into another agenda that failed since their servers were away, or had no time."""
        if not await self._has_failed(one):
            return
        left = {str(row.item.id): row for row in rows if row.tries < self.batch.request.row_tries}
        again = list[AskedRow]()
        async for event in self.record.stored(subjects.decision(one, "*")):
            row = left.get(event.subject.rpartition(".")[2])
            if row is None or Status(event.body["status"]) not in FAILED:
                continue
            if await self._is_of_the_server(one, row):
                again.append(row.model_copy(update={"tries": row.tries + 1}))
                self._asked_again(Status(event.body["status"]), bool(event.body.get("degraded")))
        if again:
            await self._put_again(number, tuple(again))

    async def _has_failed(self, one: str) -> bool:
        """Whether rows of an agenda have failed."""
        finished = await self.record.last(subjects.finished(one), direct=False)
        counts = Finished.from_record(finished.body).counts if finished else {}
        return any(counts.get(status.value) for status in FAILED)

    def _asked_again(self, status: Status, degraded: bool) -> None:
        """A row that had failed is asked again: that it was decided counts no more."""
        self.counts["again"] += 1
        self._count(status, degraded, -1)

    async def _take_back(self, failed_in: str, number: int) -> None:
        """Rows that were to be asked again are not, and count as before."""
        for row in await rows_of(self.record, self.batch.id, number):
            event = await self.record.last(subjects.decision(failed_in, str(row.item.id)))
            if event is not None:
                self.counts["again"] -= 1
                self._count(Status(event.body["status"]), bool(event.body.get("degraded")), 1)

    def _count(self, status: Status, degraded: bool, rows: int) -> None:
        """Count rows with this end: one that was not asked, or cut off, is neither decided nor degraded."""
        self.counts[status.value] += rows
        if status is not Status.CANCELLED:
            self.counts["decided"] += rows
            self.counts["degraded"] += rows * degraded

    async def _put_again(self, number: int, rows: tuple[AskedRow, ...]) -> None:
        async with self._numbering:  # without a gap, whichever of two is stored first
            mine = self._agendas + 1
            await put_agenda(self.record, self.batch.id, mine, rows, again_of=number)
            self._agendas, self._again[mine] = mine, number
            await note(self.record, self.batch.id, {"agendas": mine})
        wait_s = AGAIN_S * max(row.tries - 1 for row in rows)
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + wait_s, mine))

    async def _is_of_the_server(self, one: str, row: AskedRow) -> bool:
        """Whether a row failed for something that may pass: its server was away or had no time, or an agent died."""
        found = await answers_of(self.record, one, str(row.item.id))
        answers = chain.from_iterable(given.values() for given in found.values())
        return any(answer.status is MemberStatus.TIMEOUT or answer.error_type in PASSING for answer in answers)

    # --- telling ----------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Say on the record how far it is, and hear whether it is to stop; never ends."""
        while True:
            body = await note(self.record, self.batch.id, self.told())
            if body.get("cancel_requested") and not self.is_cancelled:
                await self._cancel()
            if asyncio.get_running_loop().time() >= self._cut_off_at:
                await self._cut_off()
            await asyncio.sleep(TELL_S)

    async def _cancel(self) -> None:
        """Let nothing begin any more, and what has begun end, since it is paid for; what takes long is cut off."""
        self.is_cancelled = True
        self.admission.stop(CANCELLED)
        self._cut_off_at = asyncio.get_running_loop().time() + DRAIN_S

    async def _cut_off(self) -> None:
        """Ask every agenda at work to stop."""
        self._cut_off_at = math.inf
        for number in list(self._at_work):
            await ask_to_cancel(self.record, agenda_id(self.batch.id, number))


async def end_begun(record: Record, one: str) -> None:
    """End an agenda that a run had begun, and that nobody goes on with. Raises RecordError."""
    if not await record.exists(subjects.plan(one)) or await record.exists(subjects.finished(one)):
        return
    await ask_to_cancel(record, one)
    async with (await open_leases()).hold(one) as lease:
        await end(record, one, lease, {})
