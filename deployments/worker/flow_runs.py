"""The Prefect side of a request: its flow run, the flow under Prefect's own engine, and what Prefect is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import FlowRunCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import Pending, to_state_create
from prefect.utilities.schema_tools.hydration import HydrationContext, HydrationError, hydrate
from prefect.utilities.schema_tools.validation import CircularSchemaRefError, ValidationError, validate

from blocks.documents import AtHand
from blocks.names import stored, tag_of
from blocks.record import leases
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.record.leases import Lease
from blocks.refreshed import Refreshed
from blocks.task_runner import with_agents
from tasks.council.exceptions import InvalidRequest, WrongUse
from tasks.council.models import DeliberationRequest
from tasks.deliberations import plan
from tasks.deliberations.ownership import may_run
from tasks.deliberations.plan import Convening
from tasks.deliberations.submit import DELIBERATE, Request, digest_of, id_of

REFUSED = (409, 422)
"""How Prefect answers parameters that it does not take."""
DEPLOYMENT_KEPT_S = 30.0
"""How long a deployment counts as read; an edit in Prefect's UI takes effect on new runs after that."""

_started: ContextVar[Callable[[], None]] = ContextVar("started")


class OtherRun(WrongUse):
    """A message names a flow run that is not its own; the text says why it is not."""


class FlowRuns:
    """Finds or makes the flow runs of requests, and the flows ready to run; what does not change is kept."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._deployments: dict[str, Refreshed[DeploymentResponse]] = {}
        self._flow_names: dict[UUID, str] = {}

    async def of(self, request: Request, flow: Flow[Any, Any]) -> FlowRun:
        """The flow run of a request: the one that Prefect handed over, or one that is made once for its id.

        It is made Pending, since pollers would take a Scheduled one as well. Raises InvalidRequest, OtherRun where the
        message names somebody else's, and ObjectNotFound where somebody deleted it.
        """
        async with get_client() as client:
            if request.run is not None:
                return await self._its_own(client, request, flow, await client.read_flow_run(UUID(request.run)))
            if (run := await self._noted(request)) is not None:
                return await client.read_flow_run(UUID(run))
            if request.flow == DELIBERATE:
                DeliberationRequest.read(request.asked)
            deployment = await self._deployment(flow)
            parameters = await self._parameters(client, request, flow, deployment)
            if deployment is not None and request.flow != DELIBERATE:
                await asyncio.to_thread(_check, parameters, deployment)
            return await self._create(client, request, flow, deployment, parameters)

    async def parameters(self, request: Request, flow: Flow[Any, Any]) -> Body:
        """What the flow of a request is called with: what it asks, and what its deployment has for what it leaves open.

        Raises InvalidRequest.
        """
        if request.run is not None:  # Prefect made its run, and resolved them
            return request.parameters
        async with get_client() as client:
            return await self._parameters(client, request, flow, await self._deployment(flow))

    async def _parameters(
        self, client: PrefectClient, request: Request, flow: Flow[Any, Any], deployment: DeploymentResponse | None
    ) -> Body:
        named = {"deliberation_id": request.id} if "deliberation_id" in flow.parameters.properties else {}
        given = {**request.parameters, **named}
        return given if deployment is None else {**await _defaults(client, deployment, given), **given}

    async def _its_own(self, client: PrefectClient, request: Request, flow: Flow[Any, Any], run: FlowRun) -> FlowRun:
        """The run, if it is of the request's flow, id and parameters, and this installation's. Raises OtherRun.

        Whoever may write to the queue must not get another's run by that.
        """
        if run.flow_id not in self._flow_names:
            self._flow_names[run.flow_id] = (await client.read_flow(run.flow_id)).name
        own, deliberates = str(run.id), request.flow == DELIBERATE
        problem = None
        if self._flow_names[run.flow_id] != flow.name:
            problem = "is a run of another flow"
        elif request.id != (id_of(run.parameters, own) if deliberates else own):
            problem = "is the run of another id"
        elif deliberates and digest_of(run.parameters) != request.digest:
            problem = "was asked something else"
        elif not await may_run(self._record, run, request.id):
            problem = "is not this installation's"
        if problem is not None:
            raise OtherRun(f"run: {own} {problem}")
        return run

    async def _create(
        self,
        client: PrefectClient,
        request: Request,
        flow: Flow[Any, Any],
        deployment: DeploymentResponse | None,
        parameters: Body,
    ) -> FlowRun:
        """Create the run under its deployment, but not through it.

        A deployment's creation evaluates what it is given: `{"__prefect_kind": ...}` at any depth reads Variables and
        renders Jinja. Here a parameter is data, whoever sent it.
        """
        shown: dict[str, Any] = {}
        if deployment is not None:
            shown = {
                "deployment_id": deployment.id,
                "work_pool_name": deployment.work_pool_name,
                "work_queue_name": deployment.work_queue_name,
            }
        wanted = FlowRunCreate(
            flow_id=deployment.flow_id if deployment is not None else await client.create_flow(flow),
            flow_version=flow.version,
            parameters=parameters,
            tags=sorted({tag_of(self._record.installation), *(deployment.tags if deployment is not None else ())}),
            state=to_state_create(Pending()),
            idempotency_key=request.id,
            **shown,
        )
        try:
            made = await client.request(
                "POST", "/flow_runs/", json=wanted.model_dump(mode="json", exclude_unset=True, exclude_none=True)
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code in REFUSED:
                raise InvalidRequest("parameters", f"Prefect refuses them: {error.response.text[:500]}") from error
            raise
        return FlowRun.model_validate(made.json())

    async def announcing(self, flow: Flow[Any, Any], at_hand: AtHand = None) -> Flow[Any, Any]:
        """The flow on the agents that their block names now, which says when it has started."""
        announcing = copy(await with_agents(flow, at_hand))  # with_options is slow, as told there
        announcing.on_running_hooks = [_running]
        return announcing

    async def _noted(self, request: Request) -> str | None:
        """The flow run that an earlier try made."""
        run = (await self._record.statuses.read(request.id) or {}).get("run")
        return run if isinstance(run, str) else None

    async def _deployment(self, flow: Flow[Any, Any]) -> DeploymentResponse | None:
        """The deployment of the flow's own name, which its runs are shown under."""
        name = f"{flow.name}/{stored(flow.name)}"
        kept = self._deployments.setdefault(name, Refreshed(partial(_deployment_named, name), DEPLOYMENT_KEPT_S))
        try:
            return await kept.get()
        except ObjectNotFound:
            return None


