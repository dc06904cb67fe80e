"""A council at work with nothing real about it but our own code: collector, stages, gates and record.

The record is on the fake NATS, the model server answers when it is told to, and the loop's clock jumps over every wait.
Prefect and Ray have no part in it: an agent task is a task of this loop.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import looptime

from tests.fakes.memory_nats import MemoryNats, Stored

SETTLE_S = 0.05
"""Of the loop's clock: enough for whatever is going on to come to its next wait for a model or for a moment."""
DEADLINE_S = 60.0
URL = "nats://memory:4222"


@dataclass
class Call:
    """A call of a member, which waits for its answer."""

    request_id: str
    form: dict[str, Any]
    """Properties of the JSON that is asked for; none where a text is."""
    answered: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ModelServer:
    """A model server that answers a call when the test says so; it notes what it was asked, and what it answered."""

    model = "m"

    def __init__(self, is_answered: Callable[[str], bool]) -> None:
        self._is_answered = is_answered
        self.waiting: dict[str, Call] = {}
        self.asked: Counter[str] = Counter()
        self.texts: dict[str, str] = {}
        self.repeated: list[str] = []

    async def complete(self, call: Any, deadline: float, _failed: Any, _learnt: Any) -> Any:
        """One completion. Raises TimeoutError at the deadline, and what the test says."""
        self.asked[call.request_id] += 1
        if self._is_answered(call.request_id):
            self.repeated.append(call.request_id)
        waiting = self.waiting[call.request_id] = Call(call.request_id, _form(call.extra))
        try:
            async with asyncio.timeout_at(deadline):
                return await waiting.answered
        finally:
            if self.waiting.get(call.request_id) is waiting:
                del self.waiting[call.request_id]

    def answer(self, request_id: str, kind: str, said: str | None = None) -> None:
        """Answer a call that waits: `ok`, `empty`, `cut`, `broken` (no ballot), or `error`.

        `said` is the closed answer, or the whole text where none is asked for.
        """
        from blocks.chat import Completion
        from blocks.exceptions import ModelServerRefused
        from tasks.council.proposal import Usage

        call = self.waiting.pop(request_id)
        if kind == "error":
            call.answered.set_exception(ModelServerRefused("the server refuses it"))
            return
        text = _filled(call.form, f"What {request_id} answers, {self.asked[request_id]}.", said)
        content = {"ok": text, "cut": text, "empty": "", "broken": "I like them all."}[kind]
        self.texts[request_id] = _as_published(content)
        reason = "length" if kind == "cut" else "stop"
        call.answered.set_result(Completion(content, None, reason, Usage(), "m", "vllm"))


def _form(extra: dict[str, Any]) -> dict[str, Any]:
    if "response_format" not in extra:
        return {}
    properties: dict[str, Any] = extra["response_format"]["json_schema"]["schema"]["properties"]
    return properties


def _filled(form: dict[str, Any], text: str, said: str | None) -> str:
    """What is asked for: the text, a closed answer that depends on it, a short ballot, or a full one."""
    if not form:
        return said or text
    if "answer" in form:
        options = form["answer"]["enum"]
        return json.dumps({"reason": text, "answer": said or options[sum(text.encode()) % len(options)]})
    if "opinions" not in form:
        return json.dumps({"reason": text[:100], "ranking": form["ranking"]["enum"][0]})
    return _ballot(list(form["opinions"]["properties"]))


def _as_published(content: str) -> str:
    """The content as it goes on the record where it is a closed answer."""
    if '"answer"' not in content:
        return content
    answer = json.loads(content)
    return f"{answer['reason']}\n\nANSWER: {answer['answer']}"


def _ballot(labels: list[str]) -> str:
    from tasks.council.voting.ballots import DEFAULT_CRITERIA

    scores = {one.key: {"score": 7, "reason": "It is."} for one in DEFAULT_CRITERIA}
    opinions = {label: {"scores": scores, "critique": "More tests."} for label in labels}
    return json.dumps({"opinions": opinions, "ranking": sorted(labels)})


@dataclass
class Run:
    """One run of the deliberation: its collector and its agents."""

    number: int
    collecting: asyncio.Task[Any]
    agents: dict[tuple[str, str], asyncio.Task[Any]]
    inbox: asyncio.Queue[Any]
    admission: Any = None

    @property
    def is_over(self) -> bool:
        """Whether its collector has ended."""
        return self.collecting.done()


