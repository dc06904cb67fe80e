"""What becomes of a message that could not be dealt with: tried again, left to a newer worker, or given up and buried.

A failure counts where it may come from the message, and not from a part that is away. Each worker counts by itself.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import NamedTuple

import httpx
from prefect.states import Crashed

from blocks.exceptions import (
    AgentsUnavailable,
    NewerVersion,
    NotDecided,
    OtherInstallation,
    PrefectRefused,
    PrefectUnavailable,
    RecordUnavailable,
    Superseded,
)
from blocks.record.events import Record
from blocks.record.lease_keys import LEASE_S
from blocks.record.leases import Leases
from deployments.worker.flow_runs import tell_prefect
from deployments.worker.work import MAX_TRIES, Work
from tasks.batch.tries import fail_batch
from tasks.council.plain import one_line
from tasks.deliberations.finish import MAX_REASON, end_without_plan
from tasks.deliberations.submit import BATCH_FLOWS, DELIBERATE, is_accepted

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

MAX_FAILURES = MAX_TRIES + 3
"""A message that this worker could not deal with so often, whatever the reason, becomes a dead letter."""
AGAIN_S = 5.0
"""How long a request that could not be finished waits for the next try, for each try before."""
NEWER_AGAIN_S = 10.0
NEWER_S = 3600.0
"""How long what a later version wrote is left to a worker of that version; then it is a dead letter."""
REMEMBERED = 10_000
"""Messages whose failures are remembered."""
TRANSIENT_STATUS = (401, 403, 408, 429, 502, 503, 504)
"""HTTP statuses of Prefect that say nothing of the request."""
AWAY = (RecordUnavailable, AgentsUnavailable, PrefectUnavailable, PrefectRefused, httpx.TransportError)
"""What says that a part is away, and nothing of the request."""
SERVER_ERRORS_S = 900.0
"""How long a request is tried that Prefect answers 500 to: it may be the request, or Prefect's database."""


class Seen(NamedTuple):
    """How often something was seen, and when at first and at last, by the clock of this process."""

    times: int
    first: float
    last: float


