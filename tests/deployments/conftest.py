"""What the tests of the warm worker share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.deployments.warm_worker import Worker, working


@pytest.fixture
def impatient(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker ends soon, and what it hands back comes soon."""
    from deployments.worker import failures, runs, service

    monkeypatch.setattr(service, "TAKE_S", 0.2)
    for module in (failures, runs):
        monkeypatch.setattr(module, "LEASE_S", 0.5)


@pytest_asyncio.fixture
async def worker(connected: Any, impatient: None) -> AsyncGenerator[Worker, None]:
    """A worker's flows' loop, ready, drained after the test."""
    async with working(connected) as found:
        yield found
