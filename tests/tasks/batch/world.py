"""Batches at work with nothing real about them but our own code: record, agendas, collector and members.

The record is on the fake NATS, the model server does as its rows say, and the loop's clock jumps over every wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary

import looptime

from tests.fakes.memory_nats import MemoryNats

URL = "nats://memory:4222"
ANSWER_S = 1.0
DEADLINE_S = 30.0


class ModelServer:
    """Answers after a second. `kinds` says of a task what becomes of its calls: `away`, `refused` or `silent`.

    A kind may be given so many times: then the calls that follow are answered.
    """

    model, base_url = "m", "http://memory"

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[str, int]] = {}
        self.asked: Counter[str] = Counter()
        """Calls by task."""
        self.running = self.most = 0

    async def complete(self, call: Any, deadline: float, _failed: Any, _learnt: Any) -> Any:
        """One completion. Raises TimeoutError at the deadline, and what its kind says."""
        from blocks.chat import Completion
        from blocks.exceptions import ModelServerRefused, ModelServerUnavailable
        from tasks.council.proposal import Usage

        task = next(word for word in call.messages[-1]["content"].split() if word.startswith("task-"))
        self.asked[task] += 1
        kind, times = self.kinds.get(task, ("", 0))
        if self.asked[task] > times:
            kind = ""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(10 * DEADLINE_S if kind == "silent" else ANSWER_S)
        finally:
            self.running -= 1
        if kind == "away":
            raise ModelServerUnavailable("nobody answers there")
        if kind == "refused":
            raise ModelServerRefused("it does not take that")
        usage = Usage(prompt_tokens=10, completion_tokens=5)
        return Completion(f"What to do about {task}.", None, "stop", usage, "m", "vllm")


class Batches:
    """A record on a clock of its own, and batches on it. Everything is called from outside of its loop."""

    def __init__(self, patch: Any) -> None:
        import blocks.connections
        import blocks.record.server
        from blocks import documents
        from blocks.jetstream import JetStream
        from tasks.batch import ending, file_run
        from tasks.council.council import CouncilSpec, Member
        from tasks.deliberations import plan

        self.loop = looptime.new_event_loop(start=0)
        self.nats, self.server = MemoryNats(self.loop.time), ModelServer()
        self.council = CouncilSpec(
            name="dev", members=(Member(agent_id="m1", role="DEV"),), strategy="propose", deadline_s=DEADLINE_S
        )

        async def block() -> tuple[JetStream, Any]:
            return JetStream(servers=[URL], patience_s=1), documents._nothing

        async def nothing(_record: Any) -> None:
            """There is no Prefect whose mark could be compared."""

        async def spec(_name: str, _at_hand: Any = None) -> CouncilSpec:
            return self.council

        async def servers(_record: Any, of: Any, must_exist: bool = True, at_hand: Any = None) -> dict[str, Any]:
            return {name: plan.Server(None, "vllm") for name in of.servers}

        _without_threads(patch)
        patch.setattr(blocks.connections, "_pools", WeakKeyDictionary())
        patch.setattr(blocks.record.server, "Client", self.nats.client)
        patch.setattr(blocks.record.server, "LEASE_S", 1e9)  # a lease is held until it is let go
        patch.setattr(documents, "_read_jetstream", block)
        patch.setattr(documents, "check", nothing)
        for module in (plan, ending, file_run):
            patch.setattr(module, "council_spec", spec)
        patch.setattr(plan, "servers_of", servers)
        self._scope = blocks.connections.connections()
        self.run(self._scope.__aenter__())
        self.record = self.run(documents.open_record())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Work of this loop, to its end; nothing may take a day of its clock."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 86_400))

    def close(self) -> None:
        """End what is left, and the loop."""
        self.run(self._scope.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    # --- batches ----------------------------------------------------------------------------------

    def put(self, batch_id: str, *agendas: int, owner: str | None = None, **asked: Any) -> Any:
        """A batch of agendas with so many rows each; a row's task is `task-<its number>`. It is not begun."""
        from tasks.batch.asked import BatchRequest
        from tasks.batch.store import put_agenda, put_batch, read_batch

        async def put() -> Any:
            number = 0
            for agenda, size in enumerate(agendas, 1):
                rows = tuple(row(number + one) for one in range(1, size + 1))
                await put_agenda(self.record, batch_id, agenda, rows, owner)
                number += size
            await put_batch(self.record, batch_id, BatchRequest.read({"agendas": len(agendas), **asked}), owner)
            return await read_batch(self.record, batch_id)

        return self.run(put())

    async def decided(self, batch_id: str, window: int = 100, run: str = "run-1") -> Any:
        """Let it be decided to its end, as the flow does; the `BatchRun`."""
        from tasks.batch.running import BatchRun
        from tasks.batch.store import note, read_batch
        from tasks.collect.admission import Admission
        from tasks.council.budget import Ledger
        from tasks.council.window import Window

        batch = await read_batch(self.record, batch_id)
        clock = self.loop.time
        admission = Admission({"default": Window(float(window))}, Ledger(batch.request.budget, clock()), clock)
        running = BatchRun(batch, self.record, self.council, admission, self.ask, run)
        await running.decide_all()
        await note(self.record, batch_id, {"status": "COMPLETED", "error": admission.stopped, **running.told()})
        return running

    async def ask(self, record: Any, session: Any, admission: Any) -> Any:
        """As `flows.deliberate.deliberated`, without Prefect and Ray: an agent task is a task of this loop."""
        from blocks.background import background
        from tasks.collect.collect import finish
        from tasks.collect.collector import Collector
        from tasks.collect.inbox import INBOX

        collector = Collector(session, record, asyncio.Queue(INBOX), admission=admission)
        first = await collector.begin()
        async with background(*(self._answer(session, *post, first) for post in session.absent)):
            outcome = await collector.run()
        await finish(record, session, outcome, 1)
        return outcome

    async def _answer(self, session: Any, member: Any, stage: str, first: int) -> None:
        from tasks.stages.dispatch import dispatched
        from tasks.stages.member_stage import MemberStage
        from tasks.stages.propose import Proposing

        assert stage == session.plan.stages[0], "these councils have one stage"
        at_work = MemberStage(session.plan, member, stage, self.record, self.server, "vllm")  # type: ignore[arg-type]
        begun = dispatched(self.record, session.plan, session.epoch, first)
        await at_work.answer_all(Proposing(at_work), begun)

    @property
    def answers(self) -> int:
        """Answers that stand on the record."""
        return sum(1 for _ in self.nats.streams["CONCLAVE_ANSWERS"].messages("answers.>"))

    def body(self, batch_id: str) -> dict[str, Any]:
        """What the record says of it."""
        found: dict[str, Any] = self.run(self.record.batches.read(batch_id))
        return found

    def told(self, batch_id: str, after: str | None = None) -> list[tuple[str, str]]:
        """Its decided rows as they are told: id and status."""
        from tasks.batch.decided import BEGINNING, Place, decided_rows

        async def rows() -> list[tuple[str, str]]:
            place = Place.read(after) if after else BEGINNING
            return [(one.row.id, one.event.body["status"]) async for one in decided_rows(self.record, batch_id, place)]

        return self.run(rows())


def row(number: int, task: str | None = None, **more: Any) -> Any:
    """A row to ask, with its number for everything."""
    from tasks.batch.asked import AskedRow
    from tasks.council.models import ItemRequest

    item = ItemRequest(id=f"i{number}", task=f"Decide task-{number} now" if task is None else task)
    return AskedRow(
        **{"id": f"r{number}", "row": number, "line": number + 1, "key": f"{number:032x}", "item": item, **more}
    )


def _without_threads(patch: Any) -> None:
    """Whatever is done in a thread elsewhere is done at once: the clock would jump while one is at work."""
    from blocks.record.leases import Leases

    async def at_once(work: Callable[..., Any], *given: Any, **more: Any) -> Any:
        return work(*given, **more)

    async def opened(leases: Any) -> None:
        leases._record = await leases._connect()

    async def closed(_leases: Any) -> None:
        """There is no thread to end."""

    async def here(_leases: Any, work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    patch.setattr(asyncio, "to_thread", at_once)
    for name, way in (("open", opened), ("close", closed), ("_there", here)):
        patch.setattr(Leases, name, way)
