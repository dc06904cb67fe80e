"""How a server ends in the middle of requests, what a client sees of it, and what the product makes of that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from typing import Any

import aiohttp
import pytest

from tests.contract.servers import Asking, Client, Server

pytestmark = [pytest.mark.own_server, pytest.mark.servers]

DEAD = {
    "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "type": "InternalServerError",
    "param": None,
    "code": 500,
}
LONG = {"max_tokens": 1_900, "extra": {"ignore_eos": True}}


async def under_way(server: Server, end: Any, patience_s: float = 120) -> tuple[list[Any], list[Any]]:
    """A plain request, a stream and two calls of the product are under way when `end` comes: what became of each."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience_s)) as session:
        client = Client(server, session)
        requests = [client.long(request_id="plain"), client.long(request_id="stream", stream=True)]
        given = {"attempts": 1, "call": LONG, "deadline_s": patience_s}
        calls = [Asking(server)(stream=stream, **given) for stream in (False, True)]
        tasks = [asyncio.create_task(one) for one in (*requests, *calls)]
        await client.until("num_requests_running", lambda running: running == len(tasks))
        await end(client)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    return ended[:2], ended[2:]


def events(reply: Any) -> list[Any]:
    """The events of a stream, `[DONE]` as that text."""
    texts = [line.removeprefix("data: ") for line in str(reply.body).split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def assert_worth_another_attempt(calls: list[Any], *besides: type[Exception]) -> None:
    """Whatever a server says while it goes, no answer of it passes for a whole one."""
    from blocks.exceptions import ModelServerUnavailable

    assert all(isinstance(call, (ModelServerUnavailable, *besides)) for call in calls), calls


async def test_an_engine_that_dies_fails_what_it_worked_on(importable_prefect: None, mortal: Any) -> None:
    """500 for a plain request; a stream had its 200, so the error comes inside it, and then `[DONE]` all the same."""
    with mortal() as server:
        if server.kind == "simulator":
            rule = json.dumps({"kind": "stream_error"}).encode()
            order = urllib.request.Request(f"{server.url}/sim/faults", rule, {"Authorization": f"Bearer {server.key}"})
            urllib.request.urlopen(order, timeout=20).close()

        async def end(client: Client) -> None:
            for worker in server.processes("VLLM::Worker"):
                worker.kill()

        (plain, stream), calls = await under_way(server, end)

    assert (plain.status, plain.error) == (500, DEAD)
    *chunks, error, done = events(stream)
    assert (stream.status, error, done) == (200, {"error": DEAD}, "[DONE]")
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * len(chunks)
    assert_worth_another_attempt(calls)


async def test_a_server_that_is_killed_resets_its_connections(importable_prefect: None, mortal: Any) -> None:
    """Nothing is answered any more."""
    with mortal() as server:

        async def end(client: Client) -> None:
            os.kill(server.group, signal.SIGKILL)

        requests, calls = await under_way(server, end)

    assert all(isinstance(request, aiohttp.ClientError) for request in requests), requests
    assert_worth_another_attempt(calls)


async def test_a_server_that_is_stopped_breaks_off(importable_prefect: None, mortal: Any) -> None:
    """It says so in one of these ways, or not at all: some runs of vLLM leave connections open that nobody answers."""
    with mortal() as server:

        async def end(client: Client) -> None:
            os.kill(server.group, signal.SIGTERM)

        (plain, stream), calls = await under_way(server, end, patience_s=30)

    if not isinstance(plain, aiohttp.ClientError | TimeoutError):
        broken_off = plain.status == 200 and plain.body["choices"][0]["finish_reason"] == "abort"
        assert broken_off or (plain.status, plain.error) == (500, DEAD)
    if not isinstance(stream, aiohttp.ClientError | TimeoutError):
        *_, last, done = events(stream)
        assert done == "[DONE]"
        assert last == {"error": DEAD} or last["choices"][0]["finish_reason"] == "abort"
    assert_worth_another_attempt(calls, TimeoutError)
