"""A loop that stands still: told after a while, then its process is ended, whatever holds it; a pause is no stall."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import aiohttp
import psutil
import pytest

from deployments.stack.ports import free_port
from tests.conftest import until

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("importable_prefect")]

# A worker's two loops and its health, with short limits. A line on its standard input is run on the loop of that name.
PROGRAM = """
import asyncio, logging, re, sys, threading, time

from deployments.worker.health import health
from deployments.worker.stalls import LoopWatch

watch = LoopWatch(logging.getLogger(), red_s=1.0, end_s=4.0, tick_s=0.25)
loops = {}

def report():
    return {"ready": watch.trouble is None, "waiting_for": watch.trouble}

async def turn(name):
    loops[name] = asyncio.get_running_loop()
    await watch.beating(name)

async def main():
    async with health(sys.argv[1], report):
        await turn("main")

def orders():
    for line in sys.stdin:
        name, _, code = line.partition(" ")
        loops[name].call_soon_threadsafe(eval, code, globals())

watch.start()
threading.Thread(target=lambda: asyncio.run(turn("flows")), daemon=True).start()
threading.Thread(target=orders, daemon=True).start()
asyncio.run(main())
"""
HOLDS = "re.search('(a+)+$', 'a' * 64 + 'b')"  # the interpreter, for longer than anybody lives


class Process:
    """The program, and what it says."""

    def __init__(self, log: Path) -> None:
        self.address, self.log = f"127.0.0.1:{free_port(19500)}", log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, self.address], stdin=subprocess.PIPE, stderr=file, text=True
            )

    def order(self, loop: str, code: str) -> None:
        """Run something on one of its loops."""
        assert self.process.stdin
        self.process.stdin.write(f"{loop} {code}\n")
        self.process.stdin.flush()

    async def health(self) -> tuple[int, str | None]:
        """Status and reason; 0 where there is no answer."""
        limit = aiohttp.ClientTimeout(total=1)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(f"http://{self.address}/healthz") as answer,
            ):
                return answer.status, (await answer.json())["waiting_for"]
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    async def well(self) -> bool:
        """Whether it answers 200."""
        return (await self.health())[0] == 200

    async def watchdog(self) -> psutil.Process:
        """Its child, once there is one."""

        async def child() -> list[psutil.Process]:
            return list(psutil.Process(self.process.pid).children())

        (found,) = await until(child)
        return found

    async def ended(self) -> int:
        """Its exit status, once it has ended; its child is gone then."""
        children = psutil.Process(self.process.pid).children() if self.process.poll() is None else []

        async def gone() -> bool:
            return self.process.poll() is not None

        await until(gone)
        await asyncio.to_thread(psutil.wait_procs, children, 30)
        assert not any(child.is_running() for child in children)
        assert self.process.returncode is not None
        return self.process.returncode


@pytest.fixture
def started(tmp_path: Path) -> Generator[Process, None, None]:
    """The program, running."""
    made = Process(tmp_path / "log")
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.parametrize("loop", ["main", "flows"])
async def test_a_loop_that_stands_still_is_told_and_then_ends_its_process(started: Process, loop: str) -> None:
    """One of both is enough: 503 with its name, then the end, and what it was at is in the log."""
    await until(started.well)
    started.order(loop, "time.sleep(1000)")

    async def red() -> str | None:
        status, reason = await started.health()
        return reason if status == 503 else None

    reason = await until(red)
    assert reason.startswith(f"{loop} has stood still for ")
    assert await started.ended() == -signal.SIGKILL
    log = started.log.read_text()
    assert f"a loop of the worker (process {started.process.pid}) has stood still for " in log
    assert 'File "<string>", line 1 in <module>' in log  # where it stood


async def test_whatever_holds_the_interpreter_ends_it_too(started: Process) -> None:
    """No thread in there can run: no answer from its health, then the end, and what held it is in the log."""
    await until(started.well)
    started.order("flows", HOLDS)

    async def no_answer() -> bool:
        return (await started.health())[0] == 0

    await until(no_answer)
    assert await started.ended() == -signal.SIGKILL
    assert "in search" in started.log.read_text()


async def test_a_loop_that_turns_now_and_then_is_left_alone(started: Process) -> None:
    """Each time for less than the limit, but in all for longer."""
    await until(started.well)
    for _ in range(4):
        started.order("flows", "time.sleep(2)")
        await asyncio.sleep(2.5)
    assert started.process.poll() is None
    await until(started.well)


async def test_a_process_that_was_stopped_has_not_stood_still(started: Process) -> None:
    """For much longer than the limit, alone or with its watchdog, as a machine that sleeps stops both."""
    await until(started.well)
    watchdog = await started.watchdog()
    for stopped in ([started.process.pid], [started.process.pid, watchdog.pid]):
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(6)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(1)
        assert started.process.poll() is None
        await until(started.well)
    assert watchdog.is_running()
    assert started.log.read_text() == ""


async def test_the_watchdog_goes_with_the_process_and_comes_again(started: Process) -> None:
    """Killed it is started again; it outlives no end of the process."""
    await until(started.well)
    process, first = psutil.Process(started.process.pid), await started.watchdog()
    first.kill()

    async def another() -> bool:
        return any(child.pid != first.pid for child in process.children())  # one that was killed may be seen once more

    await until(another)
    (second,) = (child for child in process.children() if child.pid != first.pid)
    assert not set(second.environ()) & {"CONCLAVE_LLM_API_KEY", "PREFECT_API_URL", "HOME"}
    started.process.terminate()
    await started.ended()
    await asyncio.to_thread(psutil.wait_procs, [second], 30)
    assert not second.is_running()


async def test_time_alone_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock jumps by a day, as after a sleep of the machine or a change of the date: nothing is told."""
    from deployments.worker.stalls import LoopWatch

    watch = LoopWatch(logging.getLogger(), red_s=1.0, end_s=60.0, tick_s=0.05)
    watch.start()
    beats = asyncio.create_task(watch.beating("a loop"))
    await asyncio.sleep(0.2)
    for clock in ("time", "monotonic"):
        now: Callable[[], float] = getattr(time, clock)
        monkeypatch.setattr(time, clock, lambda now=now: now() + 86_400)
    for _ in range(10):
        await asyncio.sleep(0.05)
        assert watch.trouble is None
    beats.cancel()
    await asyncio.gather(beats, return_exceptions=True)
    await asyncio.to_thread(watch.close)


