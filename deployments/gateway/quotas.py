"""How much may be asked for: the length of the queue, and what an owner may have open and use in a day.

What an owner has open is counted in a key of the bucket `conclave-access`, by compare-and-set, so that two gateways
share it: the ids that were accepted; those that have ended are taken out when it is full. What an owner's deliberations
used is added up once for each end on the record (`usage.py`).
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.refreshed import Refreshed
from deployments.gateway.problems import Problem, later
from tasks.access.tokens import Token
from tasks.access.usage import seconds_to_midnight, used_today
from tasks.deliberations.read import has_ended, status_of

QUEUE_KEPT_S = 1.0
"""How long a count of the queue holds; what this gateway puts in is added to it."""
FULL_S = 10
OPEN = "open."
UNKNOWN_S = 60.0
"""How long a place is kept for what has no key yet: it may be about to be made."""


class Quotas:
    """Says no before anything is stored."""

    def __init__(self, record: Record, queue: int) -> None:
        self._record, self._queue = record, queue
        self._counted = Refreshed(self._count, QUEUE_KEPT_S)
        self._taken = 0
        """Requests that were let in since the queue was counted."""

    async def check(self, token: Token, deliberation_id: str) -> bool:
        """Take a place for a deliberation; whether that is a new one. Raises Problem where there is none."""
        await self._check_queue()
        if token.tokens_a_day is not None:
            await self._check_usage(token, token.tokens_a_day)
        return token.at_once is not None and await self._take_place(token, token.at_once, deliberation_id)

    async def give_back(self, token: Token, deliberation_id: str) -> None:
        """What a place was taken for was not accepted after all."""
        await self._record.access.change(OPEN + token.owner, partial(_without, gone={deliberation_id}))

    async def _check_queue(self) -> None:
        if await self._counted.get() + self._taken >= self._queue:
            told = f"{self._queue} deliberations wait or run already; try again later"
            raise later(429, "queue-full", told, FULL_S)
        self._taken += 1

    async def _count(self) -> int:
        before = self._taken
        waiting = await self._record.messages(subjects.REQUESTS)
        self._taken -= before  # of those let in meanwhile nobody knows yet whether they were counted
        return waiting

    async def _check_usage(self, token: Token, limit: int) -> None:
        used = await used_today(self._record, token.owner)
        if used >= limit:
            told = f"{used:,} model tokens were used today (UTC), and {limit:,} are allowed"
            raise Problem(429, "daily-tokens", told, {"Retry-After": str(min(120, seconds_to_midnight()))})

    async def _status(self, one: str) -> Body | None:
        """The status of a deliberation, or of a batch."""
        return await status_of(self._record, one) or await self._record.batches.read(one)

    async def _take_place(self, token: Token, limit: int, deliberation_id: str) -> bool:
        key = OPEN + token.owner

        def taken(body: Body | None) -> Body | None:
            ids = _ids(body)
            if deliberation_id in ids or len(ids) >= limit:
                return None
            return {"ids": {**ids, deliberation_id: time.time()}}

        for _ in range(2):
            if await self._record.access.change(key, taken):
                return True
            standing = _ids(await self._record.access.read(key))
            if deliberation_id in standing:
                return False
            ended = await self._ended(standing)
            await self._record.access.change(key, partial(_without, gone=ended))
        told = f"this token's owner has {limit} deliberations open, and may have no more; try again later"
        raise later(429, "too-many-open", told, FULL_S)

    async def _ended(self, ids: dict[str, float]) -> set[str]:
        """Those that have ended, or of which nothing is known though their key has had the time to be made."""
        statuses = await asyncio.gather(*(self._status(one) for one in ids))
        old = time.time() - UNKNOWN_S
        gone = set()
        for (one, taken_at), status in zip(ids.items(), statuses, strict=True):
            if (status is None and taken_at < old) or has_ended(status or {}):
                gone.add(one)
        return gone


def _ids(body: Body | None) -> dict[str, float]:
    """What has a place, and when it was taken."""
    found = (body or {}).get("ids")
    return found if isinstance(found, dict) else {}


def _without(body: Body | None, gone: set[str]) -> Body | None:
    ids = _ids(body)
    kept = {one: taken_at for one, taken_at in ids.items() if one not in gone}
    return None if kept == ids else {"ids": kept}
