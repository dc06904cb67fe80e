"""The one workload of all peers: the same prompts to the same server, and what that server saw of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from blocks.chat import ChatCall, chat_payload
from blocks.model_http import KEEPALIVE_S
from deployments.bench.samples import Sample
from tasks.council.answer import seed_of
from tasks.council.council import Member
from tasks.council.models import DeliberationRequest, Item
from tasks.council.prompts.propose import propose_messages, temperature_of
from tasks.council.proposal import Proposal

TASK = "Write a Python function to merge sorted arrays"
REQUIREMENTS = ("Use type hints", "Add docstring")


def item() -> Item:
    """The item that every council of the benchmark decides."""
    return DeliberationRequest(task=TASK, requirements=REQUIREMENTS).agenda()[0]


class ModelServer:
    """The simulator as a plain aiohttp client has it: connections are kept, and not bounded."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str, key: Mapping[str, str]) -> None:
        """`key` is the header that the server asks for."""
        self._session, self._url, self._model, self._key = session, url, model, dict(key)

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """A session fit for it; aiohttp sets TCP_NODELAY by itself."""
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S))

    def body(self, member: Member, request_id: str) -> bytes:
        """The request that asks a member for its proposal, as our own agent would send it."""
        call = ChatCall(
            messages=propose_messages(member, item()),
            request_id=request_id,
            seed=seed_of(request_id),
            temperature=temperature_of(member),
            max_tokens=member.max_tokens,
        )
        return json.dumps(chat_payload(call, self._model, None, False, {})).encode()

    async def ask(self, request_id: str, body: bytes) -> bytes:
        """One answer, whole."""
        headers = {"X-Request-Id": request_id, "Content-Type": "application/json", **self._key}
        url = f"{self._url}/v1/chat/completions"
        async with self._session.post(url, data=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def open(self, connections: int) -> None:
        """Open so many connections, so that none has to be opened inside the clock; and forget earlier calls."""

        async def touch() -> None:
            async with self._session.get(f"{self._url}/health") as answer:
                await answer.read()

        await self.forget()
        await asyncio.gather(*(touch() for _ in range(connections)))

    async def forget(self) -> None:
        """Clear the book of calls, so that reading it stays cheap."""
        async with self._session.delete(f"{self._url}/sim/calls", headers=self._key) as answer:
            await answer.read()

    async def sample(self, run_id: str, called: float, started: float, ended: float) -> Sample:
        """The sample of a run, from its moments (epoch seconds) and the server's book."""
        async with self._session.get(f"{self._url}/sim/calls", headers=self._key) as answer:
            book: list[dict[str, Any]] = (await answer.json())["requests"]
        calls = [call for call in book if str(call["request_id"]).startswith(f"{run_id}:")]
        received = [call["received_at"] for call in calls]
        sent = [call["sent_at"] for call in calls]
        return Sample(
            wall_s=ended - started,
            call_s=ended - called,
            spread_s=max(received) - min(received),
            tail_s=ended - max(sent),
            server_s=max(sent) - min(received),
        )


def proposal_of(member: Member, answer: Mapping[str, Any]) -> Proposal:
    """A member's proposal, by the server's answer in the form of OpenAI's chat completions."""
    choice = answer["choices"][0]
    return Proposal(
        content=choice["message"]["content"],
        author_id=member.agent_id,
        author_role=member.role,
        model=answer["model"],
        tokens=answer["usage"]["completion_tokens"],
        finish_reason=choice["finish_reason"],
    )