async def test_a_loop_that_has_ended_is_not_missed() -> None:
    """A worker drains: its flows' loop ends before its process does."""
    from deployments.worker.stalls import LoopWatch

    watch = LoopWatch(logging.getLogger(), red_s=0.3, end_s=60.0, tick_s=0.05)
    watch.start()
    beats = asyncio.create_task(watch.beating("a loop"))
    await asyncio.sleep(0.1)
    beats.cancel()
    await asyncio.sleep(0.6)
    assert watch.trouble is None
    await asyncio.to_thread(watch.close)


# --- doors ----------------------------------------------------------------------------------------


def test_a_door_that_is_asked_in_vain_is_told() -> None:
    """From the first question without an answer on; with the last error."""
    from deployments.worker.doors import Door

    now = 0.0
    door = Door("Prefect", 30.0, lambda: now)
    assert (door.age_s, door.trouble) == (None, None)
    door.asked()
    now = 29.0
    door.asked()
    assert door.trouble is None
    door.failed("500 Internal Server Error")
    now = 31.0
    assert door.trouble == "Prefect has given no answer for 31 s: 500 Internal Server Error"
    door.answered()
    now = 60.0
    assert (door.age_s, door.trouble) == (29.0, None)
    now = 62.0
    assert door.trouble == "Prefect has given no answer for 31 s"


def test_a_door_that_is_not_asked_is_no_trouble() -> None:
    """A worker that is full, or waits for Ray, asks nobody; it is counted from when it asks again."""
    from deployments.worker.doors import Door

    now = 0.0
    door = Door("Prefect", 30.0, lambda: now)
    door.answered()
    door.idle()
    now = 1000.0
    assert door.trouble is None
    door.asked()
    now = 1020.0
    assert (door.age_s, door.trouble) == (1020.0, None)
    now = 1031.0
    assert door.trouble is not None
