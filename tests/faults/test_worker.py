"""Workers that are killed, stopped, stalled or told to end while deliberations run, and requests that are no requests.

After each: every accepted id has a final status, exactly once; no finished call was repeated; the queue is empty; and
`conclave status` tells what happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from blocks.record.queue import ACK_WAIT_S
from tests.faults.conftest import TASK, Stack, home_of_a_stack, in_the_background, in_the_foreground, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

RUNS = 10


@pytest.fixture(scope="module")
def home() -> Generator[Path, None, None]:
    """A stack of these tests' own, that no other test has broken."""
    with home_of_a_stack() as home:
        yield home


async def _all_asked(broken: Stack, ids: list[str]) -> None:
    await asyncio.gather(*(broken.asked(one) for one in ids))


async def _ended_once(broken: Stack, ids: list[str], state: str = "COMPLETED", calls: bool = True) -> None:
    """Each id is final in Prefect and on the record, once, and its calls were made once."""
    states = await asyncio.gather(*(broken.final(one, 240) for one in ids))
    assert [found["type"] for found in states] == [state] * len(ids), [found["message"] for found in states]
    for one in ids:
        assert set((await broken.finals(one)).values()) == {1}
        if calls:
            assert set((await broken.calls(one)).values()) == {1}, await broken.calls(one)

    async def empty() -> bool:
        return not await broken.queue()

    await until(empty)


async def test_a_worker_that_is_killed_with_ten_deliberations_loses_none(broken: Stack) -> None:
    """Its supervisor starts it again, the requests are delivered again, and finished calls stand."""
    await broken.fault("slow", match=":propose-0:.*3$", delay_s=8)
    ids = await broken.deploy_runs(RUNS)
    await _all_asked(broken, ids)
    broken.kill("worker")
    await _ended_once(broken, ids)
    assert broken.status.parts["worker"].restarts >= 1
    assert (await broken.run("status")).code == 0


async def test_of_two_workers_one_is_killed(broken: Stack) -> None:
    """The other one takes over what it held."""
    await broken.fault("slow", match=":propose-0:.*3$", delay_s=8)
    async with broken.worker() as other:
        ids = await broken.deploy_runs(RUNS)
        await _all_asked(broken, ids)
        other.kill()
        await _ended_once(broken, ids)


async def test_a_worker_that_stands_still_is_superseded(broken: Stack, new_id: str) -> None:
    """Stopped for longer than its leases and its deliveries last, then going on: its writes are refused."""
    async with broken.worker() as other:
        held = await broken.health()
        assert held["ready"]
        async with broken.away("worker"):  # so the other one takes the request
            await broken.fault("slow", match=":propose-0:.*3$", delay_s=10)
            ids = await broken.deploy_runs(2)
            await _all_asked(broken, ids)
            os.kill(other.pid, signal.SIGSTOP)
        try:
            await _ended_once(broken, ids)
        finally:
            os.kill(other.pid, signal.SIGCONT)
        more = await broken.deploy_runs(4)  # both are at work again
        await _ended_once(broken, more)
        await _ended_once(broken, ids)
        assert other.returncode is None


@pytest.mark.parametrize("started", [in_the_foreground, in_the_background])
async def test_a_worker_that_is_told_to_end_finishes_what_it_can(broken: Stack, started: Callable[[], None]) -> None:
    """SIGTERM: short ones finish in it, long ones are handed back and go on at once elsewhere.

    At once is before JetStream would deliver them again by itself. What was not finished is asked again.
    """
    await broken.fault("slow", match=":propose-0:.*3$", delay_s=6)
    async with broken.worker(started, CONCLAVE_WORKER_DRAIN="15") as other:
        async with broken.away("worker"):
            short = await broken.deploy_runs(2)
            await _all_asked(broken, short)
            await broken.heal()
            await broken.fault("slow", match=":propose-0:.*3$", delay_s=120)
            long = await broken.deploy_runs(2)
            await _all_asked(broken, long)
            other.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(other.wait(), 60) == 0
            states = [(await broken.state(one))["type"] for one in (*short, *long)]
            assert states == ["COMPLETED", "COMPLETED", "RUNNING", "RUNNING"]
            await broken.heal()
        async with asyncio.timeout(ACK_WAIT_S):
            await _ended_once(broken, long, calls=False)
        await _ended_once(broken, short)
    for one in long:
        repeated = [call for call, count in (await broken.calls(one)).items() if count > 1]
        assert repeated == ["propose-0:agent-dev-003"]
        assert (await broken.noted(one))["tries"] == 1  # what was handed over is no run that failed


