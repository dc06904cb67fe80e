"""Faults on demand: what each does to a plain answer and to a stream, and whom it befalls."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, get_args

import aiohttp
import pytest

from infra.simulator.faults import Kind

pytestmark = pytest.mark.servers

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("500", 500, ENGINE_DEAD),
        ("stream_error", 500, ENGINE_DEAD),
        ("503", 503, "The engine is currently busy"),
        ("429", 429, "Rate limit"),
        ("404_model", 404, "The model `simulated` does not exist."),
        ("too_long", 400, "This model's maximum context length is 32768 tokens."),
        ("unauthorized", 401, '"Unauthorized"'),
    ],
)
async def test_a_refusal_on_demand(running: Any, kind: str, status: int, words: str) -> None:
    """The status and the body that such a failure of vLLM has, once, then all is well."""
    async with running() as client:
        await client.fault(kind, times=1)
        first, body = await client.chat("r-1")
        second, _ = await client.chat("r-2")
        calls = await client.calls()

    assert (first, second) == (status, 200)
    assert words in json.dumps(body, ensure_ascii=False)
    assert calls["by_id"]["r-1"]["status"] == status


async def test_a_refusal_can_say_when_to_try_again(running: Any) -> None:
    """The header is sent where the rule has it."""
    async with running() as client:
        await client.fault("429", retry_after_s=3)
        path = f"{client.url}/v1/chat/completions"
        async with client.session.post(path, json={"messages": []}) as response:
            assert response.headers["Retry-After"] == "3"


async def test_a_slow_answer_comes_late_but_whole(running: Any) -> None:
    """The delay comes on top of the latency."""
    async with running() as client:
        whole = await client.content()
        await client.fault("slow", delay_s=0.3)
        before = time.monotonic()
        text = await client.content()

    assert time.monotonic() - before >= 0.3
    assert text == whole


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hanging_request_gets_no_answer(running: Any, stream: bool) -> None:
    """Not a byte comes until the client goes."""
    async with running() as client:
        await client.fault("hang")
        stuck = asyncio.create_task(client.chat("stuck", stream=stream))
        await client.until("stuck", "started_at")
        done, _ = await asyncio.wait({stuck}, timeout=0.2)
        assert not done
        stuck.cancel()
        entry = await client.until("stuck", "aborted")

    assert entry["status"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("cut_off", "length"), ("abort", "abort"), ("empty", "stop"), ("null", "stop"), ("think", "stop")],
)
async def test_a_text_is_distorted(running: Any, kind: str, reason: str, stream: bool) -> None:
    """Half, nothing, null or a thought before it, with HTTP 200 and the finish_reason of such an answer."""
    async with running() as client:
        whole = await client.content()
        await client.fault(kind)
        if stream:
            choices = [event["choices"][0] for event in (await client.stream())[:-1]]
            parts = [choice["delta"]["content"] for choice in choices[1:]]
            text = None if parts == [None] else "".join(parts)
            choice = choices[-1]
        else:
            _, body = await client.chat()
            choice = body["choices"][0]
            text = choice["message"]["content"]

    half = whole[: len(whole) // 2]
    expected = {"cut_off": half, "abort": half, "empty": "", "null": None}
    assert choice["finish_reason"] == reason
    if kind == "think":
        assert text is not None
        assert text.startswith("<think>")
        assert text.endswith(f"</think>\n\n{whole}")
    else:
        assert text == expected[kind]


async def test_a_thought_may_not_end(running: Any) -> None:
    """The tag is opened and never closed."""
    async with running() as client:
        await client.fault("think_unclosed")
        text = await client.content()

    assert text.startswith("<think>")
    assert "</think>" not in text


async def test_a_body_is_no_json_or_no_completion(running: Any) -> None:
    """HTTP 200 proves nothing."""
    async with running() as client:
        await client.fault("garbage", times=1)
        await client.fault("not_completion", times=1)
        garbage, other = await client.chat(), await client.chat()

    assert (garbage[0], other[0]) == (200, 200)
    assert isinstance(garbage[1], str)
    assert "choices" not in other[1]


async def test_a_stream_carries_no_json_or_no_completion(running: Any) -> None:
    """The same in a stream, with `[DONE]` at its end."""
    async with running() as client:
        await client.fault("garbage", times=1)
        _, text = await client.chat(stream=True)
        await client.fault("not_completion")
        other = await client.stream()

    with pytest.raises(json.JSONDecodeError):
        json.loads(text.split("\n\n")[0].removeprefix("data: "))
    assert text.endswith("data: [DONE]\n\n")
    assert "choices" not in other[0]
    assert other[-1] == "[DONE]"


async def test_an_error_comes_inside_a_stream(running: Any) -> None:
    """HTTP 200, some text, an error, and `[DONE]` all the same."""
    async with running() as client:
        await client.fault("stream_error")
        events = await client.stream()
        counted = await client.metric("request_success_total", finished_reason="error")

    assert counted == 1
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert (events[-2]["error"]["code"], events[-2]["error"]["message"]) == (500, ENGINE_DEAD)
    assert events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_closes_before_any_byte(running: Any, stream: bool) -> None:
    """The client sees a connection that was closed, the server goes on."""
    async with running() as client:
        await client.fault("close", times=1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.chat("r-1", stream=stream)
        status, _ = await client.chat("r-2")
        entry = (await client.calls())["by_id"]["r-1"]

    assert status == 200
    assert (entry["status"], entry["sent_at"]) == (None, None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_closes_midway(running: Any, stream: bool) -> None:
    """The status is 200, and the body ends before its end."""
    async with running() as client:
        await client.fault("close_midway", times=1)
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.chat(stream=stream)
        status, _ = await client.chat()
        running_now = await client.metric("num_requests_running")

    assert (status, running_now) == (200, 0)


async def test_a_server_dies_with_all_its_connections(running: Any) -> None:
    """Requests under way lose their connection, new ones are not taken."""
    async with running() as client:
        await client.fault("hang", match="^stuck$")
        await client.fault("die", match="^last$")
        stuck = asyncio.create_task(client.chat("stuck"))
        await client.until("stuck", "started_at")
        with pytest.raises(aiohttp.ClientError):
            await client.chat("last")
        with pytest.raises(aiohttp.ClientError):
            await stuck
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.chat("next")


async def test_a_rule_befalls_whom_it_names(running: Any) -> None:
    """By a pattern of the request's id, by a text of the prompt, and never more often than said."""
    async with running() as client:
        await client.fault("500", match=r"member-2$", times=1)
        await client.fault("429", contains="Dead letter")
        statuses = [
            (await client.chat("member-1"))[0],
            (await client.chat("member-2"))[0],
            (await client.chat("member-2"))[0],
            (await client.chat("member-1", messages=[{"role": "user", "content": "Dead letter queue"}]))[0],
        ]
        _, listed = await client.send("GET", "/sim/faults")

    assert statuses == [200, 500, 200, 429]
    assert [rule["served"] for rule in listed["faults"]] == [1, 1]


