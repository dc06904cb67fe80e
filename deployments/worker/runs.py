"""One request from the queue to its end: lease, flow run, flow, acknowledgement.

A request leaves the queue when its deliberation has a final status on the record and its flow run one in Prefect. Until
then it is delivered again, to this worker or another. Whoever runs it holds its lease; the stale delivery of one that
was thought dead is never answered, since that would take the request from its successor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed

from blocks.exceptions import (
    AgentsUnavailable,
    BlockMissing,
    BlockUnusable,
    ConclaveError,
    NewerVersion,
    NotDecided,
    OtherInstallation,
    PrefectRefused,
    PrefectUnavailable,
    RecordError,
    RecordUnavailable,
    RecordUnreadable,
    Superseded,
)
from blocks.record import subjects
from blocks.record.events import LEASE_S, Body, Record
from blocks.record.leases import Lease, Leases
from blocks.record.queue import Delivery
from deployments.worker.cluster import Cluster
from deployments.worker.flow_runs import FlowRuns, OtherRun, run_flow, tell_prefect
from deployments.worker.places import Places
from deployments.worker.requests import UnknownFlow, load
from tasks.collect.end import end, refuse
from tasks.collect.states import TakenOver, ended_state
from tasks.council.models import InvalidRequest, Status
from tasks.council.plain import one_line
from tasks.deliberations.finish import MAX_REASON, end_without_plan
from tasks.deliberations.ownership import is_second_run, runs_under
from tasks.deliberations.read import require_same, status_of
from tasks.deliberations.submit import DELIBERATE, Request, ask_to_cancel, is_accepted

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

MAX_TRIES = 5
"""A request that is still not finished after so many runs is ended with what stands on the record."""
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


@dataclass
class Work:
    """A request that is being worked on."""

    delivery: Delivery
    request: Request | None = None
    lease: Lease | None = None
    run: str | None = None
    flow: asyncio.Task[State[Any]] | None = None
    cancelled: bool = False
    tries: int = 0
    """Runs of the deliberation with this one; 0 where none has begun."""
    spent: bool = False
    """Whether it failed too often, and is to be given up."""

    def cancel(self) -> None:
        """Stop its flow, for somebody who asked for that."""
        if self.flow is not None:
            self.cancelled = True
            self.flow.cancel()


TRIED_AGAIN = (
    *(NotDecided, AgentsUnavailable, OtherInstallation, RecordError, BlockMissing, BlockUnusable),
    *(PrefectUnavailable, PrefectRefused, httpx.HTTPError),
)


class Runs:
    """Works on requests; `in_work` has those of this moment, by a number of their own."""

    def __init__(self, record: Record, leases: Leases, cluster: Cluster, places: Places, log: Log) -> None:
        self.record, self.leases = record, leases
        self._cluster, self._places, self._log = cluster, places, log
        self.in_work: dict[int, Work] = {}
        self.peak = self.ended = 0
        self._numbers = 0
        self._flow_runs = FlowRuns(record)
        self._failures: OrderedDict[int, Seen] = OrderedDict()
        self._newer: OrderedDict[int, Seen] = OrderedDict()

    @property
    def newer(self) -> int:
        """Messages that a later version wrote, and that wait for a worker of that version."""
        since = time.monotonic() - 3 * NEWER_AGAIN_S  # what a newer worker took meanwhile comes here no more
        return sum(seen.last > since for seen in self._newer.values())

    async def run(self, delivery: Delivery) -> None:
        """Work on a request until it is done, or is to be delivered again. Never raises."""
        self._numbers += 1
        number, work = self._numbers, Work(delivery)
        self.in_work[number] = work
        self.peak = max(self.peak, len(self.in_work))
        try:
            async with self.leases.working_on(delivery.reply):
                await self._work_on(work)
        except Exception as error:  # noqa: BLE001  # whatever one request brings up must not end the others
            await self._after(work, error)
        finally:
            del self.in_work[number]
            self.ended += 1

    async def hand_back(self) -> None:
        """Give everything that is in work back to the queue, for another worker to go on with at once.

        Workers that are replaced one after another may hand over a long deliberation often: it counts as no try.
        """
        for work in list(self.in_work.values()):
            if work.request is not None and work.tries:
                with suppress(RecordError):
                    await self.record.merge_status(work.request.id, {"tries": work.tries - 1})
            if work.lease is not None:
                await self.leases.release(work.lease)
            await work.delivery.hand_back()

    # --- one request ------------------------------------------------------------------------------

    async def _work_on(self, work: Work) -> None:
        delivery = work.delivery
        try:
            body = await delivery.body()
            request = work.request = Request.of_message(delivery.id, body)
            flow = load(request.flow)
        except (InvalidRequest, UnknownFlow, RecordUnreadable) as error:
            await self._refused(work, str(error))
            return
        lease = work.lease = await self.leases.take(request.id)
        if lease is None:  # its holder ends it, or is gone when the request comes again
            await delivery.hand_back(LEASE_S)
            return
        try:
            again_s = await self._under_lease(work, request, flow, lease)
        finally:
            await self.leases.release(lease)
        if again_s is None:
            self._failures.pop(delivery.sequence, None)
            await delivery.done()
        else:
            await delivery.hand_back(again_s)

    async def _under_lease(self, work: Work, request: Request, flow: Flow[Any, Any], lease: Lease) -> float | None:
        """Run it; None once it is finished, else the seconds until the next try."""
        tries = work.delivery.deliveries
        try:
            status = await self._status_of(request)
            run = await self._flow_runs.of(request, flow)
            work.run = str(run.id)
            if request.flow != DELIBERATE:
                await self._other(work, request, flow, run)
                return None
            tries = await self._deliberation(work, request, flow, run, lease, status)
        except OtherRun as error:
            await self._refused(work, str(error))
        except ObjectNotFound:
            await self._without_run(request, lease)
        except InvalidRequest as error:
            if await refuse(self.record, request.id, lease, str(error), request.digest, work.run):
                await tell_prefect(work.run, Crashed(message=str(error)))
            else:
                await self._refused(work, str(error))
        except TakenOver as error:
            raise Superseded(str(error)) from error
        except (Superseded, NewerVersion):
            raise
        except (*TRIED_AGAIN, Abort) as error:
            return await self._again(work, request, error, tries)
        return None

    async def _without_run(self, request: Request, lease: Lease) -> None:
        """End a deliberation whose flow run is not in Prefect; that of a second run of it ends only that request."""
        reason = "its flow run is not in Prefect: it was deleted, or never was"
        if request.flow != DELIBERATE or await is_second_run(self.record, request.id, request.run):
            self._log.warning("request %s leaves the queue: %s", request.id, reason)
        elif not await refuse(self.record, request.id, lease, reason, request.digest):
            await self._end(request, lease, reason)

    async def _again(self, work: Work, request: Request, error: BaseException, tries: int) -> float:
        """The seconds until the next try. Raises the error where this message has failed too often."""
        if isinstance(error, OtherInstallation):  # no try of the deliberation's, which is left open for its own
            self._log.error("%s waits until what it needs is this installation's: %s", request.id, error)
            if work.tries:
                await self.record.merge_status(request.id, {"tries": work.tries - 1})
            return AGAIN_S * MAX_TRIES
        if isinstance(error, AgentsUnavailable):
            await self._cluster.suspect()
        if _is_of_the_message(error) and self._is_spent(work, error):
            raise error if isinstance(error, Exception) else NotDecided(str(error) or type(error).__name__)
        self._log.warning("%s is tried again (%s): %s", request.id, type(error).__name__, error)
        return AGAIN_S * min(tries, MAX_TRIES)

    async def _status_of(self, request: Request) -> Body:
        """The status of a request's deliberation. Raises InvalidRequest where its id is another request's."""
        if request.flow != DELIBERATE:
            return {}
        status = await status_of(self.record, request.id) or {}
        await require_same(self.record, request.id, request.digest, status)
        return status

    async def _deliberation(
        self, work: Work, request: Request, flow: Flow[Any, Any], run: FlowRun, lease: Lease, status: Body
    ) -> int:
        """Run a deliberation to its end. Raises NotDecided, and what its flow raises."""
        final = "status" in status and Status(status["status"]).final
        in_prefect = run.state
        if final and in_prefect is not None and in_prefect.is_final():
            return 0
        if final and (_wants_end(in_prefect) or work.delivery.deliveries > MAX_TRIES):
            await tell_prefect(work.run, ended_state(status))
            return 0
        if _wants_end(in_prefect) and not final and not await runs_under(self.record, request.id, run):
            await tell_prefect(work.run, Cancelled(message=f"A second run of {request.id}, which goes on."))
            return 0
        if not final and (status.get("cancel_requested") or _wants_end(in_prefect)):
            await self.cancelled(request, run, lease)
            return 0
        tries = int(status.get("tries") or 0) + 1
        if not final and tries > MAX_TRIES:
            await self._end(request, lease, f"given up after {MAX_TRIES} runs that did not end it")
            await tell_prefect(work.run, Crashed(message=f"Given up after {MAX_TRIES} runs."))
            return tries
        work.tries = tries
        began = {"tries": tries, "run": str(run.id)}
        if not await self.record.merge_status(request.id, began):
            await self.record.merge_status(request.id, _new_status(request) | began)
        state = await self._execute(work, self._flow_runs.announcing(flow), run, request, lease)
        if await self.record.last(subjects.finished(request.id)) is None:
            failure = await state.aresult(raise_on_failure=False)
            known = isinstance(failure, ConclaveError)
            raise failure if known else NotDecided(state.message or state.name)
        return tries

    async def _other(self, work: Work, request: Request, flow: Flow[Any, Any], run: FlowRun) -> None:
        """Run a flow that is no deliberation, unless it has ended or was given up too often."""
        if run.state is not None and (run.state.is_final() or _wants_end(run.state)):
            if not run.state.is_final():
                await tell_prefect(work.run, Cancelled(message="Cancelled before it began."))
            return
        if work.delivery.deliveries > MAX_TRIES:
            await tell_prefect(work.run, Crashed(message=f"Given up after {MAX_TRIES} deliveries."))
            return
        state = await self._execute(work, self._flow_runs.announcing(flow), run, request, work.lease)
        if state.is_cancelled():  # Prefect's engine calls that a crash
            await tell_prefect(work.run, state)
            return
        failure = await state.aresult(raise_on_failure=False) if not state.is_completed() else None
        if isinstance(failure, AgentsUnavailable):
            raise failure

    async def _execute(
        self, work: Work, flow: Flow[Any, Any], run: FlowRun, request: Request, lease: Lease | None
    ) -> State[Any]:
        """The flow under Prefect's own engine, in a task of its own, which a cancel can reach."""
        parameters = {**run.parameters}
        if request.flow == DELIBERATE:
            parameters["deliberation_id"] = request.id
        async with self._places.starting(request.lane) as started:
            work.flow = asyncio.create_task(run_flow(flow, run, parameters, lease, started))
            try:
                return await asyncio.shield(work.flow)
            except asyncio.CancelledError as error:
                if work.cancelled and work.flow.cancelled():
                    return Cancelled(message="Cancelled while it ran.")
                if not work.flow.cancelled():  # the worker itself ends
                    raise
                raise NotDecided(f"Prefect's engine gave the run up: {error}") from error

    # --- ends -------------------------------------------------------------------------------------

    async def _refused(self, work: Work, reason: str) -> None:
        """A message that no worker can run leaves the queue as a dead letter; nothing else ends with it."""
        self._log.error("request %s is refused: %s", work.delivery.id, reason)
        # Set only where the run was found to be the request's own.
        await tell_prefect(work.run, Crashed(message=f"Refused: {reason}"), waiting_only=True)
        await work.delivery.bury(reason)

    async def _after(self, work: Work, error: Exception) -> None:
        """See to a message that could not be dealt with. Never raises."""
        delivery = work.delivery
        try:
            if isinstance(error, Superseded):  # nothing is said to the queue: the delivery is somebody else's by now
                self._log.warning("%s is left to another worker: %s", delivery.id, error)
            elif isinstance(error, NewerVersion):
                await self._leave_to_newer(work, error)
            else:
                self._log.error("%s could not be run", delivery.id, exc_info=error)
                await self._failed(work, error, AGAIN_S)
        except Exception:  # noqa: BLE001  # as above
            self._log.exception("%s could not be seen to; it is tried again", delivery.id)
            await delivery.hand_back(AGAIN_S * MAX_TRIES)

    async def _failed(self, work: Work, error: Exception, again_s: float) -> None:
        """Try a message again, a few times; then it is a dead letter, and what it was accepted for ends FAILED."""
        delivery = work.delivery
        if not _is_of_the_message(error):
            await delivery.hand_back(again_s)
            return
        if not work.spent and not self._is_spent(work, error):
            await delivery.hand_back(again_s * self._failures[delivery.sequence].times)
            return
        times = self._failures[delivery.sequence].times
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
        if request is not None and request.flow == DELIBERATE and await is_accepted(self.record, request.id):
            lease = await self.leases.take(request.id)
            if lease is None:
                return False
            try:
                await end_without_plan(self.record, request.id, lease, reason, run=work.run)
            finally:
                await self.leases.release(lease)
        await tell_prefect(work.run, Crashed(message=reason))
        return True

    async def _leave_to_newer(self, work: Work, error: NewerVersion) -> None:
        """Leave what a later version wrote to a worker of that version, for a while; it counts as no try."""
        delivery = work.delivery
        seen = _seen(self._newer, delivery.sequence)
        if work.request is not None and work.tries:
            await self.record.merge_status(work.request.id, {"tries": work.tries - 1})
        if seen.last - seen.first < NEWER_S:
            self._log.warning("%s is left to a newer worker: %s", delivery.id, error)
            await delivery.hand_back(NEWER_AGAIN_S)
            return
        await delivery.bury(f"no newer worker took it within {NEWER_S:g} s: {error}")
        del self._newer[delivery.sequence]

    def _is_spent(self, work: Work, error: BaseException) -> bool:
        """Count a failure; whether the message has failed too often in this worker."""
        seen = _seen(self._failures, work.delivery.sequence)
        broken = isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
        patient = broken and seen.last - seen.first < SERVER_ERRORS_S
        work.spent = seen.times >= MAX_FAILURES and not patient
        return work.spent

    async def cancelled(self, request: Request, run: FlowRun, lease: Lease) -> None:
        """End a deliberation that is to stop and that nobody runs."""
        await ask_to_cancel(self.record, request.id)
        await self._end(request, lease, "cancelled before it began")
        await tell_prefect(str(run.id), Cancelled(message="Cancelled while nobody ran it."))

    async def _end(self, request: Request, lease: Lease, reason: str) -> None:
        if request.flow != DELIBERATE:
            return
        self._log.warning("%s is ended with what stands on the record: %s", request.id, reason)
        await end(self.record, request.id, lease, request.asked)


def _wants_end(state: State[Any] | None) -> bool:
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _is_of_the_message(error: BaseException) -> bool:
    """Whether it may come from the message, and not from a part that is away."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code not in TRANSIENT_STATUS
    return not isinstance(error, AWAY)


def _new_status(request: Request) -> Body:
    """Of a deliberation whose message came without a key, or after it was let go."""
    return {"id": request.id, "status": Status.PENDING.value, "request_digest": request.digest, "door": request.door}


def _seen(kept: OrderedDict[int, Seen], sequence: int) -> Seen:
    """Note that a message was seen once more."""
    now = time.monotonic()
    before = kept.get(sequence, Seen(0, now, now))
    kept[sequence] = Seen(before.times + 1, before.first, now)
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)
    return kept[sequence]