class World:
    """One deliberation, its runs, and what may happen to them. Everything is called from outside of its loop.

    With a `window` its items begin as an admission lets them, with so many calls at a time, and its members are told.
    """

    def __init__(
        self,
        patch: Any,
        members: int = 3,
        items: int = 1,
        closed: bool = False,
        temperature: float = 0.7,
        window: int | None = None,
        **request: Any,
    ) -> None:
        import blocks.record.events
        import blocks.record.server
        from blocks.connections import connections
        from blocks.jetstream import JetStream

        self.loop = looptime.new_event_loop(start=0)
        self.nats = MemoryNats(self.loop.time)
        patch.setattr(blocks.record.server, "Client", self.nats.client)
        patch.setattr(blocks.record.server, "LEASE_S", 1e9)  # a lease is held until it is let go
        self.id, self.window = "w", window
        self.is_deaf = False
        self._pass_on = self.nats.pass_on
        self.nats.pass_on = self._heard  # type: ignore[method-assign]
        self.server = ModelServer(self._stands)
        self.runs: list[Run] = []
        self._scope = connections()
        self.run(self._scope.__aenter__())
        self.record = self.run(JetStream(servers=[URL], patience_s=5).record())
        if closed:
            request["answer_format"] = {"type": "choice", "options": ["red", "blue", "green"]}
        self.plan = self._planned(members, items, temperature, request)
        self.run(self._accept())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Work of this world's loop, to its end; nothing may take a day of its clock."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 86_400))

    def close(self) -> None:
        """End what is left, and the loop."""
        self.run(self._close())
        self.run(self._scope.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _close(self) -> None:
        from blocks.background import cancel_and_wait

        for run in self.runs:
            await cancel_and_wait([run.collecting, *run.agents.values()])

    # --- the plan ---------------------------------------------------------------------------------

    def _planned(self, members: int, items: int, temperature: float, request: dict[str, Any]) -> Any:
        from tasks.council.council import CouncilSpec, Member
        from tasks.council.models import Deliberation, DeliberationRequest

        names = [f"m{number}" for number in range(1, members + 1)]
        seats = tuple(Member(agent_id=name, role="DEV", temperature=temperature) for name in names)
        council = CouncilSpec(name="dev", members=seats, deadline_s=DEADLINE_S)
        asked = {"items": [{"id": f"i{number}", "task": "Choose one"} for number in range(items)], **request}
        self.request = DeliberationRequest.read(asked)
        return Deliberation.plan(self.id, self.request, council)

    async def _accept(self) -> None:
        from blocks.record import subjects

        body = {"plan": self.plan.model_dump(mode="json"), "request": {}}
        await self.record.publish_final(subjects.plan(self.id), f"{self.id}:plan", "deliberation.plan", body)
        await self.record.statuses.create(self.id, {"id": self.id, "status": "PENDING"})
        await self.record.leases.create(self.id, b"somebody")

    def _stands(self, request_id: str) -> bool:
        """Whether the final answer of a call is on the record."""
        subject = "answers." + request_id.removesuffix(":again").replace(":", ".")
        return self.nats.streams["CONCLAVE_ANSWERS"].last(subject) is not None

    # --- what may happen --------------------------------------------------------------------------

    def begin(self) -> None:
        """Another run begins: it fences those before it, and calls everybody in."""
        self.run(self._begin())
        self.wait(SETTLE_S)

    async def _begin(self) -> None:
        from blocks.jetstream import JetStream
        from blocks.record import subjects
        from tasks.collect.collector import Collector
        from tasks.collect.inbox import INBOX
        from tasks.deliberations.plan import Server, Session

        number, finished = len(self.runs) + 1, await self.record.last(subjects.finished(self.id)) is not None
        record = await JetStream(servers=[URL], user=f"run-{number}", password="x", patience_s=5).record()
        fence = None if finished else await record.fence(self.id, number, f"run-{number}")
        servers = {"default": Server(None, "vllm")}
        session = Session(self.plan, self.request, servers, self.loop.time(), finished=finished, fence=fence)
        inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX)
        admission = self._admission()
        collector = Collector(session, record, inbox, admission=admission)
        first = None if admission is None else await collector.begin()
        agents = {
            (m.agent_id, stage): self._agent(m, stage, session.epoch, inbox, first) for m, stage in session.absent
        }
        collecting = self.loop.create_task(self._collect(collector, record, session))
        self.runs.append(Run(number, collecting, agents, inbox, admission))

    def _admission(self) -> Any:
        """What lets the items of a run begin; None where its members begin them by themselves."""
        from tasks.collect.admission import Admission
        from tasks.council.budget import Ledger
        from tasks.council.window import Window

        if self.window is None:
            return None
        clock = self.loop.time
        return Admission({"default": Window(float(self.window))}, Ledger(self.plan.budget, clock()), clock)

    async def _collect(self, collector: Any, record: Any, session: Any) -> Any:
        from tasks.collect.collect import finish

        outcome = await collector.run()
        await finish(record, session, outcome, 1)
        return outcome

    def _agent(
        self, member: Any, stage: str, epoch: int, inbox: asyncio.Queue[Any], first: int | None
    ) -> asyncio.Task[Any]:
        from tasks.collect.inbox import AgentExited

        work = self.loop.create_task(self._answer(self.plan.asked(member.agent_id, stage), stage, epoch, first))

        def report(ended: asyncio.Task[Any]) -> None:
            died = ended.cancelled() or ended.exception() is not None
            with suppress(asyncio.QueueFull):
                inbox.put_nowait(AgentExited(member.agent_id, stage, "Crashed: it died" if died else None))

        work.add_done_callback(report)
        return work

    async def _answer(self, member: Any, stage: str, epoch: int, first: int | None) -> dict[str, int]:
        from tasks.stages.dispatch import dispatched
        from tasks.stages.member_stage import MemberStage
        from tasks.stages.propose import Proposing, ProposingLater
        from tasks.stages.review import Reviewing
        from tasks.stages.revise import Revising
        from tasks.stages.stage_gate import StageGate
        from tasks.stages.synthesize import Synthesizing

        at_work = MemberStage(self.plan, member, stage, self.record, self.server, "vllm")  # type: ignore[arg-type]
        if stage == self.plan.stages[0]:
            begun = None if first is None else dispatched(self.record, self.plan, epoch, first)
            return await at_work.answer_all(Proposing(at_work), begun)
        prompts = {"propose": ProposingLater, "review": Reviewing, "revise": Revising, "synthesize": Synthesizing}
        gate = StageGate(self.record, self.plan, stage, epoch)
        async with gate.heard():
            begun = None if first is None else gate.items()
            return await at_work.answer_all(prompts[stage.partition("-")[0]](at_work, gate), begun)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.run(asyncio.sleep(seconds))

    def answer(self, number: int, kind: str) -> None:
        """The model server answers one of the calls that wait, if any does."""
        waiting = sorted(self.server.waiting)
        if waiting:
            self.server.answer(waiting[number % len(waiting)], kind)
            self.wait(SETTLE_S)

    def kill_agent(self, number: int) -> None:
        """One of the agents of the newest run dies."""
        alive = [work for work in self.runs[-1].agents.values() if not work.done()] if self.runs else []
        if alive:
            alive[number % len(alive)].cancel()
            self.wait(SETTLE_S)

    def kill_run(self, agents_too: bool) -> None:
        """The newest run dies where it is; its agents go on without it, or die with it."""
        if not self.runs:
            return
        run = self.runs[-1]
        run.collecting.cancel()
        if agents_too:
            for work in run.agents.values():
                work.cancel()
        self.wait(SETTLE_S)

    def cancel(self) -> None:
        """Somebody asks for the end."""
        from tasks.deliberations.submit import ask_to_cancel

        self.run(ask_to_cancel(self.record, self.id))
        self.wait(SETTLE_S)

    def _heard(self, subject: str, data: bytes, headers: dict[str, str] | None) -> None:
        """What is said on core NATS alone comes to nobody while all are deaf to it."""
        if not (self.is_deaf and subject.startswith("conclave.")):
            self._pass_on(subject, data, headers)

    def lose_acknowledgements(self, count: int) -> None:
        """The next writes are stored, and their writers are not told."""
        self.nats.lost = count

    def interrupt(self, seconds: float) -> None:
        """NATS is away for a while."""

        async def away() -> None:
            async with self.nats.absent():
                await asyncio.sleep(seconds)

        self.run(away())
        self.wait(SETTLE_S)

    # --- what came out ----------------------------------------------------------------------------

    def finish(self) -> None:
        """Let it come to its end: somebody runs it, and members that do not answer meet the deadline."""
        if not self.runs or self.runs[-1].is_over:
            self.begin()
        stages = len(self.plan.stages)
        turns = 1 if self.window is None else len(self.plan.agenda)
        for _ in range((stages * 2 + 2) * turns):
            if self.runs[-1].is_over:
                break
            self.wait(DEADLINE_S)
        assert self.runs[-1].is_over, "the last run does not end"
        self.runs[-1].collecting.result()

    def stored(self, pattern: str) -> list[tuple[str, dict[str, Any]]]:
        """Subjects and bodies on the record, in their order."""
        return [(message.subject, json.loads(message.data)) for message in self.messages(pattern)]

    def messages(self, pattern: str) -> list[Stored]:
        """What is stored on subjects of a pattern, in its order."""
        every = (stream.messages(pattern) for stream in self.nats.streams.values())
        return list(chain.from_iterable(every))

    def written_late(self) -> list[str]:
        """Final events that a run wrote although a later one had begun."""
        epoch, begun, late = f"deliberations.{self.id}.epoch", 0, []
        for message in self.nats.streams["CONCLAVE_DECISIONS"].messages():
            if message.subject == epoch:
                begun = json.loads(message.data)["epoch"]
            elif message.by.startswith("run-") and message.by != f"run-{begun}":
                late.append(f"{message.subject} by {message.by}")
        return late
