"""The worker as Prefect sees it: it polls a work pool, and hands what it finds to the one queue of all doors.

Nothing runs here. A flow run that Prefect hands over becomes a request in the queue, under the same id; the loop in
the second thread (`flows_thread.py`), or that of another worker, takes it from there. So a worker that dies loses
nothing, and whatever door a deliberation came through is run, repeated and cancelled in the same way.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from blocks.background import cancel_and_wait
from blocks.refreshed import Refreshed
from deployments.worker.doors import Door
from deployments.worker.pools import TYPE
from deployments.worker.stalls import LoopWatch

if TYPE_CHECKING:
    from prefect.client.schemas.responses import WorkerFlowRunResponse

    from deployments.worker.flows_thread import FlowsThread

QUERY_S = 0.2
"""How often Prefect is asked for flow runs, unless PREFECT_WORKER_QUERY_SECONDS says something else."""
KEPT_S = 30.0
"""How long the entrypoint of a deployment counts as read."""
HAND_OVER_S = 1.0
"""Pause between two tries to put a request into the queue while JetStream is away."""
SIGINT_IS_IGNORED = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""As a script's shell has it for what it starts in the background; told before Prefect sets a handler of its own."""


class WarmJobConfiguration(BaseJobConfiguration):
    """What a flow run needs to be handed over: nothing but its deployment, since no process is started for it."""

    def prepare_for_flow_run(self, flow_run: FlowRun, deployment: Any = None, *args: Any, **kwargs: Any) -> None:
        """Note what the run belongs to, for Prefect's events."""
        flow = kwargs.get("flow") or (args[0] if args else None)
        self._related_objects = {"deployment": deployment, "flow": flow, "flow-run": flow_run}

    @property
    def entrypoint(self) -> str | None:
        """Where the flow of the run is defined."""
        deployment = self._related_objects.get("deployment")
        return deployment.entrypoint if deployment else None


