"""Two workers on a real NATS without Prefect, Ray and models: what they take, run and end is the product's own code.

In place of Prefect stands a dictionary of flow runs, in place of the agents' side a coroutine for each member, which
looks on the record before it "calls" its model, and in place of the flow's engine the same steps one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from blocks import documents as loading
from blocks.background import cancel_and_wait
from blocks.exceptions import RecordError
from blocks.jetstream import JetStream
from blocks.record.events import Record
from blocks.record.leases import Leases, carried
from blocks.record.queue import WorkQueue
from deployments.worker import failures
from deployments.worker import runs as worker_runs
from deployments.worker.runs import Runs
from deployments.worker.start_slots import StartSlots
from tasks.collect.collect import finish
from tasks.collect.collector import Collector
from tasks.collect.inbox import INBOX
from tasks.council.council import CouncilSpec, Member
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, MemberStatus
from tasks.deliberations import plan as plans
from tasks.deliberations.plan import Server, begin, convened
from tasks.deliberations.submit import Request
from tasks.stages.member_stage import final_answer
from tests.fakes.short_leases import shorten_leases

LEASE_S = 2.0
ACK_WAIT_S = 2.0
MEMBERS = 3
COUNCIL = CouncilSpec(
    name="dev",
    members=tuple(Member(agent_id=f"m{number}", role="DEV") for number in range(1, MEMBERS + 1)),
    strategy="propose",
    deadline_s=60,
)
COUNTER = itertools.count()


@dataclass
class Prefect:
    """Flow runs in a dictionary: parameters and states, as far as a worker looks at them."""

    states: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    of_request: dict[str, str] = field(default_factory=dict)

    def make(self, parameters: dict[str, Any]) -> str:
        """A flow run that is Pending."""
        from prefect.states import Pending

        run = str(uuid.uuid4())
        self.states[run], self.parameters[run] = Pending(), parameters
        return run

    async def of(self, request: Request, _flow: Any) -> Any:
        """The flow run of a request, made once for its id."""
        run = request.run or self.of_request.get(request.id)
        if run is None:
            DeliberationRequest.read(request.asked)
            run = self.of_request[request.id] = self.make(request.asked)
        if run not in self.states:
            from prefect.exceptions import ObjectNotFound

            raise ObjectNotFound(http_exc=Exception(run))
        return SimpleNamespace(id=run, state=self.states[run], parameters=self.parameters[run])

    async def announcing(self, flow: Any, _at_hand: Any = None) -> Any:
        """As it is."""
        return flow

    async def tell(self, run: str | None, state: Any, waiting_only: bool = False) -> None:
        """Set a final state, once."""
        standing = self.states.get(run or "")
        if standing is not None and not standing.is_final():
            self.states[str(run)] = state


class Machine:
    """Two workers, the calls that their members made, and what was accepted."""

    def __init__(self, url: str) -> None:
        self.url, self.prefect = url, Prefect()
        self.calls: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.repeated: list[str] = []
        self.accepted: dict[str, str] = {}
        self.workers: list[_Worker] = []

    async def open(self, patch: Any) -> None:
        """Connect, and start both workers."""

        async def block() -> tuple[JetStream, Any]:
            return JetStream(servers=[self.url], patience_s=20), loading._nothing

        async def nobody(_record: Record) -> None:
            """Nobody is asked."""

        async def spec(_name: str, _at_hand: Any = None) -> CouncilSpec:
            return COUNCIL

        async def blocks(*_asked: Any) -> dict[Any, Any]:
            return {}

        async def servers(_record: Any, plan: Any, must_exist: bool = True, at_hand: Any = None) -> dict[str, Server]:
            return {name: Server(None, "simulator") for name in plan.servers}

        shorten_leases(patch, LEASE_S)
        for module in (worker_runs, failures):
            patch.setattr(module, "LEASE_S", LEASE_S / 4)
            patch.setattr(module, "tell_prefect", self.prefect.tell)
        patch.setattr(failures, "AGAIN_S", 0.05)
        patch.setattr(worker_runs, "run_flow", self._flow)
        patch.setattr(worker_runs.Runs, "_blocks", blocks)
        patch.setattr(worker_runs, "FlowRuns", lambda _record: self.prefect)
        patch.setattr(loading, "_read_jetstream", block)
        patch.setattr(loading, "check", nobody)  # there is no Prefect whose mark could be compared
        patch.setattr(plans, "council_spec", spec)
        patch.setattr(plans, "servers_of", servers)
        self.record: Record = await loading.open_record()
        for _ in range(2):
            await self.start_worker()

    async def start_worker(self) -> None:
        """One more worker, with a connection of its own."""
        worker = _Worker(JetStream(servers=[self.url], user=f"w{next(COUNTER)}", password="x", patience_s=5))
        await worker.start()
        self.workers.append(worker)

    async def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            await worker.stop()

    async def settle(self, patience_s: float = 60.0) -> None:
        """Wait until the queue is empty and nothing is worked on. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            while await self.record.messages("CONCLAVE_REQUESTS") or any(one.runs.in_work for one in self.workers):
                for one in self.workers:
                    one.check()
                await asyncio.sleep(0.05)

    # --- the flow ---------------------------------------------------------------------------------

    async def _flow(self, _flow: Any, run: Any, parameters: Any, lease: Any, convening: Any, started: Any) -> Any:
        from prefect.states import Completed, Running

        carried.set(lease)
        plans.carried.set(convening)
        started()
        self.prefect.states[str(run.id)] = Running()
        try:
            await self._deliberation(str(run.id), dict(parameters))
        except (InvalidRequest, Exception) as error:  # noqa: BLE001  # as Prefect's engine keeps it
            return _Failed(error)
        self.prefect.states[str(run.id)] = Completed()
        return Completed()

    async def _deliberation(self, run: str, parameters: dict[str, Any]) -> None:
        one = parameters.pop("deliberation_id")
        session = await convened(self.record, one, DeliberationRequest.read(parameters))
        async with (await loading.open_leases()).hold(one) as lease:
            session = await begin(self.record, session, lease, run)
            inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX)
            members = [asyncio.create_task(self._member(session.plan, member)) for member, _ in session.absent]
            try:
                outcome = await Collector(session, self.record, inbox).run()
            finally:
                await cancel_and_wait(members)
            await finish(self.record, session, outcome, 1)

    async def _member(self, plan: Any, member: Member) -> None:
        for item in plan.agenda:
            subject = f"answers.{plan.id}.{item.id}.propose-0.{member.agent_id}"
            if await self.record.last(subject, direct=False) is not None:
                continue
            self.calls[subject] += 1
            if subject in self.answered:
                self.repeated.append(subject)
            await asyncio.sleep(0.05)
            told = {"author_id": member.agent_id, "author_role": "DEV", "content": "An answer.", "model": "m"}
            proposal = {**told, "tokens": 3, "finish_reason": "stop"}
            fields = {"status": MemberStatus.OK, "proposal": proposal, "engine": "simulator"}
            answer = final_answer(plan, item.id, "propose-0", member, **fields)
            await self.record.publish_final(subject, answer.id, "answer", answer.model_dump(mode="json"))
            self.answered.add(subject)


