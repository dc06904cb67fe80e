"""Which server the contract is held against: the simulator, unless CONTRACT_SERVER says `vllm` or gives a URL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.contract.servers import Client, Server, foreign, started

CHOSEN = os.environ.get("CONTRACT_SERVER") or "simulator"
KIND = CHOSEN if CHOSEN in ("simulator", "vllm") else "foreign"
HERE = Path(__file__).parent
LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "own_server: needs a server that was started with this suite's options")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A model server takes its time to start; a foreign one is not asked what depends on its options."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(900))
    if KIND == "foreign":
        left_out = [item for item in ours if item.get_closest_marker("own_server")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT] = len(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    said = f"contract: held against {CHOSEN}"
    if left_out := config.stash.get(LEFT_OUT, 0):
        said += f"; {left_out} tests left out, which need options of the server that this suite gives, or end it"
    if KIND == "simulator":
        said += "; `make test-vllm` holds it against a real vLLM"
    terminalreporter.write_line(said)


@pytest.fixture(scope="session", params=[KIND])
def server(request: pytest.FixtureRequest) -> Generator[Server, None, None]:
    """The server that the tests share."""
    if request.param == "foreign":
        yield foreign(CHOSEN)
        return
    with started(request.param) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """A client of the shared server."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        yield Client(server, session)


@pytest.fixture
def mortal(server: Server) -> Callable[[], AbstractContextManager[Server]]:
    """Starts a second server of the same kind, for a test that ends it."""
    return partial(started, server.kind)
