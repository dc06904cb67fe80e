"""The run of `conclave bench batch`: one stack, one model server, every case with its peers in rotating turns."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import nats
from nats.aio.client import Client

from blocks.background import background
from deployments.bench.batch.bounds import bound_s
from deployments.bench.batch.curator import curator_command
from deployments.bench.batch.figures import OURSELVES, Measured
from deployments.bench.batch.options import Case, Options, cases
from deployments.bench.batch.ours import Conclave, Heard
from deployments.bench.batch.peers.protocol import KEY, Job
from deployments.bench.batch.report import Report, report_rows
from deployments.bench.batch.sides import Outcome, SideFailed, command_of, measured
from deployments.bench.batch.targets import judge
from deployments.bench.batch.usage import Meter, stack_groups
from deployments.bench.batch.workload import Questions, write_calls, write_rows
from deployments.bench.machine import commit, machine, nats_version, versions
from deployments.bench.options import rotated
from deployments.bench.program import BenchError
from deployments.bench.quiet import BUSY_SHARE, Watch, busy
from deployments.bench.worker.stack import Say, bench_stack
from deployments.client import AsyncClient
from deployments.stack import StackStatus, authorization, environment
from tasks.council.council import CouncilSpec

PACKAGES = (
    "aiohttp",
    "prefect",
    "prefect-ray",
    "ray",
    "nats-py",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "pyarrow",
)
SETTLE_S, LOOK_S = 15.0, 2.0
POLL_S = 0.02
START_S, SHARE_OF_BOUND, LIVE_S = 180.0, 8, 3600.0
"""A peer has so long to start, and so many times the bound to work; on a server of unknown pace an hour."""
STOCK_S = 300.0
"""Stock Prefect is given up after that."""
WARM_UP = Case("agenda", 30, 90, 0.1, (OURSELVES,))
WITH_RAY = ("raydata", "prefect")


def run(options: Options, say: Say) -> Report:
    """Bring a stack up, measure, and take it down again. Raises StackError and BenchError."""
    worker = OURSELVES in options.peers
    with bench_stack(options.latency_s, say, worker=worker, llm_url=options.url, model=options.model) as found:
        return asyncio.run(_measure(found, options, say))


async def _measure(found: StackStatus, options: Options, say: Say) -> Report:
    began = time.monotonic()
    async with AsyncExitStack() as scope:
        bench = await scope.enter_async_context(_opened(found, options))
        others = await bench.first_look()
        if disturbed := others > BUSY_SHARE * (os.cpu_count() or 1):
            say(f"{busy(others)}; figures will be worse than they could be")
        planned = cases(options, len(bench.council.members))
        if any(OURSELVES in case.peers for case in planned):
            await bench.warm_up()
        taken: list[Measured] = []
        for number in range(options.samples):
            taken += [one async for one in _round(bench, planned, number, say)]
        server = await nats_version(environment(found)["NATS_URL"])
    asked = {name: value for name, value in asdict(options).items() if name not in ("json", "plot", "url")}
    return Report(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        git=commit(),
        versions={**versions(PACKAGES), "nats-server": server},
        options={**asked, "simulated": found.simulated},
        others_cores=round(others, 2),
        rows=report_rows(taken),
        targets=judge(planned, taken),
        measured=taken,
        seconds=round(time.monotonic() - began, 1),
        warnings=[f"BUSY MACHINE: {busy(others)} before the first case."] if disturbed else [],
    )


async def _round(bench: Bench, planned: Sequence[Case], number: int, say: Say) -> AsyncGenerator[Measured, None]:
    for case in planned:
        say(case.name)
        for peer in rotated(case.peers, number):
            one = await bench.measured(case, peer)
            told = one.reason
            if one.outcome is not None:
                told = f"{one.outcome.seconds:8.2f} s  {one.outcome.rate:8.1f} calls/s"
            say(f"  {peer:9} {told}")
            yield one


class Bench:
    """The stack, the model server's pace, and every peer."""

    def __init__(self, found: StackStatus, options: Options, http: aiohttp.ClientSession, client: Client) -> None:
        self._found, self._options, self._http, self._nats = found, options, http, client
        self._folder = Path(found.home) / "bench-batch"
        self._folder.mkdir()
        self._key = authorization(found, "llm")
        self._watch = Watch(Path(found.home), found.parts["prefect"].pid)
        self._number = 0
        self.council: CouncilSpec
        meter = Meter(stack_groups(Path(found.home)))
        command = [str(Path(sys.executable).with_name("conclave"))]
        token = os.environ.get("CONCLAVE_TOKEN")
        self._ours = Conclave(command, os.environ["CONCLAVE_URL"], token, meter, self._decisions, self._subjects)

    async def open(self) -> None:
        """Learn the council. Raises BenchError where there is none of that name."""
        async with AsyncClient(os.environ["CONCLAVE_URL"], os.environ.get("CONCLAVE_TOKEN")) as client:
            councils = await client.councils()
        if self._options.council not in councils:
            raise BenchError(f"there is no council {self._options.council}; there are {', '.join(councils)}")
        self.council = CouncilSpec.model_validate(councils[self._options.council])

    async def first_look(self) -> float:
        """Cores that others use before anything is measured."""
        await self._watch.settle(SETTLE_S)
        await self._watch.rest()
        before = self._watch.reading()
        await asyncio.sleep(LOOK_S)
        return self._watch.reading().others(before)

    async def warm_up(self) -> None:
        """Let the worker and its agent hosts work once, uncounted, as they have on a stack that is in use."""
        await self.measured(WARM_UP._replace(latency_s=0.1 if self._found.simulated else None), OURSELVES)

    async def measured(self, case: Case, peer: str) -> Measured:
        """One peer in one case; a failure is its reason."""
        await self._watch.settle(SETTLE_S)
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        try:
            await self._set_pace(case.slots, case.latency_s)
            async with background(*([self._narrow(case)] if case.narrow else [])):
                return Measured(case, peer, await self._one(case, peer, folder))
        except (SideFailed, aiohttp.ClientError) as error:
            return Measured(case, peer, None, str(error) or type(error).__name__)

    async def _one(self, case: Case, peer: str, folder: Path) -> Outcome:
        if peer != OURSELVES:
            command = curator_command() if peer == "curator" else command_of(peer)
            patience_s = min(STOCK_S, _patience_s(case)) if peer == "prefect" else _patience_s(case)
            return await measured(command, self._job(case, folder), case.calls, patience_s, peer in WITH_RAY)
        if case.kind == "agenda":
            questions = map(Questions(self.council).item, range(case.rows))
            agenda = [{"id": asked.id, "task": asked.task} for asked in questions]
            return await self._ours.agenda(case, agenda, self._options.council, _patience_s(case))
        rows = write_rows(folder / "questions.jsonl", case.rows, self.council)
        output = folder / "decisions.jsonl"
        return await self._ours.batch(case, rows, output, self._options.council, _patience_s(case))

    def _job(self, case: Case, folder: Path) -> Job:
        model = self._found.model or ""
        calls = self._folder / f"calls-{case.rows}.txt"
        if not calls.exists():
            write_calls(calls, case.rows, self.council, model, "floor")
        return Job(
            url=self._found.llm or "",
            model=model,
            calls=str(calls),
            rows=case.rows,
            slots=case.slots,
            folder=str(folder),
            council=self.council.model_dump(mode="json"),
            reviews=case.kind == "rank",
            follow=case.narrow is not None,
        )

    async def _set_pace(self, slots: int, latency_s: float | None) -> None:
        if latency_s is None:
            return
        url, pace = f"{self._found.llm}/sim/pace", {"slots": slots, "latency_s": latency_s}
        async with self._http.put(url, json=pace, headers=self._key) as answer:
            answer.raise_for_status()
        async with self._http.delete(f"{self._found.llm}/sim/calls", headers=self._key) as answer:
            await answer.read()

    async def _narrow(self, case: Case) -> None:
        """Fewer slots for a while, from the first call on."""
        assert case.narrow is not None
        while not await self._load():  # noqa: ASYNC110  # the server is asked
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(case.narrow.from_s)
        await self._set_pace(case.narrow.slots, case.latency_s)
        await asyncio.sleep(case.narrow.for_s)
        await self._set_pace(case.slots, case.latency_s)

    async def _load(self) -> int:
        async with self._http.get(f"{self._found.llm}/load") as answer:
            return int((await answer.json())["server_load"])

    @asynccontextmanager
    async def _decisions(self, heard: Heard) -> AsyncGenerator[None, None]:
        async def hear(message: Any) -> None:
            _, agenda, item = message.subject.split(".")
            heard(agenda, item)

        subscription = await self._nats.subscribe("decisions.*.*", cb=hear)
        await self._nats.flush()
        await self._nats.flush()  # the first PING of nats-py 2.16 overtakes what is still to be written
        try:
            yield
        finally:
            await subscription.unsubscribe()

    async def _subjects(self) -> int:
        """Subjects that JetStream stores, in all streams."""
        listed = await self._nats.request("$JS.API.STREAM.LIST", b"{}", timeout=10)
        streams = json.loads(listed.data).get("streams") or []
        return sum(stream["state"].get("num_subjects", 0) for stream in streams)


@asynccontextmanager
async def _opened(found: StackStatus, options: Options) -> AsyncGenerator[Bench, None]:
    if key := authorization(found, "llm"):
        os.environ[KEY] = key["Authorization"].partition(" ")[2]
    client = await nats.connect(environment(found)["NATS_URL"])
    try:
        async with aiohttp.ClientSession() as http:
            bench = Bench(found, options, http, client)
            await bench.open()
            yield bench
    finally:
        await client.close()


def _patience_s(case: Case) -> float:
    if case.latency_s is None:
        return LIVE_S
    return START_S + SHARE_OF_BOUND * bound_s(case.calls, case.slots, case.latency_s, case.narrow) + case.calls / 50