class ConclaveWorker(BaseWorker[WarmJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Runs flows in its own process, which is warm: without starting, importing or connecting anything for a run."""

    type = TYPE
    job_configuration = WarmJobConfiguration
    _display_name = "Conclave"
    _description = "Runs deliberations in a warm process, from one queue for every door. Loses nothing when it dies."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prefetch_seconds = 0.0  # nothing has to be started ahead of time
        self._flows: FlowsThread | None = None
        self._watch = LoopWatch(self._logger)
        self._turning: asyncio.Task[None] | None = None
        self._polls = Door("Prefect, asked for runs,")
        self._away = False
        self._entrypoints: dict[UUID, Refreshed[str | None]] = {}

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """A pool of this type has one variable, a name: nothing is started for a run that could be configured."""
        name = {"type": "string", "title": "Name", "description": "Not used: runs share the worker's process."}
        return {
            "job_configuration": {"name": "{{ name }}"},  # Prefect refuses an empty one
            "variables": {"type": "object", "properties": {"name": name}},
        }

    async def start(self, *args: Any, **kwargs: Any) -> None:
        """Start polling, five times a second where nobody says otherwise."""
        if SIGINT_IS_IGNORED and (work := asyncio.current_task()) is not None:
            _end_at_sigterm(work)
        asked = PREFECT_WORKER_QUERY_SECONDS.value() != PREFECT_WORKER_QUERY_SECONDS.default()
        with temporary_settings({} if asked else {PREFECT_WORKER_QUERY_SECONDS: QUERY_S}):
            await super().start(*args, **kwargs)

    async def setup(self) -> None:
        """Start the flows' loop beside Prefect's part. What is away is waited for there."""
        from deployments.settings import load_settings
        from deployments.worker.flows_thread import FlowsThread

        settings = load_settings()
        self._watch.start()
        self._turning = asyncio.create_task(self._watch.beating("Prefect's loop"))
        self._flows = FlowsThread(settings, self._work_pool_name, self._limit, self._logger, self._watch, self._polls)
        self._flows.start()
        await super().setup()
        self._limiter = None  # the limit bounds what runs, not what is handed over

    async def teardown(self, *exc_info: Any) -> None:
        """Drain: what runs may finish within the limit, the rest is handed back to the queue."""
        try:
            if self._flows is not None:
                await self._flows.stop()
        finally:
            await super().teardown(*exc_info)
            await cancel_and_wait([self._turning] if self._turning else [])
            self._watch.close()

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Hand over what is due. Nothing is taken while it could not be, and Prefect's absence ends nothing."""
        if self._flows is not None and self._flows.failure is not None:
            raise RuntimeError(
                "the flows' loop has ended; a supervisor starts the worker again"
            ) from self._flows.failure
        if self._flows is None or not self._flows.ready:
            self._polls.idle()
            return []
        self._polls.asked()
        return await self._outlasting(super().get_and_submit_flow_runs(), [])

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Note that Prefect has answered: the base asks nobody before its first heartbeat."""
        found = await super()._get_scheduled_flow_runs()
        self._polls.answered()
        return found

    async def sync_with_backend(self) -> None:
        """Send the heartbeat. Prefect's own loops would end the worker, and all that it runs, after some failures."""
        await self._outlasting(super().sync_with_backend(), None)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: WarmJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> BaseWorkerResult:
        """Hand a run over, where somebody else than `_submit_run` asks for that."""
        await self._hand_over(flow_run, configuration.entrypoint)
        if task_status is not None:
            task_status.started(0)  # no process, whose id Prefect would note with another call
        return WarmResult(identifier=str(flow_run.id), status_code=0)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Hand a run over: shown as Pending, so that no other worker takes it, then put into the queue.

        In place of Prefect's own, which asks its API for five things more that only a new process would need, one after
        the other; each takes 10 to 40 ms. A run that can never be run is marked Crashed with the reason, as there.
        """
        try:
            await self._submit(flow_run)
        except Exception:  # noqa: BLE001  # it is found again: as due by a poll, as Pending by `pending.py`
            self.get_flow_run_logger(flow_run).exception("flow run %s cannot be handed over now", flow_run.id)
        finally:
            self._submitting_flow_run_ids.discard(flow_run.id)
            if self._cancelling_observer is not None:
                self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)

    async def _submit(self, flow_run: FlowRun) -> None:
        try:
            entrypoint = await self._entrypoint(flow_run)
        except ObjectNotFound:
            gone = f"Deployment {flow_run.deployment_id} no longer exists, cancelled run."
            await self._mark_flow_run_as_cancelled(flow_run, {"message": gone})
            return
        if not await self._propose_pending_state(flow_run):
            return
        try:
            await self._hand_over(flow_run, entrypoint)
        except Exception as error:  # noqa: BLE001  # the record's absence is outlasted: this one can never be run
            reason = f"Failed to submit flow run to infrastructure: {type(error).__name__}: {error}"
            await self._propose_crashed_state(flow_run, reason)

    async def _entrypoint(self, flow_run: FlowRun) -> str | None:
        """Where the flow of a run is defined, as its deployment says. Raises ObjectNotFound."""
        deployment = flow_run.deployment_id
        if deployment is None:
            return None
        kept = self._entrypoints.setdefault(deployment, Refreshed(partial(self._read_entrypoint, deployment), KEPT_S))
        return await kept.get()

    async def _read_entrypoint(self, deployment: UUID) -> str | None:
        return (await self.client.read_deployment(deployment)).entrypoint

    async def _hand_over(self, flow_run: FlowRun, entrypoint: str | None) -> None:
        """Put a request for the run into the queue, where it is safe; waits for JetStream as long as that is away.

        Raises UnknownFlow.
        """
        from blocks.exceptions import RecordError
        from deployments.worker.requests import request_for

        assert self._flows is not None
        request = request_for(flow_run, entrypoint)
        while True:
            try:
                await self._flows.enqueue(request)
                return
            except RecordError as error:
                self._logger.warning("flow run %s waits for JetStream: %s", flow_run.id, error)
                await asyncio.sleep(HAND_OVER_S)

    async def _outlasting(self, work: Any, otherwise: Any) -> Any:
        try:
            found = await work
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error:
                raise  # it does answer: this worker is not what it expects
            self._polls.failed(_words(error))
            if not self._away:
                self._logger.warning("Prefect's server does not answer (%s); asked again", _words(error))
            self._away = True
            return otherwise
        if self._away:
            self._logger.info("Prefect's server answers again")
        self._away = False
        return found


def _words(error: httpx.HTTPError) -> str:
    """What went wrong, without the URL, which may carry a password."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__


class WarmResult(BaseWorkerResult):
    """A flow run was handed over."""


def _end_at_sigterm(work: asyncio.Task[Any]) -> None:
    """End as at a SIGINT. Prefect turns SIGTERM into one, which nobody hears where that signal is ignored."""
    loop = asyncio.get_running_loop()

    def end_it() -> None:
        loop.remove_signal_handler(signal.SIGTERM)  # a second one ends the process without a drain
        work.cancel()

    loop.add_signal_handler(signal.SIGTERM, end_it)
