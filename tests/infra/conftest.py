"""A client for the simulator, and a simulator in this process for each test that asks for one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from infra.simulator import FaultRule, SimulatorSettings, simulator

TASK = "Implement a rate limiter for an API using token bucket algorithm"
REQUIREMENTS = (
    "Use token bucket algorithm",
    "Include docstrings",
    "Handle edge cases",
    "Keep it thread-safe",
    "Name the limits",
)


def council_messages(task: str = TASK, role: str = "DEV") -> list[dict[str, str]]:
    """The conversation that the product sends."""
    wanted = "\n".join(f"- {requirement}" for requirement in REQUIREMENTS)
    user = f"# Task\n{task}\n\n# Context\nnone\n\n# Rubric\nclean code\n\n# Requirements\n{wanted}\n\n"
    return [
        {"role": "system", "content": "You sit in a council."},
        {"role": "user", "content": f"{user}# Your role\n{role}: ..."},
    ]


class Client:
    """What the tests ask of a simulator."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body of a request; the body as JSON where it is JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        async with self.session.request(method, f"{self.url}{path}", data=data, headers=headers) as response:
            text = await response.text()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    async def chat(self, request_id: str | None = None, **fields: Any) -> tuple[int, Any]:
        """A plain request for a completion."""
        body = {"messages": council_messages(), "seed": 1, **fields}
        headers = {"X-Request-Id": request_id} if request_id else None
        return await self.send("POST", "/v1/chat/completions", body, headers)

    async def content(self, **fields: Any) -> str:
        """The text of a completion."""
        status, body = await self.chat(**fields)
        assert status == 200, body
        text: str = body["choices"][0]["message"]["content"]
        return text

    async def stream(self, request_id: str | None = None, **fields: Any) -> list[Any]:
        """The events of a stream, `[DONE]` as that text."""
        body = {"messages": council_messages(), "seed": 1, "stream": True, **fields}
        _, text = await self.chat(request_id, **body)
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    async def fault(self, kind: str, **fields: Any) -> None:
        """Puts a fault on."""
        status, body = await self.send("POST", "/sim/faults", {"kind": kind, **fields})
        assert status == 200, body

    async def calls(self) -> dict[str, Any]:
        """The book of calls, with the requests by their id."""
        _, book = await self.send("GET", "/sim/calls")
        return {**book, "by_id": {entry["request_id"]: entry for entry in book["requests"]}}

    async def until(self, request_id: str, field: str) -> dict[str, Any]:
        """The entry of a call once the field is set."""
        async with asyncio.timeout(20):
            while True:
                entry = (await self.calls())["by_id"].get(request_id, {})
                if entry.get(field):
                    return dict(entry)
                await asyncio.sleep(0.01)

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of /metrics."""
        _, page = await self.send("GET", "/metrics")
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in page.splitlines():
            if line.startswith(f"vllm:{name}{{") and all(label in line for label in wanted):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name} {labels}")


Start = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def running() -> Start:
    """Starts a simulator without latency; keywords are its settings."""

    @asynccontextmanager
    async def start(*faults: FaultRule, **settings: Any) -> AsyncIterator[Client]:
        chosen = SimulatorSettings(**{"latency_s": 0, "faults": faults, **settings})
        timeout = aiohttp.ClientTimeout(total=30)
        async with simulator(chosen) as server, aiohttp.ClientSession(timeout=timeout) as session:
            yield Client(server.url, session)

    return start
