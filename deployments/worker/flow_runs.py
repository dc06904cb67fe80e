"""The Prefect side of a request: its flow run, the flow under Prefect's own engine, and what Prefect is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import Pending

from blocks.leases import Lease, carried
from blocks.loading import DEFAULT, versioned
from blocks.names import stored, tag_of
from blocks.ray_agents import RayAgents
from blocks.record import Body, Record
from tasks.council.models import DeliberationRequest, InvalidRequest
from tasks.enqueue import DELIBERATE, Request

REFUSED = (409, 422)
"""How Prefect answers parameters that a deployment does not take."""

_started: ContextVar[Callable[[], None]] = ContextVar("started")


class FlowRuns:
    """Finds or makes the flow runs of requests, and the flows ready to run; what does not change is kept."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._deliberate: tuple[str, Flow[Any, Any]] | None = None
        self._others: dict[str, Flow[Any, Any]] = {}
        self._deployments: dict[str, UUID] = {}

    async def of(self, request: Request, flow: Flow[Any, Any]) -> FlowRun:
        """The flow run of a request: the one that Prefect handed over, or one that is made once for its id.

        It is made Pending, since pollers would take a Scheduled one as well. Raises InvalidRequest, and ObjectNotFound
        where somebody deleted it.
        """
        async with get_client() as client:
            if (run := request.run or await self._noted(request)) is not None:
                return await client.read_flow_run(UUID(run))
            if request.flow == DELIBERATE:
                DeliberationRequest.read(request.asked)
            parameters = {**request.parameters, "deliberation_id": request.id}
            deployment, tags = await self._deployment(flow), [tag_of(self._record.installation)]
            try:
                if deployment is None:
                    return await client.create_flow_run(flow, parameters=parameters, state=Pending(), tags=tags)
                return await client.create_flow_run_from_deployment(
                    deployment, parameters=parameters, state=Pending(), idempotency_key=request.id, tags=tags
                )
            except PrefectHTTPStatusError as error:
                if error.response.status_code in REFUSED:
                    raise InvalidRequest("parameters", f"Prefect refuses them: {error.response.text[:500]}") from error
                raise

    async def with_agents(self, flow: Flow[Any, Any]) -> Flow[Any, Any]:
        """The flow `deliberate` on the agents that their block names now."""
        version, agents = await versioned(RayAgents, DEFAULT)
        if self._deliberate is None or self._deliberate[0] != version:
            chosen = flow.with_options(task_runner=agents.task_runner(), on_running=[_running])
            self._deliberate = (version, chosen)
        return self._deliberate[1]

    def as_it_is(self, flow: Flow[Any, Any]) -> Flow[Any, Any]:
        """Another flow, which says when it has started."""
        if flow.name not in self._others:
            self._others[flow.name] = flow.with_options(on_running=[_running])
        return self._others[flow.name]

    async def _noted(self, request: Request) -> str | None:
        """The flow run that an earlier try made."""
        run = (await self._record.read_status(request.id) or {}).get("run")
        return run if isinstance(run, str) else None

    async def _deployment(self, flow: Flow[Any, Any]) -> UUID | None:
        """The deployment of the flow's own name, which its runs are shown under."""
        name = f"{flow.name}/{stored(flow.name)}"
        if name not in self._deployments:
            async with get_client() as client:
                try:
                    self._deployments[name] = (await client.read_deployment_by_name(name)).id
                except ObjectNotFound:
                    return None
        return self._deployments[name]


async def tell_prefect(run: str | None, state: State[Any], waiting_only: bool = False) -> None:
    """Set the final state of a flow run that no engine sets; one that has ended stays as it is, unless Crashed.

    `waiting_only`: one that runs stays as it is, too.
    """
    if run is None:
        return
    with suppress(ObjectNotFound, ValueError):
        async with get_client() as client:
            standing = (await client.read_flow_run(UUID(run))).state
            if waiting_only and standing is not None and standing.is_running():
                return
            if standing is None or not standing.is_final() or (standing.is_crashed() and state.is_cancelled()):
                await client.set_flow_run_state(UUID(run), state, force=True)


async def run_flow(
    flow: Flow[Any, Any], run: FlowRun, parameters: Body, lease: Lease | None, started: Callable[[], None]
) -> State[Any]:
    """The flow under Prefect's own engine and the lease; `started` is called once Prefect shows it as Running."""
    carried.set(lease)
    _started.set(started)
    state: State[Any] | None = await run_flow_async(flow, flow_run=run, parameters=parameters, return_type="state")
    assert state is not None
    return state


def _running(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of every flow here: it has started, and its place is free."""
    _started.get()()
