"""What the tests of the flow share: a council that gives up quickly, and views of NATS, Prefect and the clock."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest_asyncio

TASK = "Write a function to merge sorted arrays"

FLOW = """
import asyncio, json, sys
from blocks.connections import connections
from blocks.prefect_api import prefect_clients
from flows.deliberate import deliberate

async def main():
    async with prefect_clients(), connections():
        await deliberate(**json.loads(sys.argv[1]), return_state=True)

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="session")
async def practised(connected: Any) -> None:
    """One deliberation is over: a host imports what a task needs with its first one, which may outlast a deadline."""
    from flows.deliberate import deliberate

    await deliberate(task=TASK, council="dev", members=4, return_state=True)


@pytest_asyncio.fixture
async def quick(stack: Any, practised: None) -> str:
    """Name of a block for the simulator that tries twice, at once."""
    from blocks.vllm_server import VLLM

    await VLLM(
        base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model, attempts=2, backoff_s=0
    ).save("quick", overwrite=True)
    return "quick"


@pytest_asyncio.fixture
async def three(make_council: Any, quick: str) -> str:
    """Name of a council of m1, m2 and m3 on the quick server."""
    name: str = await make_council(3, server=quick)
    return name


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
