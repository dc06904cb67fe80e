"""The calls of `orchestrator.v1`: thin adapters over what the gateway does over HTTP, too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from blocks.background import background
from blocks.record.envelope import Body
from deployments.gateway.acceptance import accept, id_by, shown_status
from deployments.gateway.bodies import beside
from deployments.gateway.projection import Filter, Tally
from deployments.gateway.rpc.calls import Call, asking
from deployments.gateway.rpc.statuses import ID, Refused, without_decision
from deployments.gateway.service import Service
from deployments.orchestrator import figures, messages
from deployments.orchestrator.generated import orchestrator_pb2 as pb
from deployments.orchestrator.generated.orchestrator_pb2_grpc import OrchestratorServiceServicer
from deployments.orchestrator.updates import Updates, complete
from tasks.access.tokens import Token
from tasks.council.council import CouncilSpec
from tasks.council.models import DeliberationRequest, Status
from tasks.deliberations.feed import Cursor
from tasks.deliberations.result import result_of, result_with
from tasks.deliberations.submission import Terms, request_of

GRACE_S = 5.0
"""How long beyond `timeout_seconds` is waited, since a deliberation at its deadline decides by what it has."""
WAIT_S = 600.0
"""How long is waited where neither the caller nor the request says."""
MAX_WAIT_S = 86_400.0 + GRACE_S
STILL_S = 15.0
"""How often whoever waits or listens is looked at: whether the token still counts."""
SEND_S = 60.0
"""How long a client may not read before nothing is followed for it any more. Its call ends once it reads, or leaves."""
LIST_S = 0.5
"""How long figures wait for what was stored just before."""
NEWEST = 200
"""Deliberations whose times are looked at."""

COUNCILS = "councils are files here: `conclave councils apply FILE` makes them, with their members"
PLANS = "it is another service's work: this one decides, and neither plans nor keeps a story's context"
EVENTS = "events come otherwise: on NATS, by a file of listeners (CONCLAVE_LISTENERS), or as webhooks over HTTP"
Fields = dict[str, Any]


def _not_here(reason: str) -> Callable[[Any, Any, Any], Any]:
    """A call that is not answered, and why."""

    async def refuse(_servicer: Any, _request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)

    return refuse


class Orchestrator(OrchestratorServiceServicer):  # type: ignore[misc]  # generated, without types
    """The service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    RegisterAgent = CreateCouncil = UnregisterAgent = _not_here(COUNCILS)
    ProcessPlanningEvent = _not_here(EVENTS)
    DeriveSubtasks = GetTaskContext = _not_here(PLANS)

    @asking("submit")
    async def Deliberate(self, call: Call, request: pb.DeliberateRequest) -> pb.DeliberateResponse:
        """Ask a council, and wait for its result."""
        one = await _asked(call, request, messages.deliberate_fields)
        result = await _decision(call, one, request.constraints.timeout_seconds)
        return messages.deliberate_response(result)

    @asking("submit")
    async def Orchestrate(self, call: Call, request: pb.OrchestrateRequest) -> pb.OrchestrateResponse:
        """Ask a council for a synthesis, and wait for it."""
        one = await _asked(call, request, messages.orchestrate_fields)
        result = await _decision(call, one, request.constraints.timeout_seconds)
        return messages.orchestrate_response(result)

    @asking("submit")
    async def StreamDeliberation(self, call: Call, request: pb.DeliberateRequest) -> None:
        """Ask a council, and tell how it comes along."""
        one = await _asked(call, request, messages.deliberate_fields)
        await _follow(call, one)
        result = await _result(call, one)
        await _write(call, complete(messages.decided(result)))

    @asking("submit", "read")
    async def GetDeliberationResult(
        self, call: Call, request: pb.GetDeliberationResultRequest
    ) -> pb.GetDeliberationResultResponse:
        """A deliberation so far."""
        status = await shown_status(self.service, call.token, request.task_id)
        return messages.result_response(await result_with(self.service.record, request.task_id, status))

    @asking("submit", "read")
    async def ListCouncils(self, call: Call, request: pb.ListCouncilsRequest) -> pb.ListCouncilsResponse:
        """The councils that the token may ask."""
        wanted = request.role_filter.strip().casefold()
        found = [one for one in await _councils(call) if wanted in ("", one.name.casefold())]
        busy = figures.busy(await _tallies(call))
        ready = await self.service.workers.get() > 0
        infos = [messages.council_info(one, one.name in busy, ready, request.include_agents) for one in found]
        return pb.ListCouncilsResponse(councils=infos)

    @asking("submit", "read")
    async def GetStatus(self, call: Call, request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        """How the gateway is."""
        workers = await self.service.workers.get()
        told = pb.GetStatusResponse(status=figures.health(workers), uptime_seconds=self.service.counts.uptime_s)
        if request.include_stats:
            told.stats.CopyFrom(figures.stats(await _tallies(call), await _durations(call, None)))
        return told

    @asking("read")
    async def GetMetrics(self, call: Call, request: pb.GetMetricsRequest) -> pb.GetMetricsResponse:
        """Figures of one kind, or all."""
        wanted = figures.kinds_of(request.metric_type)
        told = pb.GetMetricsResponse()
        if "performance" in wanted:
            since = _since(request.time_range_ms)
            told.performance.CopyFrom(figures.performance(await _durations(call, since)))
        if "agents" in wanted:
            told.agents.CopyFrom(figures.agents(await _councils(call)))
        if "councils" in wanted:
            told.councils.CopyFrom(figures.councils(await _councils(call), await _tallies(call)))
        return told


# --- asking ---------------------------------------------------------------------------------------


async def _asked(call: Call, request: Any, fields: Callable[[Any, str], Fields]) -> str:
    """The id of what was asked for and accepted, which is told at once. Raises Problem, InvalidRequest, RecordError."""
    mirror = await call.service.councils.mirror()
    council = messages.council_of(request.role, mirror.councils)
    size: int = request.ByteSize()
    asked = await beside(size, lambda: DeliberationRequest.read(fields(request, council)))
    one, by = id_by(call.service, call.token, None, call.keys)
    now, owner = datetime.now(UTC), call.token.owner
    queued = await beside(size, lambda: request_of(Terms(), asked, one, "gateway", now, owner))
    submitted = await accept(call.service, call.token, queued, asked, by)
    replayed = () if submitted.new else (("idempotency-replayed", "true"),)
    await call.context.send_initial_metadata(((ID, one), *replayed))
    return one


# --- waiting --------------------------------------------------------------------------------------


async def _decision(call: Call, deliberation_id: str, timeout_seconds: int) -> Body:
    """The result with a decision, waited for. Raises Refused."""
    seconds = _patience_s(call.context.time_remaining(), timeout_seconds)
    try:
        async with asyncio.timeout(seconds):
            await _while_it_counts(call, deliberation_id, call.service.feed.end_of(deliberation_id))
    except TimeoutError:
        told = f"{deliberation_id} has not ended within {seconds:.0f} s; it goes on, and GetDeliberationResult has it"
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, told, ((ID, deliberation_id),)) from None
    return await _result(call, deliberation_id)


