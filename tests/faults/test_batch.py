"""Batches whose parts are killed, replaced, or go away: every row stands once, and next to nothing is asked twice.

`make test-faults` has a seeded part. BATCH_ROUNDS=n takes n rounds of kills at other moments, more hand-overs, a minute
without the model server, and 100 000 rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from deployments.stack import authorization
from tests.faults.conftest import Command, Ended, Stack, home_of_a_stack, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("BATCH_ROUNDS") or 0)
ROWS, WINDOW, LATENCY_S = 500, 24, 0.2
MEMBERS = 3
MOST_REPEATED = ROWS * MEMBERS // 100
"""One per cent of the calls of a batch."""
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def home() -> Generator[Path, None, None]:
    """A stack of these tests' own, that no other test has broken."""
    with home_of_a_stack() as home:
        yield home


class Batch:
    """A file of rows, and the command over it as a user runs it."""

    def __init__(self, stack: Stack, folder: Path, rows: int = ROWS, output: Path | None = None) -> None:
        self.stack, self.source = stack, folder / "rows.csv"
        self.output = output or folder / "out.parquet"
        self.ids = [f"r{number}" for number in range(1, rows + 1)]
        self.source.write_text("\n".join(["id,task", *(f"{one},Name {one}" for one in self.ids)]) + "\n")
        self.ended: list[Ended] = []

    async def start(self, *more: str, window: int = WINDOW) -> Command:
        """Begin the command."""
        names = (str(self.source), str(self.output))
        how = ("--strategy", "propose", "--window", str(window), "--json")
        return await self.stack.start("batch", *names, *how, *more)

    async def end(self, command: Command) -> Ended:
        """Wait for its end."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await command.process.communicate()
        assert command.process.returncode is not None
        ended = Ended(command.process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ended.err, ended.err
        self.ended.append(ended)
        return ended

    async def go_on(self) -> Ended:
        """Resume until it has come to its end, as somebody does who is told that a part is away."""
        for _ in range(5):
            ended = await self.end(await self.start("--resume"))
            if ended.code in (0, 3) or "is finished" in ended.err:
                return ended
        raise AssertionError(self.ended)

    async def asked(self, calls: int) -> None:
        """Wait until so many calls are answered."""

        async def answered() -> bool:
            return sum(line["status"] == 200 for line in await self.book()) >= calls

        await until(answered, PATIENCE_S)

    async def followed_by(self, command: Command) -> None:
        """Wait until the command holds OUTPUT, and a while for it to follow the batch."""
        lock = Path(f"{self.output}.parts", "lock")

        async def held() -> bool:
            return str(command.process.pid) in lock.read_text()

        await until(held)
        await asyncio.sleep(1.0)

    async def book(self) -> list[dict[str, Any]]:
        """The simulator's book, in the order in which calls came."""
        return list((await _simulator(self.stack, "GET", "calls"))["requests"])

    async def repeated(self) -> list[str]:
        """Calls, by item, stage and member, that were made again after the simulator had answered them."""
        answered: dict[str, float] = {}
        repeated = []
        for line in await self.book():
            call = str(line["request_id"]).split(":", 1)[1]
            if answered.get(call, line["received_at"]) < line["received_at"]:
                repeated.append(call)
            if line["status"] == 200:
                answered[call] = min(line["sent_at"], answered.get(call, line["sent_at"]))
        return repeated

    def statuses(self) -> Counter[str]:
        """Rows of OUTPUT by status; each row of the input is there once."""
        table = pq.read_table(self.output, columns=["id", "status"])
        assert sorted(table.column("id").to_pylist()) == sorted(self.ids)
        return Counter(table.column("status").to_pylist())

    async def is_whole(self, most_repeated: int = MOST_REPEATED) -> None:
        """Every row is decided, once; at most so many finished calls were made again."""
        assert self.statuses() == {"COMPLETED": len(self.ids)}
        repeated = await self.repeated()
        assert len(repeated) <= most_repeated, (len(repeated), repeated[:20])


async def _simulator(stack: Stack, method: str, what: str, **content: Any) -> dict[str, Any]:
    key = authorization(stack.status, "llm")
    async with stack._session.request(method, f"{stack.status.llm}/sim/{what}", headers=key, **content) as answer:
        found: dict[str, Any] = await answer.json()
        return found


@pytest_asyncio.fixture
async def batch(broken: Stack, tmp_path: Path) -> AsyncGenerator[Batch, None]:
    """500 rows, a simulator that answers in 0.2 s, and an empty book."""
    await _simulator(broken, "DELETE", "calls")
    await _simulator(broken, "PUT", "pace", json={"latency_s": LATENCY_S, "slots": WINDOW})
    yield Batch(broken, tmp_path)
    await _simulator(broken, "DELETE", "pace")


def _kill_agent_host(stack: Stack) -> None:
    """SIGKILL to one of the processes in which members work."""
    below = psutil.Process(stack.pid("ray")).children(recursive=True)
    hosts = [one for one in below if one.cmdline() and one.cmdline()[0].startswith("ray::AgentHost")]
    assert hosts
    hosts[0].kill()


VICTIMS: dict[str, Callable[[Stack], None]] = {
    "worker": lambda stack: stack.kill("worker"),
    "agent host": _kill_agent_host,
    "gateway": lambda stack: stack.kill("gateway"),
    "nats": lambda stack: stack.kill("nats"),
}


async def _killed_at(batch: Batch, victim: str, moment: int) -> None:
    """Kill it once so many calls are answered, and wait until it answers again."""
    await batch.asked(moment)
    VICTIMS[victim](batch.stack)
    if victim != "agent host":
        await asyncio.sleep(0.5)
        await batch.stack.answers(victim)


