"""Deliveries: each target of an end gets one, which is tried until it arrives or its schedule is over.

The bucket `conclave-callbacks` has under `<id>` who is to be told of the end, and under `<id>.<n>` the delivery to the
n-th of them with its tries. That one is due is a message in the queue of callbacks (`blocks/record/callback_queue.py`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from blocks.record import callback_queue, subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.callbacks.targets import Target, UrlTarget
from tasks.council.base import Frozen, Name
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_BRIEFLY, one_line
from tasks.deliberations.read import requested_at_in, status_of

SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses after a try that failed, seconds; after the last one it is given up. Standard Webhooks' table."""
JITTER = 0.2
"""Share of a pause that is added at most, so that not all come again at once."""
MAX_ASKED_S = 86_400.0
"""The longest pause that a target may ask for."""
LATER = 0
"""In place of a number: who is to be told of the end can be read by a later version alone."""
SAME_REQUEST = timedelta(hours=1)
"""By how much the clocks of gateways may differ in one request; what is of an earlier one is days older."""
MAX_TRIES = 50
"""Tries that are remembered, the last ones."""
State = Literal["pending", "delivered", "failed"]
Verdict = Literal["delivered", "failed", "gone"]


class Try(Frozen):
    """One try: the status that it was answered with, or why there was no answer."""

    at: AwareDatetime
    verdict: Verdict
    status: int | None = Field(None, description="HTTP status.")
    detail: str | None = None
    duration_ms: int = 0


class Delivery(Frozen):
    """What the n-th target is sent, and what became of it."""

    deliberation: Name
    number: int = Field(ge=1)
    target: Target
    state: State = "pending"
    created_at: AwareDatetime
    failures: int = Field(0, description="Tries that failed since it was last asked for.")
    next_at: AwareDatetime | None = Field(None, description="When it is tried next.")
    tries: tuple[Try, ...] = ()

    @property
    def id(self) -> str:
        """What its receiver knows it by, the same at each try."""
        return f"{self.deliberation}-{self.number}"

    def early_s(self, now: datetime) -> float:
        """Seconds until it is to be tried; 0 or less from then on."""
        return 0.0 if self.next_at is None else (self.next_at - now).total_seconds()

    def after(self, made: Try, asked_s: float | None = None, chance: float = 0.5) -> Delivery:
        """The delivery after a try. `asked_s`: the pause that its target asked for; `chance`: 0 to 1, of the jitter.

        Of two tries at once the one that ends it counts; a try that was written down is not again.
        """
        if made in self.tries:
            return self
        tries = (*self.tries, made)[-MAX_TRIES:]
        if self.state != "pending":
            return self.model_copy(update={"tries": tries})
        state: State = "delivered" if made.verdict == "delivered" else "failed"
        pause = pause_s(self.failures, asked_s, chance) if made.verdict == "failed" else None
        if pause is None:
            return self.model_copy(update={"state": state, "next_at": None, "tries": tries})
        next_at = made.at + timedelta(milliseconds=made.duration_ms, seconds=pause)
        update = {"state": "pending", "next_at": next_at, "tries": tries, "failures": self.failures + 1}
        return self.model_copy(update=update)

    def asked_again(self, now: datetime) -> Delivery:
        """The delivery, to be made anew; one that is due already stays as it is."""
        if self.state == "pending" and self.early_s(now) <= 0:
            return self
        return self.model_copy(update={"state": "pending", "failures": 0, "next_at": now})


def pause_s(failures: int, asked_s: float | None, chance: float) -> float | None:
    """Seconds until the next try after so many earlier failures; None where it is given up."""
    if failures >= len(SCHEDULE_S):
        return None
    planned = SCHEDULE_S[failures] * (1 + JITTER * chance)
    return max(planned, min(asked_s or 0.0, MAX_ASKED_S))


def failed(now: datetime, detail: str, status: int | None = None, verdict: Verdict = "failed") -> Try:
    """A try that did not arrive."""
    return Try(at=now, verdict=verdict, status=status, detail=one_line(detail, SHOWN_BRIEFLY))


class _Asked(Frozen):
    """Who is to be told of an end; the number of each is its place here, which never changes."""

    targets: tuple[Target, ...] = ()
    since: AwareDatetime | None = Field(None, description="When the first of them was asked for.")

    def with_further(self, further: Sequence[Target]) -> _Asked:
        """These and further ones, each once."""
        targets = (*self.targets, *(one for one in further if one not in self.targets))
        return _Asked(targets=targets, since=self.since or datetime.now(UTC))

    def require_same(self, further: Sequence[Target]) -> None:
        """Raise InvalidRequest where the same owner's request was to be told to another URL."""
        standing = {
            one.secrets_of: one.url for one in self.targets if isinstance(one, UrlTarget) and one.by == "request"
        }
        for one in further:
            if isinstance(one, UrlTarget) and standing.get(one.secrets_of, one.url) != one.url:
                raise InvalidRequest("callback_url", "this deliberation was asked for before, with another one")

    def is_of(self, requested_at: datetime | None) -> bool:
        """Whether these were asked for with the request of that time, and not with an earlier one of the same id."""
        return self.since is None or requested_at is None or self.since > requested_at - SAME_REQUEST


