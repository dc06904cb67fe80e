"""One request from the queue to its end: lease, flow run, flow, acknowledgement.

A request leaves the queue when its deliberation has a final status on the record and its flow run one in Prefect. Until
then it is delivered again, to this worker or another. Whoever runs it holds its lease; the stale delivery of one that
was thought dead is never answered, since that would take the request from its successor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelled, Crashed, Pending
from pydantic import ValidationError

from blocks.exceptions import AgentsUnavailable, BlockMissing, ConclaveError, RecordError, Superseded
from blocks.leases import Lease, Leases, carried
from blocks.loading import DEFAULT, versioned
from blocks.ray_agents import RayAgents
from blocks.record import LEASE_S, Body, Record
from blocks.work_queue import Delivery
from deployments.worker.cluster import Cluster
from deployments.worker.places import Places
from deployments.worker.requests import UnknownFlow, load
from tasks.council.models import DeliberationRequest, InvalidRequest, Status
from tasks.ending import end, refuse
from tasks.enqueue import DELIBERATE, Request, id_of, queued_request
from tasks.reading import status_of

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

MAX_TRIES = 5
"""A request that is still not finished after so many runs is ended with what stands on the record."""
AGAIN_S = 5.0
"""How long a request that could not be finished waits for the next try, for each try before."""


@dataclass
class Work:
    """A request that is being worked on."""

    delivery: Delivery
    request: Request | None = None
    lease: Lease | None = None
    run: str | None = None
    flow: asyncio.Task[State[Any]] | None = None


class Unfinished(ConclaveError):
    """A run ended without a final status on the record; another try may bring it."""


class Runs:
    """Works on requests; `in_work` has those of this moment, by a number of their own."""

    def __init__(self, record: Record, leases: Leases, cluster: Cluster, places: Places, log: Log) -> None:
        self.record, self.leases = record, leases
        self._cluster, self._places, self._log = cluster, places, log
        self.in_work: dict[int, Work] = {}
        self.peak = self.ended = 0
        self._numbers = 0
        self._deliberate: tuple[str, Flow[Any, Any]] | None = None
        self._others: dict[str, Flow[Any, Any]] = {}
        self._deployments: dict[str, UUID | None] = {}

    async def run(self, delivery: Delivery) -> None:
        """Work on a request until it is done, or is to be delivered again. Never raises."""
        self._numbers += 1
        number, work = self._numbers, Work(delivery)
        self.in_work[number] = work
        self.peak = max(self.peak, len(self.in_work))
        try:
            async with self.leases.working_on(delivery.reply):
                await self._work_on(work)
        except Superseded as error:
            self._log.warning("%s is left to another worker: %s", delivery.id, error)
        except Exception:  # noqa: BLE001  # whatever one request brings up must not end the others
            self._log.exception("%s could not be run; it is tried again", delivery.id)
            await delivery.hand_back(AGAIN_S * delivery.deliveries)
        finally:
            del self.in_work[number]
            self.ended += 1

    async def hand_back(self) -> None:
        """Give everything that is in work back to the queue, for another worker to go on with at once."""
        for work in list(self.in_work.values()):
            if work.lease is not None:
                await self.leases.release(work.lease)
            await work.delivery.hand_back()

    # --- one request ------------------------------------------------------------------------------

    async def _work_on(self, work: Work) -> None:
        delivery = work.delivery
        try:
            request = work.request = Request.model_validate(delivery.body)
            flow = load(request.flow)
        except (ValidationError, UnknownFlow) as error:
            await self._refused(delivery, error)
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
            await delivery.done()
        else:
            await delivery.hand_back(again_s)

    async def _under_lease(self, work: Work, request: Request, flow: Flow[Any, Any], lease: Lease) -> float | None:
        """Run it; None once it is finished, else the seconds until the next try."""
        tries = work.delivery.deliveries
        try:
            run = await self._flow_run(request, flow)
            work.run = str(run.id)
            if request.flow != DELIBERATE:
                await self._other(work, request, flow, run)
                return None
            tries = await self._deliberation(work, request, flow, run, lease)
        except ObjectNotFound:
            await self._end(request, lease, "its flow run was deleted")
        except InvalidRequest as error:
            await refuse(self.record, request.id, str(error))
            await self._tell_prefect(work.run, Crashed(message=str(error)))
        except (Unfinished, AgentsUnavailable, RecordError, BlockMissing, httpx.HTTPError, Abort) as error:
            if isinstance(error, Superseded):
                raise
            if isinstance(error, AgentsUnavailable):
                await self._cluster.suspect()
            self._log.warning("%s is tried again (%s): %s", request.id, type(error).__name__, error)
            return AGAIN_S * min(tries, MAX_TRIES)
        return None

    async def _deliberation(
        self, work: Work, request: Request, flow: Flow[Any, Any], run: FlowRun, lease: Lease
    ) -> int:
        """Run a deliberation to its end. Raises Unfinished, and what its flow raises."""
        status = await status_of(self.record, request.id) or {}
        final = "status" in status and Status(status["status"]).final
        in_prefect = run.state
        if final and in_prefect is not None and in_prefect.is_final():
            return 0
        if not final and (status.get("cancel_requested") or _wants_end(in_prefect)):
            await self._cancelled(request, run, lease)
            return 0
        tries = int(status.get("tries") or 0) + 1
        if not final and tries > MAX_TRIES:
            await self._end(request, lease, f"given up after {MAX_TRIES} runs that did not end it")
            await self._tell_prefect(work.run, Crashed(message=f"Given up after {MAX_TRIES} runs."))
            return tries
        await self.record.merge_status(request.id, {"tries": tries, "run": str(run.id)})
        state = await self._execute(work, await self._with_agents(flow), run, request, lease)
        if await self.record.last(f"deliberations.{request.id}.finished") is None:
            failure = await state.aresult(raise_on_failure=False)
            raise (
                failure
                if isinstance(failure, ConclaveError | InvalidRequest)
                else Unfinished(state.message or state.name)
            )
        return tries

    async def _other(self, work: Work, request: Request, flow: Flow[Any, Any], run: FlowRun) -> None:
        """Run a flow that is no deliberation, unless it has ended or was given up too often."""
        if run.state is not None and (run.state.is_final() or _wants_end(run.state)):
            if not run.state.is_final():
                await self._tell_prefect(work.run, Cancelled(message="Cancelled before it began."))
            return
        if work.delivery.deliveries > MAX_TRIES:
            await self._tell_prefect(work.run, Crashed(message=f"Given up after {MAX_TRIES} deliveries."))
            return
        state = await self._execute(work, self._hooked(flow), run, request, work.lease)
        if state.is_cancelled():  # Prefect's engine calls that a crash
            await self._tell_prefect(work.run, state)
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
            work.flow = asyncio.create_task(_run(flow, run, parameters, lease, started))
            try:
                return await asyncio.shield(work.flow)
            except asyncio.CancelledError:
                if not work.flow.cancelled():
                    raise
                return Cancelled(message="Cancelled while it ran.")

    # --- cancel -----------------------------------------------------------------------------------

    async def cancel(self, run: FlowRun) -> None:
        """Stop the flow run that Prefect shows as Cancelling. Raises RecordError."""
        work = next((work for work in self.in_work.values() if work.run == str(run.id)), None)
        if work is not None and work.request is not None and not await self._flag(work.request.id):
            if work.flow is not None:  # no deliberation: there is nobody who hears the flag
                work.flow.cancel()
        elif work is None:
            await self._flag(id_of(run.parameters, str(run.id)))
            await self._cancel_queued(run)

    async def _flag(self, deliberation_id: str) -> bool:
        """Ask a deliberation to stop; False where there is none of that id that goes on."""
        status = await self.record.read_status(deliberation_id)
        if status is None or Status(status["status"]).final:
            return False
        if not status.get("cancel_requested"):
            await self.record.merge_status(deliberation_id, {"cancel_requested": True})
        return True

    async def _cancel_queued(self, run: FlowRun) -> None:
        """End what waits in the queue at once, and not when its turn comes."""
        request = await queued_request(self.record, id_of(run.parameters, str(run.id)))
        if request is None:
            return
        lease = await self.leases.take(request.id)
        if lease is None:  # somebody runs it, and hears the flag
            return
        try:
            if request.flow == DELIBERATE:
                await self._cancelled(request, run, lease)
            else:
                await self._tell_prefect(str(run.id), Cancelled(message="Cancelled before it began."))
        finally:
            await self.leases.release(lease)

    # --- ends -------------------------------------------------------------------------------------

    async def _refused(self, delivery: Delivery, error: ValueError) -> None:
        """A request that no worker can run leaves the queue, and whoever waits for it is told."""
        said = _words(error)
        self._log.error("request %s is refused: %s", delivery.id, said)
        await refuse(self.record, delivery.id, said)
        run = (delivery.body or {}).get("run")
        await self._tell_prefect(run if isinstance(run, str) else None, Crashed(message=f"Refused: {said}"))
        await delivery.refuse()

    async def _cancelled(self, request: Request, run: FlowRun, lease: Lease) -> None:
        """End a deliberation that is to stop and that nobody runs."""
        await self.record.merge_status(request.id, {"cancel_requested": True})
        await self._end(request, lease, "cancelled before it began")
        await self._tell_prefect(str(run.id), Cancelled(message="Cancelled while nobody ran it."))

    async def _end(self, request: Request, lease: Lease, reason: str) -> None:
        if request.flow != DELIBERATE:
            return
        self._log.warning("%s is ended with what stands on the record: %s", request.id, reason)
        try:
            asked = DeliberationRequest.read(_fields(request))
        except InvalidRequest as error:
            await refuse(self.record, request.id, str(error))
            return
        await end(self.record, request.id, lease, asked)

    async def _tell_prefect(self, run: str | None, state: State[Any]) -> None:
        """Set the final state of a flow run that no engine sets; one that has ended stays as it is, unless Crashed."""
        if run is None:
            return
        with suppress(ObjectNotFound, ValueError):
            async with get_client() as client:
                standing = (await client.read_flow_run(UUID(run))).state
                if standing is None or not standing.is_final() or (standing.is_crashed() and state.is_cancelled()):
                    await client.set_flow_run_state(UUID(run), state, force=True)

    # --- what is needed ---------------------------------------------------------------------------

    async def _flow_run(self, request: Request, flow: Flow[Any, Any]) -> FlowRun:
        """The flow run of a request: the one that Prefect handed over, or one that is made once for its id.

        It is made Pending, since pollers would take a Scheduled one as well. Raises InvalidRequest.
        """
        async with get_client() as client:
            if (run := request.run or await self._noted(request)) is not None:
                return await client.read_flow_run(UUID(run))
            if request.flow == DELIBERATE:
                DeliberationRequest.read(_fields(request))
            parameters = {**request.parameters, "deliberation_id": request.id}
            deployment = await self._deployment(flow)
            try:
                if deployment is None:
                    return await client.create_flow_run(flow, parameters=parameters, state=Pending())
                return await client.create_flow_run_from_deployment(
                    deployment, parameters=parameters, state=Pending(), idempotency_key=request.id
                )
            except PrefectHTTPStatusError as error:
                if error.response.status_code in (409, 422):
                    raise InvalidRequest("parameters", f"Prefect refuses them: {error.response.text[:500]}") from error
                raise

    async def _noted(self, request: Request) -> str | None:
        """The flow run that an earlier try made."""
        run = (await self.record.read_status(request.id) or {}).get("run")
        return run if isinstance(run, str) else None

    async def _deployment(self, flow: Flow[Any, Any]) -> UUID | None:
        """The deployment of the flow's own name, which its runs are shown under."""
        name = f"{flow.name}/{flow.name}"
        if self._deployments.get(name) is None:
            async with get_client() as client:
                try:
                    self._deployments[name] = (await client.read_deployment_by_name(name)).id
                except ObjectNotFound:
                    self._deployments[name] = None
        return self._deployments[name]

    def _hooked(self, flow: Flow[Any, Any]) -> Flow[Any, Any]:
        if flow.name not in self._others:
            self._others[flow.name] = flow.with_options(on_running=[_running])
        return self._others[flow.name]

    async def _with_agents(self, flow: Flow[Any, Any]) -> Flow[Any, Any]:
        """The flow `deliberate` on the agents that their block names now."""
        version, agents = await versioned(RayAgents, DEFAULT)
        if self._deliberate is None or self._deliberate[0] != version:
            chosen = flow.with_options(task_runner=agents.task_runner(), on_running=[_running])
            self._deliberate = (version, chosen)
        return self._deliberate[1]


_started: ContextVar[Callable[[], None]] = ContextVar("started")


def _running(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of every flow here: it has started, and its place is free."""
    _started.get()()


async def _run(
    flow: Flow[Any, Any], run: FlowRun, parameters: Body, lease: Lease | None, started: Callable[[], None]
) -> State[Any]:
    carried.set(lease)
    _started.set(started)
    state: State[Any] | None = await run_flow_async(flow, flow_run=run, parameters=parameters, return_type="state")
    assert state is not None
    return state


def _fields(request: Request) -> Body:
    """What a council is asked."""
    return {name: value for name, value in request.parameters.items() if name != "deliberation_id"}


def _wants_end(state: State[Any] | None) -> bool:
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _words(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False)[0]
    if not first["loc"]:
        return "body: a request is a JSON object"
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
