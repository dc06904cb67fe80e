"""One request from the queue to its end: lease, flow run, flow, acknowledgement.

A request leaves the queue when its deliberation has a final status on the record and its flow run one in Prefect. Until
then it is delivered again, to this worker or another. Whoever runs it holds its lease; the stale delivery of one that
was thought dead is never answered, since that would take the request from its successor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed

from blocks.background import background
from blocks.documents import DEFAULT, Documents
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
    RecordUnreadable,
    Superseded,
)
from blocks.ray_agents import RayAgents
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.lease_keys import LEASE_S
from blocks.record.leases import Lease, Leases
from blocks.record.queue import Delivery
from deployments.worker.cluster import Cluster
from deployments.worker.failures import Failures
from deployments.worker.flow_runs import FlowRuns, OtherRun, run_flow, tell_prefect
from deployments.worker.requests import UnknownFlow, load
from deployments.worker.start_slots import StartSlots
from deployments.worker.work import MAX_TRIES, Work
from tasks.batch.ending import end_cancelled
from tasks.batch.tries import count_try, fail_batch, goes_on
from tasks.collect.end import end, refuse
from tasks.collect.states import TakenOver, ended_state, wants_end
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, Status
from tasks.deliberations.finish import end_without_plan
from tasks.deliberations.ownership import is_second_run, runs_under
from tasks.deliberations.plan import Convening, Session, blocks_of, convene
from tasks.deliberations.read import has_ended, require_same, status_of
from tasks.deliberations.submit import BATCH_FLOWS, DELIBERATE, EXPIRED, Request, ask_to_cancel, asked_in

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

TRIED_AGAIN = (
    *(NotDecided, AgentsUnavailable, OtherInstallation, RecordError, BlockMissing, BlockUnusable),
    *(PrefectUnavailable, PrefectRefused, httpx.HTTPError),
)
"""What a run may raise that another one, later, need not."""


class Beside(NamedTuple):
    """What is read for a run while Prefect makes it."""

    flow: asyncio.Task[Flow[Any, Any]]
    """The flow that says when it has started, on the agents that their block names now."""
    blocks: asyncio.Task[Documents]


class Runs:
    """Works on requests; `in_work` has those of this moment, by a number of their own."""

    def __init__(self, record: Record, leases: Leases, cluster: Cluster, start_slots: StartSlots, log: Log) -> None:
        self.record, self.leases = record, leases
        self._cluster, self._start_slots, self._log = cluster, start_slots, log
        self.in_work: dict[int, Work] = {}
        self.failures = Failures(record, leases, log)
        self.peak = self.ended = 0
        self._numbers = 0
        self._flow_runs = FlowRuns(record)

    def work_for(self, run: str) -> Work | None:
        """What is being worked on under a flow run."""
        return next((work for work in self.in_work.values() if work.run == run), None)

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
            await self.failures.handle(work, error)
        finally:
            del self.in_work[number]
            self.ended += 1

    async def hand_back(self) -> None:
        """Give everything that is in work back to the queue, for another worker to go on with at once.

        Workers that are replaced one after another may hand over a long deliberation often: it counts as no try.
        """
        for work in list(self.in_work.values()):
            with suppress(RecordError):
                await work.take_back_try(self.record)
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
            await self.failures.refuse(work, str(error))
            return
        if (early_s := request.early_s(datetime.now(UTC))) > 0:
            await delivery.hand_back(early_s)
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
            self.failures.forget(work)
            await delivery.done()
        else:
            await delivery.hand_back(again_s)

    async def _under_lease(self, work: Work, request: Request, flow: Flow[Any, Any], lease: Lease) -> float | None:
        """Run it; None once it is finished, else the seconds until the next try."""
        try:
            await self._try(work, request, flow, lease)
        except OtherRun as error:
            await self.failures.refuse(work, str(error))
        except ObjectNotFound:
            await self._without_run(request, lease)
        except InvalidRequest as error:
            if await refuse(self.record, request.id, lease, str(error), request.digest, work.run):
                await tell_prefect(work.run, Crashed(message=str(error)))
            else:
                await self.failures.refuse(work, str(error))
        except TakenOver as error:
            raise Superseded(str(error)) from error
        except (Superseded, NewerVersion):
            raise
        except (*TRIED_AGAIN, Abort) as error:
            if isinstance(error, AgentsUnavailable):
                await self._cluster.suspect()
            return await self.failures.retry_delay_s(work, error)
        return None

    async def _try(self, work: Work, request: Request, flow: Flow[Any, Any], lease: Lease) -> None:
        """Run it, unless it ended before it began, and no flow run has to show that."""
        status = await self._status_of(request)
        if has_ended(status) and request.run is None and not status.get("run"):
            return
        async with self._beside(request, flow) as beside:
            run = await self._flow_runs.of(request, flow)
            work.run = str(run.id)
            if request.flow == DELIBERATE:
                await self._deliberation(work, request, beside, run, lease, status)
            else:
                await self._other(work, request, beside, run)

    @asynccontextmanager
    async def _beside(self, request: Request, flow: Flow[Any, Any]) -> AsyncGenerator[Beside, None]:
        async with (
            background(self._blocks(request, flow)) as (blocks,),
            background(self._flow_runs.announcing(flow, blocks)) as (announcing,),
        ):
            yield Beside(announcing, blocks)

    async def _blocks(self, request: Request, flow: Flow[Any, Any]) -> Documents:
        """The blocks that a deliberation needs in most cases; what it needs besides is read when it is known."""
        if request.flow != DELIBERATE:
            return {}
        try:
            named = (await self._flow_runs.parameters(request, flow)).get("council")
        except InvalidRequest:  # making its run says so
            named = None
        council = named if isinstance(named, str) else DeliberationRequest.model_fields["council"].default
        return await blocks_of(council, (RayAgents, DEFAULT))

    async def _without_run(self, request: Request, lease: Lease) -> None:
        """End a deliberation whose flow run is not in Prefect; that of a second run of it ends only that request."""
        reason = "its flow run is not in Prefect: it was deleted, or never was"
        if request.flow != DELIBERATE or await is_second_run(self.record, request.id, request.run):
            self._log.warning("request %s leaves the queue: %s", request.id, reason)
            await self._fail_batch(request, request.run, reason)
        elif not await refuse(self.record, request.id, lease, reason, request.digest):
            await self._end(request, lease, reason)

    async def _status_of(self, request: Request) -> Body:
        """The status of a request's deliberation. Raises InvalidRequest where its id is another request's."""
        if request.flow != DELIBERATE:
            return {}
        status = await status_of(self.record, request.id) or {}
        await require_same(self.record, request.id, request.digest, status)
        return status

    async def _deliberation(
        self, work: Work, request: Request, beside: Beside, run: FlowRun, lease: Lease, status: Body
    ) -> None:
        """Run a deliberation to its end, unless that was reached already or is to be set without a run.

        Raises NotDecided, and what its flow raises.
        """
        if has_ended(status):
            needs_no_run = await self._shows_end(work, run, status)
        else:
            needs_no_run = await self._ended_without_run(work, request, run, lease, status)
        if not needs_no_run:
            await self._run_deliberation(work, request, beside, run, lease, status)

    async def _shows_end(self, work: Work, run: FlowRun, status: Body) -> bool:
        """Whether Prefect shows that a deliberation has ended; where no run is to show it any more, it is told here."""
        if run.state is not None and run.state.is_final():
            return True
        has_items = bool(status.get("counts"))  # one that ended before it began has none that its flow could show
        if has_items and not wants_end(run.state) and work.delivery.deliveries <= MAX_TRIES:
            return False
        await tell_prefect(work.run, ended_state(status))
        return True

    async def _ended_without_run(self, work: Work, request: Request, run: FlowRun, lease: Lease, status: Body) -> bool:
        """End what is to be run no more: a second run, a deliberation that is to stop, one that ran too often."""
        stops = wants_end(run.state)
        if stops and not await runs_under(self.record, request.id, run):
            await tell_prefect(work.run, Cancelled(message=f"A second run of {request.id}, which goes on."))
            return True
        if stops or status.get("cancel_requested"):
            await self._cancelled(request, run, lease)
            return True
        if not _tries(status) and request.has_expired(datetime.now(UTC)):
            reason = f"{EXPIRED}: it had not begun by {request.expires_at:%Y-%m-%d %H:%M:%S %Z}"
            await end_without_plan(self.record, request.id, lease, reason, Status.CANCELLED)
            await tell_prefect(work.run, Cancelled(message=reason))
            return True
        if _tries(status) >= MAX_TRIES:
            await self._end(request, lease, f"given up after {MAX_TRIES} runs that did not end it")
            await tell_prefect(work.run, Crashed(message=f"Given up after {MAX_TRIES} runs."))
            return True
        return False

    async def _run_deliberation(
        self, work: Work, request: Request, beside: Beside, run: FlowRun, lease: Lease, status: Body
    ) -> None:
        """Run its flow once more, which counts as a try. Raises NotDecided, and what the flow raises."""
        work.tries = _tries(status) + 1
        began = {"tries": work.tries, "run": str(run.id)}
        if not await self.record.statuses.merge(request.id, began):
            await self.record.statuses.merge(request.id, _new_status(request) | began)
        # Its plan is made while Prefect shows the run as Running, which takes longer.
        async with background(self._convened(request, run, beside)) as (session,):
            state = await self._execute(work, await beside.flow, run, request, lease, Convening(request.id, session))
        if await self.record.last(subjects.finished(request.id)) is None:
            failure = await state.aresult(raise_on_failure=False)
            known = isinstance(failure, ConclaveError)
            raise failure if known else NotDecided(state.message or state.name)

    async def _convened(self, request: Request, run: FlowRun, beside: Beside) -> Session:
        asked = DeliberationRequest.read(asked_in(run.parameters))
        return await convene(self.record, request.id, asked, beside.blocks, request.digest)

    async def _other(self, work: Work, request: Request, beside: Beside, run: FlowRun) -> None:
        """Run a flow that is no deliberation, unless it has ended or was given up too often."""
        over = run.state is not None and (run.state.is_final() or wants_end(run.state))
        if over and not await self._is_to_go_on(request, run):
            if not (run.state and run.state.is_final()):
                await tell_prefect(work.run, Cancelled(message="Cancelled before it began."))
            return
        await self._run_other(work, request, beside, run)

    async def _is_to_go_on(self, request: Request, run: FlowRun) -> bool:
        """Whether a flow run that Prefect shows as ended is run again: a batch that failed, and has not ended.

        A batch that is to stop, and that nobody is at, ends here.
        """
        if request.flow not in BATCH_FLOWS or run.state is None:
            return False
        if wants_end(run.state):
            await end_cancelled(self.record, str(run.id), request.parameters.get("batch_id"))
            return False
        return (run.state.is_failed() or run.state.is_crashed()) and await goes_on(self.record, str(run.id))

    async def _run_other(self, work: Work, request: Request, beside: Beside, run: FlowRun) -> None:
        """Run it, unless it was given up too often. Raises what is worth another try."""
        if await self._tries_of(work, request, run) > MAX_TRIES:
            reason = f"Given up after {MAX_TRIES} deliveries."
            await self._fail_batch(request, work.run, reason)
            await tell_prefect(work.run, Crashed(message=reason))
            return
        state = await self._execute(work, await beside.flow, run, request, work.lease)
        if state.is_cancelled():  # Prefect's engine calls that a crash
            await tell_prefect(work.run, state)
            return
        failure = await state.aresult(raise_on_failure=False) if not state.is_completed() else None
        again = TRIED_AGAIN if request.flow in BATCH_FLOWS else (AgentsUnavailable,)
        if isinstance(failure, again):  # what of a batch is decided stays so
            raise failure

    async def _fail_batch(self, request: Request, run: str | None, reason: str) -> None:
        """End a batch that is not run any more, since somebody may wait for it."""
        if request.flow in BATCH_FLOWS:
            await fail_batch(self.record, run, request.parameters.get("batch_id"), reason)

    async def _tries_of(self, work: Work, request: Request, run: FlowRun) -> int:
        """How often a flow that is no deliberation was tried; of a batch since it came on."""
        return await count_try(self.record, str(run.id)) if request.flow in BATCH_FLOWS else work.delivery.deliveries

    async def _execute(
        self,
        work: Work,
        flow: Flow[Any, Any],
        run: FlowRun,
        request: Request,
        lease: Lease | None,
        convening: Convening | None = None,
    ) -> State[Any]:
        """The flow under Prefect's own engine, in a task of its own, which a cancel can reach."""
        parameters = {**run.parameters}
        if request.flow == DELIBERATE:
            parameters["deliberation_id"] = request.id
        async with self._start_slots.starting(request.lane) as started:
            work.flow = asyncio.create_task(run_flow(flow, run, parameters, lease, convening, started))
            try:
                return await asyncio.shield(work.flow)
            except asyncio.CancelledError as error:
                if work.cancelled and work.flow.cancelled():
                    return Cancelled(message="Cancelled while it ran.")
                if not work.flow.cancelled():  # the worker itself ends
                    raise
                raise NotDecided(f"Prefect's engine gave the run up: {error}") from error

    async def _cancelled(self, request: Request, run: FlowRun, lease: Lease) -> None:
        """End a deliberation that is to stop and that nobody runs."""
        await ask_to_cancel(self.record, request.id)
        await self._end(request, lease, "cancelled before it began")
        await tell_prefect(str(run.id), Cancelled(message="Cancelled while nobody ran it."))

    async def _end(self, request: Request, lease: Lease, reason: str) -> None:
        if request.flow != DELIBERATE:
            return
        self._log.warning("%s is ended with what stands on the record: %s", request.id, reason)
        await end(self.record, request.id, lease, request.asked)


def _tries(status: Body) -> int:
    """Runs of a deliberation that have begun."""
    return int(status.get("tries") or 0)


def _new_status(request: Request) -> Body:
    """Of a deliberation whose message came without a key, or after it was let go."""
    return {"id": request.id, "status": Status.PENDING.value, "request_digest": request.digest, "door": request.door}