async def ask(record: Record, deliberation: str, targets: Sequence[Target]) -> None:
    """Let these be told of the end of a deliberation that was accepted; at once where it has ended.

    Raises InvalidRequest where the same request was to be told to another URL, and RecordError.
    """
    requested_at = requested_at_in(await status_of(record, deliberation) or {})
    await record.callbacks.change(deliberation, lambda body: _asking(body, targets, requested_at))
    if await record.exists(subjects.finished(deliberation)):  # before its key says so: then who follows ends has passed
        await begin(record, deliberation)


async def begin(
    record: Record, deliberation: str, further: Sequence[Target] = (), requested_at: datetime | None = None
) -> bool:
    """Let the deliveries of an end begin; those that have begun go on. `further` are told beside those who asked.

    Who asked for an earlier deliberation of the same id, before `requested_at`, is not told. False where a later
    version wrote who is to be told: then a gateway of that one takes it from the queue. Raises RecordError.
    """
    asked = _asked(await record.callbacks.read(deliberation))
    if asked is None:
        await callback_queue.put(record, deliberation, LATER)
        return False
    if not asked.is_of(requested_at):
        await record.callbacks.delete(deliberation)
        asked = _Asked()
    if further:
        await record.callbacks.change(deliberation, lambda body: _changed(_asked(body), further))
        asked = _asked(await record.callbacks.read(deliberation)) or asked
    for number, target in enumerate(asked.targets, 1):
        if await _begun(record, deliberation, number, target, asked.since):
            await callback_queue.put(record, deliberation, number)
    return True


async def _begun(record: Record, deliberation: str, number: int, target: Target, since: datetime | None) -> bool:
    """Whether a delivery is to be made: it is new, or stands and waits, or stands for an earlier one of the same id."""
    now, key = datetime.now(UTC), _key(deliberation, number)
    made = Delivery(deliberation=deliberation, number=number, target=target, created_at=now, next_at=now)
    if await record.callbacks.create(key, made.model_dump(mode="json")):
        return True
    standing = await read(record, deliberation, number)
    if standing is not None and since is not None and standing.created_at < since - SAME_REQUEST:
        await record.callbacks.put(key, made.model_dump(mode="json"))
        return True
    return standing is not None and standing.state == "pending"


def _asking(body: Body | None, targets: Sequence[Target], requested_at: datetime | None) -> Body | None:
    """The key once these are to be told, too, None where it stays as it is. Raises InvalidRequest: `require_same`."""
    standing = _asked(body)
    if standing is not None and not standing.is_of(requested_at):
        standing = _Asked()
    if standing is not None:
        standing.require_same(targets)
    return _changed(standing, targets)


def _changed(standing: _Asked | None, further: Sequence[Target]) -> Body | None:
    if standing is None:
        return None
    asked = standing.with_further(further)
    return None if asked == standing else asked.model_dump(mode="json")


def _asked(body: Body | None) -> _Asked | None:
    """Who is to be told; None where a later version wrote it."""
    try:
        return _Asked() if body is None else _Asked.from_record(body)
    except ValidationError:
        return None


async def read(record: Record, deliberation: str, number: int) -> Delivery | None:
    """The n-th delivery; None where there is none that can be read. Raises RecordError."""
    return _read(await record.callbacks.read(_key(deliberation, number)))


async def is_later(record: Record, deliberation: str, number: int) -> bool:
    """Whether what there is to do can be read by a later version alone. Raises RecordError."""
    if number == LATER:
        return not await begin(record, deliberation)
    return await record.callbacks.read(_key(deliberation, number)) is not None


async def listed(record: Record, deliberation: str) -> list[Delivery]:
    """The deliveries of a deliberation, in the order of their numbers. Raises RecordError."""
    names = await record.callbacks.names(f"{deliberation}.")
    found = [_read(await record.callbacks.read(name)) for name in names]
    return sorted(filter(None, found), key=lambda delivery: delivery.number)


async def keep(record: Record, delivery: Delivery, made: Try, asked_s: float | None = None) -> Delivery | None:
    """Write down a try; the delivery as it stands then, None where it is gone. Raises RecordError."""
    kept: Delivery | None = None
    chance = random.random()  # of the jitter

    def changed(body: Body | None) -> Body | None:
        nonlocal kept
        standing = _read(body)
        kept = None if standing is None else standing.after(made, asked_s, chance)
        return None if kept is None else kept.model_dump(mode="json")

    await record.callbacks.change(_key(delivery.deliberation, delivery.number), changed)
    return kept


async def again(record: Record, deliberation: str, number: int) -> Delivery | None:
    """Let a delivery be made anew, now; None where there is none. Raises RecordError."""
    now, asked = datetime.now(UTC), None

    def changed(body: Body | None) -> Body | None:
        nonlocal asked
        standing = _read(body)
        asked = None if standing is None else standing.asked_again(now)
        return None if asked is None else asked.model_dump(mode="json")

    await record.callbacks.change(_key(deliberation, number), changed)
    if asked is not None and asked.next_at == now:
        await callback_queue.put_now(record, deliberation, number)
    elif asked is not None:  # due already, unless whoever wrote that did not come to say so
        await callback_queue.put(record, deliberation, number)
    return asked


def _key(deliberation: str, number: int) -> str:
    return f"{deliberation}.{number}"


def _read(body: Body | None) -> Delivery | None:
    try:
        return None if body is None else Delivery.from_record(body)
    except ValidationError:
        return None