async def _deployment_named(name: str) -> DeploymentResponse:
    async with get_client() as client:
        return await client.read_deployment_by_name(name)


async def _defaults(client: PrefectClient, deployment: DeploymentResponse, given: Body) -> Body:
    """What the operator set on the deployment and a request leaves open; references of Prefect's in it are resolved.

    Raises InvalidRequest.
    """
    defaults = {name: value for name, value in deployment.parameters.items() if name not in given}
    if "__prefect_kind" not in str(defaults):
        return defaults
    variables = {one.name: one.value for one in await client.read_variables(limit=200)}
    context = HydrationContext(
        workspace_variables=variables, render_workspace_variables=True, render_jinja=True, raise_on_error=True
    )
    try:
        return hydrate(defaults, context)
    except HydrationError as error:
        raise InvalidRequest("parameters", f"the deployment's own cannot be resolved: {error}") from error


def _check(parameters: Body, deployment: DeploymentResponse) -> None:
    """The refusal that the deployment's own creation of runs gives. Raises InvalidRequest."""
    schema = deployment.parameter_openapi_schema
    if not deployment.enforce_parameter_schema or not schema:
        return
    try:
        validate(parameters, schema, raise_on_error=True)
    except (ValidationError, CircularSchemaRefError, RecursionError) as error:
        raise InvalidRequest(
            "parameters", f"the deployment refuses them: {str(error) or type(error).__name__}"
        ) from error


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
    flow: Flow[Any, Any],
    run: FlowRun,
    parameters: Body,
    lease: Lease | None,
    convening: Convening | None,
    started: Callable[[], None],
) -> State[Any]:
    """The flow under Prefect's own engine, the lease, and what is convened for it already.

    `started` is called once Prefect shows it as Running.
    """
    leases.carried.set(lease)
    plan.carried.set(convening)
    _started.set(started)
    # Prefect's engine gives a run of a deployment a thread that listens whether somebody suspends it, and holds this
    # loop up until the thread has connected, however long that takes, and again until it has ended
    # (`prefect/_flow_run_suspension.py`). Suspending stops no deliberation: one is cancelled, or goes on.
    alone = run.model_copy(update={"deployment_id": None})
    state: State[Any] | None = await run_flow_async(flow, flow_run=alone, parameters=parameters, return_type="state")
    assert state is not None
    return state


def _running(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of every flow here: it has started, and its place is free."""
    _started.get()()
