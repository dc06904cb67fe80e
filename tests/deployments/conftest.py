"""What the tests of the warm worker share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import until
from tests.deployments.warm_worker import Worker, is_ready


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
    from prefect.logging import get_logger

    from deployments.settings import load_settings
    from deployments.stack.ports import free_port
    from deployments.worker.flows_thread import FlowsThread
    from deployments.worker.stalls import LoopWatch

    address = f"127.0.0.1:{free_port(19000)}"
    settings = load_settings().model_copy(update={"worker_health": address, "worker_drain_s": 20.0, "worker_batch": 1})
    log = get_logger("test-worker")
    watch = LoopWatch(log)
    watch.start()
    thread = FlowsThread(settings, "conclave", 8, log, watch)
    thread.start()
    found = Worker(thread, connected, address)
    try:
        await until(lambda: is_ready(thread))
        yield found
    finally:
        await thread.stop()
        watch.close()
    assert thread.failure is None