async def _result(call: Call, deliberation_id: str) -> Body:
    """The result of what has ended. Raises Refused where it came to nothing."""
    result = await result_of(call.service.record, deliberation_id)
    assert result is not None, "it has ended, so it is known"
    if result["status"] != Status.COMPLETED:
        raise without_decision(deliberation_id, result)
    return result


def _patience_s(remaining_s: float | None, timeout_seconds: int) -> float:
    """How long the end is waited for."""
    if remaining_s is not None:
        return min(remaining_s, MAX_WAIT_S)
    return timeout_seconds + GRACE_S if timeout_seconds else WAIT_S


async def _follow(call: Call, deliberation_id: str) -> None:
    """Tell a client what happens in a deliberation, up to its end. Raises Refused."""
    counts, updates = call.service.counts, Updates()

    async def tell() -> None:
        async with aclosing(call.service.feed.of(deliberation_id, Cursor())) as events:
            async for told in events:
                update = updates.of(told.kind, json.loads(told.data))
                if update is not None:
                    await _write(call, update)

    counts.listeners += 1
    try:
        async with asyncio.timeout(MAX_WAIT_S):
            await _while_it_counts(call, deliberation_id, tell())
    except TimeoutError:
        told = f"the stream of {deliberation_id} ends: it has lasted a day"
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, told, ((ID, deliberation_id),)) from None
    finally:
        counts.listeners -= 1


async def _while_it_counts(call: Call, deliberation_id: str, work: Coroutine[Any, Any, Any]) -> None:
    """Do work that may last, unless the token counts no more. Raises Refused."""
    watch = call.service.authentication.until_revoked(call.authorizations, STILL_S)
    async with background(work, watch) as (working, watching):
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            watching.result()
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "the token counts no more", ((ID, deliberation_id),))
        working.result()


async def _write(call: Call, update: pb.DeliberationUpdate) -> None:
    """Send an update. Raises Refused where the client does not read."""
    try:
        async with asyncio.timeout(SEND_S):
            await call.context.write(update)
    except TimeoutError:
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was read for {SEND_S:g} s") from None


# --- figures --------------------------------------------------------------------------------------


async def _councils(call: Call) -> list[CouncilSpec]:
    """Those that the token may ask, by name."""
    found = (await call.service.councils.newest()).councils
    return [found[name] for name in sorted(found) if call.token.may_ask(name)]


async def _tallies(call: Call) -> list[Tally]:
    """How many deliberations there are, of those that are shown to the token."""
    with suppress(TimeoutError):
        await call.service.projection.catch_up(LIST_S)
    return await call.service.projection.tallies(_owner(call.token))


async def _durations(call: Call, since: datetime | None) -> list[float]:
    """How long the newest took that were completed, in milliseconds."""
    wanted = Filter(statuses=(Status.COMPLETED.value,), owner=_owner(call.token))
    page = await call.service.projection.page(wanted, NEWEST)
    return figures.durations_ms(page.deliberations, since)


def _owner(token: Token) -> str | None:
    """Whose deliberations are counted; None: everybody's."""
    return None if token.sees_all else token.owner


def _since(range_ms: int) -> datetime | None:
    """When a time of so many milliseconds began, None where it never did."""
    if range_ms <= 0 or range_ms > time.time() * 1000:
        return None
    return datetime.now(UTC) - timedelta(milliseconds=range_ms)