class Failures:
    """Counts what failed, by message, and sees to what could not be dealt with."""

    def __init__(self, record: Record, leases: Leases, log: Log) -> None:
        self._record, self._leases, self._log = record, leases, log
        self._counted: OrderedDict[int, Seen] = OrderedDict()
        self._newer: OrderedDict[int, Seen] = OrderedDict()

    @property
    def newer(self) -> int:
        """Messages that a later version wrote, and that wait for a worker of that version."""
        since = time.monotonic() - 3 * NEWER_AGAIN_S  # what a newer worker took meanwhile comes here no more
        return sum(seen.last > since for seen in self._newer.values())

    def forget(self, work: Work) -> None:
        """Forget the failures of a message that was dealt with."""
        self._counted.pop(work.delivery.sequence, None)

    async def retry_delay_s(self, work: Work, error: BaseException) -> float:
        """The seconds until the next try of a request. Raises the error where its message has failed too often."""
        if isinstance(error, OtherInstallation):  # no try of the deliberation's, which is left open for its own
            self._log.error("%s waits until what it needs is this installation's: %s", work.delivery.id, error)
            await work.take_back_try(self._record)
            return AGAIN_S * MAX_TRIES
        if _is_of_the_message(error) and self._is_spent(work, error):
            raise error if isinstance(error, Exception) else NotDecided(str(error) or type(error).__name__)
        self._log.warning("%s is tried again (%s): %s", work.delivery.id, type(error).__name__, error)
        return AGAIN_S * min(work.delivery.deliveries, MAX_TRIES)

    async def refuse(self, work: Work, reason: str) -> None:
        """Bury a message that no worker can run; nothing else ends with it."""
        self._log.error("request %s is refused: %s", work.delivery.id, reason)
        # Set only where the run was found to be the request's own.
        await tell_prefect(work.run, Crashed(message=f"Refused: {reason}"), waiting_only=True)
        await work.delivery.bury(reason)

    async def handle(self, work: Work, error: Exception) -> None:
        """See to a message that could not be dealt with. Never raises."""
        delivery = work.delivery
        try:
            if isinstance(error, Superseded):  # nothing is said to the queue: the delivery is somebody else's by now
                self._log.warning("%s is left to another worker: %s", delivery.id, error)
            elif isinstance(error, NewerVersion):
                await self._leave_to_newer(work, error)
            else:
                self._log.error("%s could not be run", delivery.id, exc_info=error)
                await self._count(work, error)
        except Exception:  # noqa: BLE001  # whatever one request brings up must not end the others
            self._log.exception("%s could not be seen to; it is tried again", delivery.id)
            await delivery.hand_back(AGAIN_S * MAX_TRIES)

    async def _count(self, work: Work, error: Exception) -> None:
        """Try a message again, a few times; then it is a dead letter, and what it was accepted for ends FAILED."""
        delivery = work.delivery
        if not _is_of_the_message(error):
            await delivery.hand_back(AGAIN_S)
            return
        if not work.spent and not self._is_spent(work, error):
            await delivery.hand_back(AGAIN_S * self._counted[delivery.sequence].times)
            return
        times = self._counted[delivery.sequence].times
        reason = one_line(f"given up after {times} failures: {type(error).__name__}: {error}", MAX_REASON)
        try:
            given_up = await self._give_up(work, reason)
        except AWAY:
            raise
        except Exception:  # noqa: BLE001  # what stands on the record must not keep the message in the queue
            self._log.exception("%s cannot be ended", delivery.id)
            given_up = True
        if given_up:
            await delivery.bury(reason)
        else:
            await delivery.hand_back(LEASE_S)

    async def _give_up(self, work: Work, reason: str) -> bool:
        """End what a request was accepted for, without reading what may have failed; False where somebody runs it."""
        request = work.request
        if request is not None and request.flow == DELIBERATE and await is_accepted(self._record, request.id):
            lease = await self._leases.take(request.id)
            if lease is None:
                return False
            try:
                await end_without_plan(self._record, request.id, lease, reason, run=work.run)
            finally:
                await self._leases.release(lease)
        if request is not None and request.flow in BATCH_FLOWS:
            await fail_batch(self._record, work.run, request.parameters.get("batch_id"), reason)
        await tell_prefect(work.run, Crashed(message=reason))
        return True

    async def _leave_to_newer(self, work: Work, error: NewerVersion) -> None:
        """Leave what a later version wrote to a worker of that version, for a while; it counts as no try."""
        delivery = work.delivery
        seen = _seen(self._newer, delivery.sequence)
        await work.take_back_try(self._record)
        if seen.last - seen.first < NEWER_S:
            self._log.warning("%s is left to a newer worker: %s", delivery.id, error)
            await delivery.hand_back(NEWER_AGAIN_S)
            return
        await delivery.bury(f"no newer worker took it within {NEWER_S:g} s: {error}")
        del self._newer[delivery.sequence]

    def _is_spent(self, work: Work, error: BaseException) -> bool:
        """Count a failure; whether the message has failed too often in this worker."""
        seen = _seen(self._counted, work.delivery.sequence)
        broken = isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
        patient = broken and seen.last - seen.first < SERVER_ERRORS_S
        work.spent = seen.times >= MAX_FAILURES and not patient
        return work.spent


def _is_of_the_message(error: BaseException) -> bool:
    """Whether it may come from the message, and not from a part that is away."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code not in TRANSIENT_STATUS
    return not isinstance(error, AWAY)


def _seen(kept: OrderedDict[int, Seen], sequence: int) -> Seen:
    """Note that a message was seen once more."""
    now = time.monotonic()
    before = kept.get(sequence, Seen(0, now, now))
    kept[sequence] = Seen(before.times + 1, before.first, now)
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)
    return kept[sequence]