SEEDED = [("worker",), ("agent host", "gateway", "nats")]
CASES = [(0, victims) for victims in SEEDED] + [(seed, tuple(VICTIMS)) for seed in range(1, ROUNDS + 1)]


@pytest.mark.parametrize(("seed", "victims"), CASES)
async def test_whatever_is_killed_every_row_stands_once(batch: Batch, seed: int, victims: tuple[str, ...]) -> None:
    """At random points of 500 rows, in any order; what is asked twice is less than one call of a hundred."""
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(50, 1_300), len(victims)))
    command = await batch.start()
    for victim, moment in zip(chance.sample(victims, len(victims)), moments, strict=True):
        await _killed_at(batch, victim, moment)
    if (await batch.end(command)).code != 0:
        await batch.go_on()
    await batch.is_whole()


async def test_the_command_is_killed_and_goes_on(batch: Batch) -> None:
    """SIGKILL twice, then Ctrl-C, then to the end: the batch goes on without it, and stops when it is told to."""
    for moment in (200, 400):
        command = await batch.start(*(("--resume",) if moment > 200 else ()))
        await batch.asked(moment)
        command.process.kill()
        await command.process.wait()
        assert not batch.output.exists()
    command = await batch.start("--resume")
    await batch.followed_by(command)
    command.process.send_signal(signal.SIGINT)
    stopped = await batch.end(command)
    assert stopped.code == 5, stopped
    assert json.loads(stopped.out)["error"] == "cancelled"
    statuses = batch.statuses()
    assert set(statuses) <= {"COMPLETED", "CANCELLED", "PENDING"}
    assert 0 < statuses["COMPLETED"] < ROWS
    assert (await batch.go_on()).code == 0
    await batch.is_whole()


async def test_a_cancel_in_prefect_s_ui_stops_the_command_and_the_rest_follows(batch: Batch, tmp_path: Path) -> None:
    """Code 5, what is decided stands; `--resume` asks the others, and no finished call again."""
    batch = Batch(batch.stack, tmp_path, rows=200)
    command = await batch.start()
    await batch.asked(150)
    runs = await batch.stack.prefect(
        "flow_runs", flows={"name": {"any_": ["batch"]}}, flow_runs={"state": {"type": {"any_": ["RUNNING"]}}}
    )
    assert len(runs) == 1
    await batch.stack.ask_prefect_to_cancel(runs[0]["id"])
    ended = await batch.end(command)
    assert (ended.code, json.loads(ended.out)["error"]) == (5, "cancelled")
    assert (await batch.stack.final(runs[0]["id"]))["type"] == "CANCELLED"
    assert 0 < batch.statuses()["COMPLETED"] < 200
    assert (await batch.go_on()).code == 0
    await batch.is_whole(most_repeated=0)


async def test_the_model_server_is_gone_for_a_while(batch: Batch, tmp_path: Path) -> None:
    """Rows that fail for that are asked again by themselves, after a pause."""
    away_s = 60.0 if ROUNDS else 6.0
    batch = Batch(batch.stack, tmp_path, rows=200)
    command = await batch.start()
    await batch.asked(150)
    async with batch.stack.away("llm"):
        await asyncio.sleep(away_s)
    ended = await batch.end(command)
    assert ended.code == 0, ended
    assert batch.statuses() == {"COMPLETED": 200}


async def test_a_full_disk_ends_the_command_with_the_file_and_loses_nothing(
    batch: Batch, broken: Stack, tmp_path: Path
) -> None:
    """The output's disk is full: told by name, its parts stay, and once there is room the rest is written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted only by root")
    try:
        small = Batch(broken, tmp_path, 200, disk / "out.parquet")
        command = await small.start()
        await small.asked(150)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        ended = await small.end(command)
        assert (ended.code, "No space left on device" in ended.err, str(disk) in ended.err) == (2, True, True), ended
        assert not small.output.exists()
        filler.unlink()
        assert (await small.go_on()).code == 0
        await small.is_whole(most_repeated=0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_batch_outlives_more_hand_overs_than_a_request_has_tries(broken: Stack, batch: Batch) -> None:
    """Workers are replaced one after another, each with a second to end: the next one goes on at once."""
    hand_overs = 11 if ROUNDS else 6
    await _simulator(broken, "PUT", "pace", json={"latency_s": 1.0, "slots": 6})
    async with broken.away("worker"), AsyncExitStack() as workers:

        async def begun() -> asyncio.subprocess.Process:
            return await workers.enter_async_context(broken.worker(CONCLAVE_WORKER_DRAIN="1"))

        worker, command = await begun(), await batch.start(window=6)
        for number in range(hand_overs):
            await batch.asked(len(await batch.book()) + MEMBERS)
            worker.send_signal(signal.SIGTERM)
            following = asyncio.create_task(begun())
            assert await asyncio.wait_for(worker.wait(), 60) == 0, number
            worker = await following
        await _simulator(broken, "PUT", "pace", json={"latency_s": 0.0, "slots": WINDOW})
        assert (await batch.end(command)).code == 0
    await batch.is_whole()


async def test_many_short_rows_are_read_and_sent(broken: Stack, tmp_path: Path) -> None:
    """All of them are on the record before one is asked; a budget leaves all but one, and each is in OUTPUT."""
    rows = 100_000 if ROUNDS else 5_000
    batch = Batch(broken, tmp_path, rows)
    ended = await batch.end(await batch.start("--max-calls", str(MEMBERS)))
    assert ended.code == 3, ended
    assert batch.statuses()["COMPLETED"] == 1
    assert json.loads(ended.out)["error"].startswith("budget: ")