class _Failed:
    """The state of a flow that raised."""

    name = "Failed"

    def __init__(self, error: BaseException) -> None:
        self._error, self.message = error, str(error)

    def is_cancelled(self) -> bool:
        return False

    async def aresult(self, raise_on_failure: bool = False) -> BaseException:
        return self._error


class _Worker:
    """Takes requests from the queue and works on them, until it is stopped or killed."""

    def __init__(self, block: JetStream) -> None:
        self._block = block
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        (self.record, self._close), self.leases = await self._block._connect(), Leases(self._block_record)
        await self.leases.open()
        cluster = SimpleNamespace(suspect=_nothing)
        log = logging.getLogger("two-workers")
        log.disabled = True  # it would tell of each message
        self.runs = Runs(self.record, self.leases, cluster, StartSlots(16), log)  # type: ignore[arg-type]
        self._taking = asyncio.create_task(self._take())

    async def _block_record(self) -> Record:
        record, close = await self._block._connect()
        self._close_leases = close
        return record

    async def _take(self) -> None:
        queue = WorkQueue(self.record, "interactive", ACK_WAIT_S)
        while True:
            try:
                delivery = await queue.take(0.5)
            except RecordError:  # as where the server answers late: the product's worker asks again, too
                await asyncio.sleep(0.05)
                continue
            if delivery is not None:
                work = asyncio.create_task(self.runs.run(delivery))
                self._tasks.add(work)
                work.add_done_callback(self._tasks.discard)

    def check(self) -> None:
        """Raise what ended the taking of requests, which nothing should."""
        if self._taking.done():
            self._taking.result()
            raise AssertionError("a worker takes no more requests")

    async def kill(self) -> None:
        """As SIGKILL: nothing is handed back, released or said; its leases and deliveries run out."""
        self.leases._held.clear()
        self.leases._deliveries.clear()
        await self.record.client.close()
        await self.stop()

    async def stop(self) -> None:
        """End it."""
        await cancel_and_wait([self._taking, *self._tasks])
        await self.leases.close()
        with contextlib.suppress(Exception):
            await self._close()


async def _nothing() -> None:
    """In place of what a cluster does."""
