"""A warm worker under test: what is put into its queue, and what it tells and leaves behind."""

from __future__ import annotations

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


async def is_ready(thread: Any) -> bool:
    """Whether a worker's flows' loop takes requests."""
    return bool(thread.ready)
