"""What the acceptance tests share. They run on the session's stack: on the simulator, or on the model server that
ACCEPTANCE_LLM_URL names (`make acceptance CONCLAVE_LLM_URL=...`)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

HERE = Path(__file__).parent
LIVE = os.environ.get("ACCEPTANCE_LLM_URL")
LIVE_TIMEOUT_S = 1_200
GENERATED = re.compile(r"^vllm:generation_tokens_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A live model may take minutes for what the simulator writes at once."""
    for item in items:
        if LIVE and HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(LIVE_TIMEOUT_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = f"on the model server {LIVE}" if LIVE else "on the SIMULATOR, whose texts are made up"
    more = "" if LIVE else "; `make acceptance CONCLAVE_LLM_URL=http://host:8000` asks a live model"
    terminalreporter.write_line(f"acceptance: {told}{more}")


@pytest_asyncio.fixture(scope="session", autouse=True)
async def practised(connected: Any) -> None:
    """One deliberation is over: a host imports what a task needs with its first one, which may outlast a deadline."""
    from flows.deliberate import deliberate

    await deliberate(task="Name the service", members=5, return_state=True)


@pytest.fixture
def rehearsal(stack: Any, request: pytest.FixtureRequest) -> Any:
    """The simulator, None with a live model."""
    return request.getfixturevalue("simulator") if stack.simulated else None


@pytest.fixture
def faults(rehearsal: Any) -> Any:
    """The simulator, for a test that needs something to go wrong on demand or the book of calls."""
    if rehearsal is None:
        pytest.skip("needs faults on demand and a book of calls, which only the simulator has")
    return rehearsal


@pytest_asyncio.fixture
async def generated(stack: Any) -> AsyncGenerator[Callable[[], Awaitable[int]], None]:
    """`await generated()`: how many tokens the model server says it has generated."""
    key = os.environ.get("CONCLAVE_LLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def count() -> int:
            async with session.get(f"{stack.llm}/metrics") as answer:
                samples = GENERATED.findall(await answer.text())
            if not samples:
                pytest.skip("the model server does not count its tokens in vllm:generation_tokens_total")
            return int(sum(map(float, samples)))

        yield count


@pytest.fixture
def decided(record: Any) -> Callable[[str], Awaitable[list[dict[str, Any]]]]:
    """`await decided(id)`: every decision that stands on the record under an id."""

    async def read(deliberation_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = 0
        while (event := await record.next(f"decisions.{deliberation_id}.*", after)) is not None:
            after = event.sequence
            found.append(event.body)
        return found

    return read
