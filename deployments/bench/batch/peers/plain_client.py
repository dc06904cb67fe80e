"""The floor: a plain aiohttp client with a full window, and nothing around it.

Where members rank, it sends the ballots of an item as soon as its proposals are in, before any further proposal: what
the dependences of the calls allow.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from blocks.background import background
from blocks.model_http import KEEPALIVE_S
from deployments.bench.batch.peers.protocol import Job, Work, authorization, serve

FOLLOW_S = 0.02


class Asked(NamedTuple):
    """A call that is ready to be sent."""

    item: str
    member: str
    request_id: str
    body: bytes
    last: bool = True
    """Whether nothing follows from its answer."""


class Calls:
    """The calls in the order in which they are sent: those that others' answers made possible come first."""

    def __init__(self, job: Job) -> None:
        self._reviews = Reviews(job) if job.reviews else None
        self._proposals: Iterator[Asked] = (
            Asked(**head, body=body, last=not job.reviews) for head, body in job.lines()
        )
        self._ready: deque[Asked] = deque()
        self._under_way = 0
        self._arrived = asyncio.Condition()

    async def next(self) -> Asked | None:
        """The next call, once there is one; None where none will follow."""
        while True:
            if (call := self._ready.popleft() if self._ready else next(self._proposals, None)) is not None:
                self._under_way += not call.last
                return call
            if not self._under_way:
                return None
            async with self._arrived:
                await self._arrived.wait()

    async def answered(self, call: Asked, body: bytes) -> None:
        """What follows from an answer is ready now."""
        if call.last or self._reviews is None:
            return
        self._ready.extend(self._reviews.after(call, body))
        self._under_way -= 1
        async with self._arrived:
            self._arrived.notify_all()


class Reviews:
    """Makes the ballots' calls of an item of its proposals, as our own agents do."""

    def __init__(self, job: Job) -> None:
        from deployments.bench.batch.workload import Questions
        from tasks.council.council import CouncilSpec

        self._council = CouncilSpec.model_validate(job.council)
        self._questions = Questions(self._council)
        self._model = job.model
        self._texts: dict[str, dict[str, str]] = {}

    def after(self, call: Asked, body: bytes) -> list[Asked]:
        """The calls that this answer was the last to make possible."""
        texts = self._texts.setdefault(call.item, {})
        texts[call.member] = json.loads(body)["choices"][0]["message"]["content"]
        if len(texts) < len(self._council.members):
            return []
        return list(self._ballots(call, self._texts.pop(call.item)))

    def _ballots(self, call: Asked, texts: dict[str, str]) -> Iterator[Asked]:
        from blocks.chat import ChatCall, chat_payload
        from deployments.bench.batch.workload import row_of
        from tasks.council.answer import answer_id, seed_of
        from tasks.council.progress.stage_end import salt_of
        from tasks.council.prompt_texts import BUILT_IN
        from tasks.council.prompts.ballot_forms import ballot_form
        from tasks.council.prompts.propose import temperature_of
        from tasks.council.voting.ballots import sheets

        asked, stage, run_id = self._questions.item(row_of(call.item)), "review-0", call.request_id.partition(":")[0]
        salt = salt_of(run_id, call.item, stage)
        drawn = sheets(sorted(texts), sorted(texts), salt)
        for member in self._council.members:
            sheet = drawn[member.agent_id]
            form = ballot_form(asked, False, BUILT_IN, member, sheet)
            request_id = answer_id(run_id, call.item, stage, member.agent_id)
            schema = {"name": "ballot", "schema": form.schema(sheet), "strict": True}
            review = ChatCall(
                messages=form.messages(member, asked, sheet, texts, salt),
                request_id=request_id,
                seed=seed_of(request_id),
                temperature=temperature_of(member),
                max_tokens=member.max_tokens,
                extra={"response_format": {"type": "json_schema", "json_schema": schema}},
            )
            payload = chat_payload(review, self._model, None, False, {})
            yield Asked(call.item, member.agent_id, request_id, json.dumps(payload).encode())


class Client:
    """So many calls at once as the window allows; a window may change meanwhile."""

    def __init__(self, job: Job, session: aiohttp.ClientSession) -> None:
        self._job, self._session = job, session
        self._calls = Calls(job)
        self._window = job.slots
        self._lanes = 0
        self._answered = 0

    async def work(self) -> int:
        """All calls; each lane of the window makes one after another."""
        async with background(*([self._follow()] if self._job.follow else [])), asyncio.TaskGroup() as self._group:
            self._fill()
        return self._answered

    def _fill(self) -> None:
        while self._lanes < self._window:
            self._lanes += 1
            self._group.create_task(self._lane())

    async def _lane(self) -> None:
        while self._lanes <= self._window and (call := await self._calls.next()) is not None:
            body = await self._ask(call)
            self._answered += 1
            await self._calls.answered(call, body)
        self._lanes -= 1

    async def _ask(self, call: Asked) -> bytes:
        headers = {"X-Request-Id": call.request_id, "Content-Type": "application/json"}
        async with self._session.post(self._job.endpoint, data=call.body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _follow(self) -> None:
        while True:
            async with self._session.get(f"{self._job.url}/sim/pace") as answer:
                self._window = (await answer.json())["slots"]
            self._fill()
            await asyncio.sleep(FOLLOW_S)

    async def open(self) -> None:
        """Open the connections, so that none has to be opened inside the clock."""

        async def touch() -> None:
            async with self._session.get(f"{self._job.url}/health") as answer:
                await answer.read()

        await asyncio.gather(*(touch() for _ in range(self._job.slots)))


@asynccontextmanager
async def opened_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a bound of its own; aiohttp sets TCP_NODELAY by itself."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    async with aiohttp.ClientSession(
        connector=connector, headers=authorization(), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        yield session


@asynccontextmanager
async def floor(job: Job) -> AsyncGenerator[Work, None]:
    """The floor, its connections open."""
    async with opened_session() as session:
        client = Client(job, session)
        await client.open()
        yield client.work


if __name__ == "__main__":
    serve(floor)
