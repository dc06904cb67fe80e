"""What the tests of the flow share: a council that gives up quickly, and views of NATS, Prefect and the clock."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

TASK = "Write a function to merge sorted arrays"

FLOW = """
import asyncio, json, sys
from blocks.connections import connections, prefect_clients
from flows.deliberate import deliberate

async def main():
    async with prefect_clients(), connections():
        await deliberate(**json.loads(sys.argv[1]), return_state=True)

asyncio.run(main())
"""


async def until(found: Callable[[], Awaitable[Any]], patience_s: float = 60.0) -> Any:
    """The first true value that `found` gives."""
    async with asyncio.timeout(patience_s):
        while not (value := await found()):
            await asyncio.sleep(0.05)
        return value


@pytest.fixture(name="until")
def until_() -> Any:
    """`value = await until(found)`: the first true value of an async function."""
    return until


@pytest_asyncio.fixture(scope="session")
async def practised(connected: Any) -> None:
    """One deliberation is over: a host imports what a task needs with its first one, which may outlast a deadline."""
    from flows.deliberate import deliberate

    await deliberate(task=TASK, council="dev", members=4, return_state=True)


@pytest_asyncio.fixture
async def quick(stack: Any, practised: None) -> str:
    """Name of a block for the simulator that tries twice, at once."""
    from blocks.vllm_server import VLLM

    await VLLM(base_url=stack.llm, model=stack.model, attempts=2, backoff_s=0).save("quick", overwrite=True)
    return "quick"


@pytest_asyncio.fixture
async def three(make_council: Any, quick: str) -> str:
    """Name of a council of m1, m2 and m3 on the quick server."""
    name: str = await make_council(3, server=quick)
    return name


class Shown:
    """What Prefect shows, asked of its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def found(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """What the API lists: flow runs, task runs, artifacts."""
        async with self._session.post(f"{self.url}/{what}/filter", json=filters) as answer:
            found: list[dict[str, Any]] = await answer.json()
            assert answer.status == 200, found
            return found

    async def artifact(self, kind: str, deliberation_id: str) -> dict[str, Any]:
        """The newest artifact of that kind."""
        wanted = {"key": {"any_": [f"{kind}-{deliberation_id}"]}}
        return (await self.found("artifacts", artifacts=wanted, sort="CREATED_DESC"))[0]

    async def report(self, deliberation_id: str) -> str:
        """The report's Markdown."""
        return str((await self.artifact("report", deliberation_id))["data"])

    async def agent_runs(self, state: Any) -> dict[str, str]:
        """State names of the flow run's agent tasks, once every one of them has ended."""
        wanted = {"id": {"any_": [str(state.state_details.flow_run_id)]}}

        async def ended() -> dict[str, str]:
            runs = await self.found("task_runs", flow_runs=wanted)
            named = {run["name"]: run["state"] for run in runs if run["name"].startswith("propose-0 ")}
            agents = {name.removeprefix("propose-0 "): state for name, state in named.items()}
            ends = ("COMPLETED", "FAILED", "CANCELLED")  # a run whose first event is not in yet has no state
            over = agents and all(one is not None and one["type"] in ends for one in agents.values())
            return {name: one["name"] for name, one in agents.items()} if over else {}

        found: dict[str, str] = await until(ended)
        return found


@pytest_asyncio.fixture
async def shown(stack: Any) -> AsyncGenerator[Shown, None]:
    """The Prefect side of a deliberation."""
    async with aiohttp.ClientSession() as session:
        yield Shown(stack.prefect, session)


@pytest_asyncio.fixture
async def flow_process(connected: Any) -> AsyncGenerator[Any, None]:
    """Run the flow in a process of its own: `process = await flow_process(task=..., ...)`; none outlives the test."""
    started: list[asyncio.subprocess.Process] = []

    async def start(**fields: Any) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOW, json.dumps(fields))
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