@pytest.mark.parametrize("order", [("nats", "prefect"), ("prefect", "nats")])
async def test_nats_and_prefect_restart_while_deliberations_run(broken: Stack, order: tuple[str, ...]) -> None:
    """In any order: what was accepted is decided, and what comes afterwards too."""
    await broken.fault("slow", match=":propose-0:.*3$", delay_s=12)
    ids = await broken.deploy_runs(3)
    await _all_asked(broken, ids)
    for part in order:
        broken.kill(part)
        await asyncio.sleep(2)
    await _ended_once(broken, ids)
    await _ended_once(broken, await broken.deploy_runs(2))
    assert broken.status.parts["worker"].state == "running"


async def test_what_is_no_request_leaves_the_queue_and_others_run(broken: Stack, new_id: str) -> None:
    """Garbage and an unknown flow are kept dead, wrong fields end FAILED, each with the reason; the worker goes on."""
    wrong: dict[str, Any] = {"flow": "flows.deliberate.deliberate", "door": "planning", "parameters": {}}
    await broken.put(f"requests.{new_id}-a", b"\xff no json")
    await broken.put(f"requests.{new_id}-b", json.dumps({**wrong, "id": f"{new_id}-b", "flow": "os.system"}).encode())
    await broken.put(
        f"requests.{new_id}-c",
        json.dumps({**wrong, "id": f"{new_id}-c", "parameters": {"task": TASK, "members": 0}}).encode(),
    )
    ids = await broken.deploy_runs(2)
    await _ended_once(broken, ids)
    finished = await broken.finished(f"{new_id}-c")
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith("members: Input should be greater than or equal to 1")
    listed = json.loads((await broken.run("dead", "list", "--json")).out)
    letters = {letter["id"].removeprefix(new_id): letter for letter in listed}
    assert "is no JSON" in letters["-a"]["reason"]
    assert letters["-b"]["reason"].startswith("flow: 'os.system' is none that the warm worker runs")
    shown = json.loads((await broken.run("dead", "show", str(letters["-b"]["number"]))).out)
    assert shown["body"]["flow"] == "os.system"
    refused = await broken.run("dead", "replay", str(letters["-a"]["number"]))
    assert (refused.code, refused.out) == (2, "")
    assert (await broken.run("dead", "show", "999999")).code == 2


@pytest.mark.parametrize("door", ["prefect", "command"])
@pytest.mark.parametrize("stage", ["propose-0", "review-0", "synthesize"])
async def test_a_cancel_is_heard_in_every_stage(broken: Stack, stage: str, door: str) -> None:
    """From Prefect and from the command line: CANCELLED on the record, Cancelled in Prefect, calls closed."""
    await broken.fault("hang", match=f":{stage}:")

    async def asked() -> bool:
        return any(call.startswith(stage) for call in await broken.calls(one))

    one = await broken.deploy_run(task=TASK, strategy="synthesize")
    await until(asked)
    await _cancel(broken, one, door)
    state = await broken.final(one)
    assert (state["type"], state["name"]) == ("CANCELLED", "Cancelled")
    assert set((await broken.finals(one)).values()) == {1}
    assert all(call["aborted"] or call["sent_at"] for call in await broken.requests(one))


@pytest.mark.parametrize("door", ["prefect", "command"])
async def test_a_cancel_is_heard_while_the_request_waits(broken: Stack, door: str) -> None:
    """The only worker has its one place taken: what waits behind it ends CANCELLED all the same, without a call."""
    await broken.fault("hang", match=":propose-0:")
    async with broken.worker(CONCLAVE_WORKER_CONCURRENCY="1"), broken.away("worker"):
        first = await broken.deploy_run(task=TASK)
        await broken.asked(first)
        second = await broken.deploy_run(task=TASK)

        async def queued() -> bool:
            return f"requests.{second}" in await broken.queue()

        await until(queued)
        await _cancel(broken, second, door)
        assert (await broken.finished(second))["status"] == "CANCELLED"
        await _cancel(broken, first, "prefect")
        assert (await broken.final(first))["type"] == "CANCELLED"
        assert (await broken.final(second))["type"] == "CANCELLED"
        assert await broken.calls(second) == {}


async def _cancel(broken: Stack, one: str, door: str) -> None:
    if door == "prefect":
        await broken.ask_prefect_to_cancel(one)
    else:
        ended = await broken.run("cancel", one)
        assert (ended.code, ended.err) == (0, f"{one} is cancelled\n")
