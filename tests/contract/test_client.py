"""The product's own client against the server: what it gives, what it takes for final, and what it leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.servers import CONTEXT, HELLO, SLOTS, Asking, Client, Server

pytestmark = pytest.mark.servers

own_server = pytest.mark.own_server


@pytest.fixture
def ask(importable_prefect: None, server: Server) -> Any:
    """One call through the block: `await ask(attempts=1, call={...})`; Prefect, which it is, is importable."""
    return Asking(server)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_comes_through(ask: Any, server: Server, stream: bool) -> None:
    """Text, tokens and model, whichever way it is read; the engine is told by the server."""
    answer = await ask(stream=stream, call={"max_tokens": 16, "extra": {"ignore_eos": True}})

    assert answer.content
    assert (answer.finish_reason, answer.model) == ("length", server.model)
    assert (answer.usage.completion_tokens, answer.usage.prompt_tokens > 0) == (16, True)
    assert answer.engine == (server.engine or answer.engine)


async def test_the_model_is_the_one_that_the_server_lists(ask: Any, client: Client) -> None:
    """Where neither the block nor the call names one."""
    first = (await client.send("GET", "/v1/models")).body["data"][0]["id"]

    assert (await ask(model=None, call={"model": None, "max_tokens": 2})).model == first


@own_server
async def test_cached_tokens_are_read(ask: Any) -> None:
    """From the details of the usage."""
    messages = [{"role": "user", "content": "You may reproduce and distribute copies of the Work " * 12}]
    for _ in range(2):
        answer = await ask(call={"messages": messages, "max_tokens": 4})

    assert 0 < answer.usage.cached_tokens < answer.usage.prompt_tokens


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"api_key": "sk-wrong"}, {}, "HTTP 401: Unauthorized"),
    ({}, {"model": "nope"}, "HTTP 404: The model `nope` does not exist"),
    ({}, {"messages": [{"role": "user", "content": "word " * 3_000}]}, "HTTP 400: This model's maximum context"),
    ({}, {"max_tokens": CONTEXT + 1}, f"HTTP 400: max_tokens={CONTEXT + 1} cannot be greater than"),
    ({}, {"temperature": 9.0}, "HTTP 400: temperature must be in"),
    ({}, {"messages": []}, "HTTP 400: Cannot apply chat template"),
    ({}, {"extra": {"priority": "high"}}, "HTTP 400: 1 validation error"),
    ({}, {"extra": {"structured_outputs": {"json": {"type": "objekt"}}}}, "HTTP 400: Grammar error"),
    ({"stream": True}, {"max_tokens": 0}, "HTTP 400: max_tokens must be at least 1"),
]


@own_server
@pytest.mark.parametrize(("block", "call", "words"), REFUSED)
async def test_what_is_wrong_with_a_call_is_not_tried_again(
    ask: Any, block: dict[str, Any], call: dict[str, Any], words: str
) -> None:
    """One attempt, one error, and the server's own words in it."""
    from blocks.exceptions import ModelServerRefused

    with pytest.raises(ModelServerRefused) as refused:
        await ask(**block, call=call)

    assert words in str(refused.value)
    assert len(ask.failed) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_ends_the_request_in_the_server(ask: Any, client: Client, stream: bool) -> None:
    """Nobody waits for it, so nothing computes it."""
    long = {"max_tokens": 1_900, "extra": {"ignore_eos": True}}
    async with client.busy(4):
        with pytest.raises(TimeoutError):
            await ask(stream=stream, deadline_s=0.3, call=long)
    await client.until("num_requests_running", lambda running: running == 0)


@own_server
async def test_a_cancelled_call_gives_up_its_place(ask: Any, client: Client) -> None:
    """Of one that waits, and of one that runs."""
    long = {"max_tokens": 1_900, "extra": {"ignore_eos": True}}
    async with client.busy(SLOTS):
        waiting = asyncio.create_task(ask(call=long))
        await client.until("num_requests_waiting", lambda count: count == 1)
        waiting.cancel()
        await client.until("num_requests_waiting", lambda count: count == 0)
    running = asyncio.create_task(ask(call=long))
    await client.until("num_requests_running", lambda count: count == 1)
    running.cancel()
    await client.until("num_requests_running", lambda count: count == 0)

    ended = await asyncio.gather(waiting, running, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2


@own_server
async def test_a_priority_reaches_the_server(ask: Any, client: Client) -> None:
    """The block's own, ahead of those that wait already."""
    order: list[str] = []

    async def asked(name: str, priority: int) -> None:
        await ask(priority=priority, call={"messages": HELLO, "max_tokens": 4})
        order.append(name)

    async with client.busy(SLOTS) as fillers:
        late = asyncio.create_task(asked("late", 7))
        await client.until("num_requests_waiting", lambda count: count == 1)
        urgent = asyncio.create_task(asked("urgent", 0))
        await client.until("num_requests_waiting", lambda count: count == 2)
        fillers[0].cancel()
        await asyncio.gather(late, urgent)

    assert order == ["urgent", "late"]