async def test_a_probability_strikes_some(running: Any) -> None:
    """Neither all nor none of many requests, and the same ones in every run."""
    runs = []
    for _ in range(2):
        async with running() as client:
            await client.fault("503", probability=0.5)
            runs.append([(await client.chat(max_tokens=1))[0] for _ in range(30)])

    assert set(runs[0]) == {200, 503}
    assert runs[0] == runs[1]


async def test_faults_can_be_ended(running: Any) -> None:
    """Afterwards all is well."""
    async with running() as client:
        await client.fault("500")
        before, _ = await client.chat()
        _, left = await client.send("DELETE", "/sim/faults")
        after, _ = await client.chat()

    assert (before, after, left) == (500, 200, {"faults": []})


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [
        ({"kind": "bang"}, "kind", ", ".join(get_args(Kind))),
        ({}, "kind", "must be one of"),
        ({"kind": "slow"}, "delay_s", "in seconds"),
        ({"kind": "500", "times": 0}, "times", "greater than or equal to 1"),
        ({"kind": "500", "probability": 2}, "probability", "less than or equal to 1"),
        ({"kind": "500", "match": "("}, "match", "must be a regular expression"),
        ({"kind": "500", "tims": 1}, "tims", "must be one of kind, match, contains, times"),
        ([], None, "must be"),
    ],
)
async def test_a_wrong_rule_is_refused(running: Any, rule: Any, field: str | None, words: str) -> None:
    """The answer names the field and what would be right."""
    async with running() as client:
        status, body = await client.send("POST", "/sim/faults", rule)

    assert (status, body["error"]["param"]) == (400, field)
    assert words in body["error"]["message"]
    assert field is None or body["error"]["message"].startswith(f"{field}: ")
