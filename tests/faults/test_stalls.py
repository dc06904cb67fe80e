"""What stops a worker's loop, or its door, from within: files in parameters, loops that stand still, a jammed Prefect.

After each the worker is at work again, by itself or once the cause is gone, and nothing that was accepted is lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.stack import authorization
from deployments.stack.paths import StackPaths
from tests.faults.conftest import ROOT, TASK, Stack, home_of_a_stack, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(500)]

# In a worker's process before anything else: short limits, and signals that hold its main thread or its interpreter.
SITE = """
import re, signal, time

from deployments.worker import stalls

stalls.RED_S, stalls.END_S = 4.0, 12.0
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1000))
signal.signal(signal.SIGWINCH, lambda *_: re.search("(a+)+$", "a" * 64 + "b"))
"""


@pytest.fixture(scope="module")
def home() -> Generator[Path, None, None]:
    """A stack of these tests' own, that no other test has broken."""
    with home_of_a_stack() as home:
        yield home


def _questions(folder: Path) -> None:
    """Questions whose function notes that it was imported, and files that are none."""
    check = {"type": "predicate", "function": "checks.py:f"}
    (folder / "q.jsonl").write_text(json.dumps({"task": "Name a queue", "check": check}) + "\n")
    (folder / "checks.py").write_text(
        f"from pathlib import Path\nPath({str(folder / 'ran')!r}).touch()\ndef f(text, question): return True\n"
    )
    os.mkfifo(folder / "fifo.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    with (folder / "large.jsonl").open("wb") as file:
        file.truncate(1 << 30)


async def _decided(broken: Stack, ids: list[str]) -> None:
    for one in ids:
        state = await broken.final(one, 240)
        assert state["type"] == "COMPLETED", state["message"]
        assert set((await broken.finals(one)).values()) == {1}


async def test_a_parameter_opens_nothing_and_runs_nothing(broken: Stack, tmp_path: Path) -> None:
    """A worker without the folder refuses every path at once, code beside the questions is not run, others go on."""
    _questions(tmp_path)
    await broken.fault("slow", match=":propose-0:.*3$", delay_s=6)
    beside = await broken.deploy_runs(2)
    names = ("q.jsonl", "fifo.jsonl", "zero.jsonl", "large.jsonl")
    runs = [await broken.deploy_run("evaluate", questions=str(tmp_path / name)) for name in names]
    for one in (*runs, await broken.deploy_run("evaluate", questions="/dev/zero")):
        state = await broken.final(one)
        assert state["type"] == "FAILED"
        assert "a parameter may name no file on this worker: set CONCLAVE_EVALUATIONS" in state["message"]
    await _decided(broken, beside)
    assert not (tmp_path / "ran").exists()


async def test_what_is_no_file_stops_nobody(broken: Stack, tmp_path: Path) -> None:
    """In the operator's folder too: a FIFO, a device and a gigabyte end their own run, and questions are asked."""
    _questions(tmp_path)
    async with broken.worker(CONCLAVE_EVALUATIONS=str(tmp_path)) as other, broken.away("worker"):
        await broken.fault("slow", match=":propose-0:.*3$", delay_s=6)
        beside = await broken.deploy_runs(2)
        told = {"fifo.jsonl": "a FIFO", "zero.jsonl": "zero.jsonl does not lie", "large.jsonl": "larger than"}
        runs = {name: await broken.deploy_run("evaluate", questions=name) for name in told}
        good = await broken.deploy_run("evaluate", questions="q.jsonl")
        for name, one in runs.items():
            state = await broken.final(one)
            assert (state["type"], told[name] in state["message"]) == ("FAILED", True), state["message"]
        await _decided(broken, beside)
        assert (await broken.final(good))["type"] == "COMPLETED"
        assert (tmp_path / "ran").exists()
        assert other.returncode is None


@pytest.mark.parametrize("held", [signal.SIGUSR1, signal.SIGWINCH], ids=["loop", "interpreter"])
async def test_a_worker_that_stands_still_is_ended_and_its_work_is_not_lost(
    broken: Stack, tmp_path: Path, held: signal.Signals
) -> None:
    """Whatever holds it: its requests go on elsewhere, each is decided once, and its log says where it stood."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    async with broken.worker(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT)))) as other:
        async with broken.away("worker"):
            await broken.fault("slow", match=":propose-0:.*3$", delay_s=40)
            ids = await broken.deploy_runs(2)
            for one in ids:
                await broken.asked(one)
            other.send_signal(held)
            assert await asyncio.wait_for(other.wait(), 120) == -signal.SIGKILL
            await broken.heal()
        await _decided(broken, ids)
    logs = [path.read_text() for path in broken.settings.home.glob("worker-*.log")]
    assert any(f"(process {other.pid}) has stood still" in log and "in <lambda>" in log for log in logs)


async def test_a_jammed_prefect_is_red_within_a_minute(broken: Stack) -> None:
    """One run that Prefect's server cannot read any more: its listings fail for every worker, which then says so.

    So does `status`, and the doctor names it; once it is gone, all goes on by itself.
    """
    doctor, restarts = ("doctor", "--council", "dev"), broken.status.parts["worker"].restarts
    well = await broken.run(*doctor)
    assert (well.code, "a run came through Prefect, the queue and a worker" in well.out) == (0, True), well.out
    deployment = await broken._ask("GET", "deployments/name/deliberate/deliberate")
    due = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
    state: dict[str, Any] = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    path = f"deployments/{deployment['id']}/create_flow_run"
    one = (await broken._ask("POST", path, json={"parameters": {"task": TASK}, "state": state}))["id"]
    database = StackPaths.of(broken.settings.home).prefect_home / "prefect.db"
    nested = json.dumps({"task": TASK, "context": 0}).replace("0", '{"a": ' * 300 + "0" + "}" * 300)
    with sqlite3.connect(database, timeout=30) as rows:
        changed = rows.execute("update flow_run set parameters = ? where id = ?", (nested, one)).rowcount
    assert changed == 1

    async def red() -> dict[str, Any] | None:
        told = await broken.health()
        return None if told["ready"] else told

    told = await until(red, 90)
    assert told["waiting_for"].startswith("Prefect, asked for runs, has given no answer for 3")
    assert "500 Internal Server Error" in told["waiting_for"]
    assert told["last_poll_s"] >= 30
    status, examined = await broken.run("status"), await broken.run(*doctor)
    assert (status.code, examined.code) == (6, 6)
    assert "it waits: Prefect, asked for runs, has given no answer" in status.out
    assert "Prefect answers 500 Internal Server Error to every worker that asks which runs are due" in examined.out
    headers = authorization(broken.status, "prefect")
    async with broken._session.delete(f"{broken.status.prefect}/flow_runs/{one}", headers=headers) as deleted:
        assert deleted.status == 204
    await broken.answers("worker")
    await _decided(broken, await broken.deploy_runs(1))
    assert broken.status.parts["worker"].restarts == restarts


async def test_the_doctor_leaves_nothing_behind(broken: Stack) -> None:
    """No run in Prefect, no request in the queue, no status: however often it is asked."""
    for _ in range(2):
        assert (await broken.run("doctor", "--council", "dev")).code == 0
    assert await broken.prefect("flow_runs", flows={"name": {"any_": ["roundtrip"]}}) == []

    async def empty() -> bool:
        return not await broken.queue()

    await until(empty)
