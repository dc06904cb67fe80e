"""A warm worker under test: what is put into its queue, and what it tells and leaves behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.conftest import until

TASK = "Write a function to merge sorted arrays"


class Worker:
    """The flows' loop of a worker, and what the record and Prefect say of what it runs."""

    def __init__(self, thread: Any, record: Any, health: str) -> None:
        self.thread, self.record, self.health = thread, record, health

    async def ask(self, one: str, **request: Any) -> bool:
        """Put a request into the queue."""
        from tasks.deliberations.submit import Request, enqueue

        fields = {"parameters": {"task": TASK}, "door": "gateway", **request}
        return (await enqueue(self.record, Request(id=one, **fields))).queued

    async def finished(self, one: str) -> dict[str, Any]:
        """Its final event, once the request has left the queue."""
        from tasks.deliberations.submit import queued

        async def done() -> Any:
            event = await self.record.last(f"deliberations.{one}.finished")
            return event if event and not await queued(self.record, one) else None

        return dict((await until(done)).body)

    async def told(self) -> tuple[int, dict[str, Any]]:
        """What its health endpoint answers."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.health}/healthz") as answer:
            return answer.status, await answer.json()


def body_of(one: str, **fields: Any) -> dict[str, Any]:
    """The body of a message in the queue, as it was before there were versions."""
    return {"id": one, "parameters": {"task": TASK}, "door": "planning", **fields}


async def buried_of(worker: Worker, prefix: str) -> list[Any]:
    """The dead letters of subjects that begin so."""
    from blocks.record.dead_letters import dead_letters

    subject = f"requests.{prefix}"
    return [letter async for letter in dead_letters(worker.record) if letter.subject.startswith(subject)]


@asynccontextmanager
async def working(record: Any, pool: str = "conclave", **settings: Any) -> AsyncGenerator[Worker, None]:
    """A worker's flows' loop, ready while the block runs, then drained; the lane `batch` has one place."""
    from prefect.logging import get_logger

    from deployments.settings import load_settings
    from deployments.stack.ports import free_port
    from deployments.worker.flows_thread import FlowsThread
    from deployments.worker.stalls import LoopWatch

    address = f"127.0.0.1:{free_port(19000)}"
    given = {"worker_health": address, "worker_drain_s": 20.0, "worker_batch": 1, **settings}
    log = get_logger("test-worker")
    watch = LoopWatch(log)
    watch.start()
    thread = FlowsThread(load_settings().model_copy(update=given), pool, 8, log, watch)
    thread.start()
    try:
        await until(lambda: is_ready(thread))
        yield Worker(thread, record, address)
    finally:
        await thread.stop()
        watch.close()
    assert thread.failure is None


async def is_ready(thread: Any) -> bool:
    """Whether a worker's flows' loop takes requests."""
    return bool(thread.ready)
