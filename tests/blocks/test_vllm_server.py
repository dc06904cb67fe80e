"""The model server's block against real servers: answers, retries, deadlines, and what it never tells."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from typing import Any

import pytest
from aiohttp import web

pytestmark = pytest.mark.servers

KEY = "sk-very-secret-0123456789"
PREFIX = KEY[:8]


def completion(content: Any = "hello", **fields: Any) -> dict[str, Any]:
    """A body as vLLM gives it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, **fields}


def events(*chunks: Any) -> bytes:
    """A stream with these events."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def delta(content: Any, finish_reason: Any = None) -> dict[str, Any]:
    """One chunk of a stream."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}]}


def body_of(data: bytes) -> Any:
    """A handler that answers 200 with this body."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=data)

    return answer


# --- answers --------------------------------------------------------------------------------------


async def test_an_answer_says_what_was_said_and_by_whom(simulated: Any) -> None:
    """Content, tokens, model and engine come through."""
    async with simulated(model="tiny") as asker:
        answer = await asker.ask(model="tiny")

    assert "merge sorted arrays" in answer.content
    assert (answer.finish_reason, answer.model, answer.engine) == ("stop", "tiny", "simulator")
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert asker.failed == []


async def test_streaming_gives_the_same_answer(simulated: Any) -> None:
    """How it is read changes neither the text nor the count of tokens."""
    async with simulated() as asker:
        whole = await asker.ask(stream=False)
        streamed = await asker.ask(stream=True)

    assert streamed == whole


async def test_the_model_is_the_first_that_the_server_lists_where_none_is_named(simulated: Any) -> None:
    """The call's own comes before the block's, and the block's before the server's."""
    async with simulated(model="listed") as asker:
        assert await asker.block().resolve_model() == "listed"
        assert await asker.block(model="set").resolve_model() == "set"
        assert await asker.block(model="set").resolve_model("wanted") == "wanted"
        assert (await asker.ask()).model == "listed"


async def test_a_wrong_model_is_refused_by_name_and_not_tried_again(simulated: Any) -> None:
    """The error names the model that does not exist and those that do."""
    from blocks.exceptions import ModelServerRefused

    async with simulated(model="tiny") as asker:
        with pytest.raises(ModelServerRefused, match=r"HTTP 404.*`nope`.*tiny"):
            await asker.ask(model="nope")
        book = await asker.book()

    assert len(book) == 1


@pytest.mark.parametrize(
    ("owner", "engine"), [("vllm", "vllm"), ("conclave-simulator", "simulator"), ("organization", "openai")]
)
async def test_a_server_is_told_by_the_owner_of_its_models_and_asked_once(
    answering: Any, owner: str, engine: str
) -> None:
    """What it lists is kept, so that a council does not ask again for every call."""
    asked = []

    async def models(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"data": [{"id": "m", "owned_by": owner}]})

    async with answering(body_of(json.dumps(completion()).encode()), models) as asker:
        server = asker.block()
        answers = [await asker.ask(server=server) for _ in range(3)]

    assert {answer.engine for answer in answers} == {engine}
    assert asked == ["/v1/models"]


async def test_the_request_carries_the_calls_and_the_blocks_fields(answering: Any) -> None:
    """Further fields of block and call, a priority only if set, and the id in the header."""
    seen: list[dict[str, Any]] = []

    async def record(request: web.Request) -> web.Response:
        seen.append({**(await request.json()), "id": request.headers["X-Request-Id"]})
        return web.json_response(completion())

    async with answering(record) as asker:
        await asker.ask(request_id="d:i:propose-0:m", extra_body={"top_k": 5}, call={"extra": {"min_p": 0.1}})
        await asker.ask(priority=3)
        await asker.ask(priority=3, call={"may_wait": True})
        await asker.ask(call={"may_wait": True})

    assert {"top_k": 5, "min_p": 0.1, "model": "m", "seed": 1, "id": "d:i:propose-0:m"}.items() <= seen[0].items()
    assert [body.get("priority") for body in seen] == [None, 3, 13, None]


async def test_a_stream_may_come_in_one_long_line(answering: Any) -> None:
    """A chunk above aiohttp's own limit of a line is read whole."""
    text = "x" * 3_000_000
    async with answering(body_of(events(delta(text, "stop")))) as asker:
        answer = await asker.ask(stream=True)

    assert answer.content == text


# --- attempts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("500", "HTTP 500: EngineCore encountered an issue"),
        ("503", "HTTP 503: The engine is currently busy"),
        ("429", "HTTP 429: Rate limit exceeded"),
        ("close", "Server disconnected"),
        ("close_midway", "payload is not completed"),
        ("garbage", "no completion: '{this is no JSON'"),
        ("abort", "finish_reason abort"),
    ],
)
async def test_what_may_pass_is_tried_again_until_it_has(simulated: Any, kind: str, words: str, stream: bool) -> None:
    """Two attempts come to nothing, each is heard of with its number, the third answers."""
    from blocks.exceptions import ModelServerUnavailable

    async with simulated({"kind": kind, "times": 2}) as asker:
        answer = await asker.ask(stream=stream)
        book = await asker.book()

    assert "merge sorted arrays" in answer.content
    assert [attempt for attempt, _ in asker.failed] == [1, 2]
    assert {type(error) for _, error in asker.failed} == {ModelServerUnavailable}
    assert all(words in str(error) and str(error).startswith(asker.url) for _, error in asker.failed), asker.failed
    assert len(book) == 3


@pytest.mark.parametrize(
    ("kind", "stream", "words"),
    [
        ("not_completion", False, "the answer is no completion"),
        ("not_completion", True, "without a finish_reason"),
        ("stream_error", True, "error inside the answer (500): EngineCore encountered an issue"),
    ],
)
async def test_a_200_that_is_no_answer_is_tried_again(simulated: Any, kind: str, stream: bool, words: str) -> None:
    """A status of 200 and a closing [DONE] prove nothing."""
    async with simulated({"kind": kind, "times": 1}) as asker:
        answer = await asker.ask(stream=stream)

    assert answer.finish_reason == "stop"
    assert [words in str(error) for _, error in asker.failed] == [True], asker.failed


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_is_an_answer(simulated: Any, stream: bool) -> None:
    """A content of null is for the council to judge, and asking again would give the same."""
    async with simulated({"kind": "null"}) as asker:
        answer = await asker.ask(stream=stream)
        book = await asker.book()

    assert (answer.content or "", answer.finish_reason) == ("", "stop")
    assert len(book) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        json.dumps(completion(content=5)).encode(),
        json.dumps(completion(usage=7)).encode(),
        json.dumps(completion(usage={"prompt_tokens": 1})).replace("1", "1e999").encode(),
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_of_any_other_shape_is_a_failed_attempt(answering: Any, body: bytes, stream: bool) -> None:
    """Whatever a server sends, the caller gets an error of the model server."""
    from blocks.exceptions import ModelServerUnavailable

    data = b"data: " + body.replace(b"message", b"delta") + b"\n\ndata: [DONE]\n\n" if stream else body
    async with answering(body_of(data)) as asker:
        with pytest.raises(ModelServerUnavailable, match=r"no completion|without a finish_reason"):
            await asker.ask(stream=stream, attempts=1)


async def test_an_error_inside_a_stream_that_will_not_pass_is_not_tried_again(answering: Any) -> None:
    """Its code decides, as the status would."""
    from blocks.exceptions import ModelServerRefused

    refusal = {"error": {"message": "no such thing", "code": 400}}
    async with answering(body_of(events(delta("half"), refusal))) as asker:
        with pytest.raises(ModelServerRefused, match="no such thing"):
            await asker.ask(stream=True)

    assert len(asker.failed) == 1


async def test_attempts_are_bounded(simulated: Any) -> None:
    """The last error is the caller's, and every attempt was heard of."""
    from blocks.exceptions import ModelServerUnavailable

    async with simulated({"kind": "500"}) as asker:
        with pytest.raises(ModelServerUnavailable, match="HTTP 500"):
            await asker.ask(attempts=3)
        book = await asker.book()

    assert [attempt for attempt, _ in asker.failed] == [1, 2, 3]
    assert len(book) == 3


@pytest.mark.parametrize(("kind", "words"), [("too_long", "maximum context length"), ("unauthorized", "Unauthorized")])
async def test_what_will_not_pass_is_not_tried_again(simulated: Any, kind: str, words: str) -> None:
    """A prompt that is too long and a wrong key stay so."""
    from blocks.exceptions import ModelServerRefused

    async with simulated({"kind": kind}) as asker:
        with pytest.raises(ModelServerRefused, match=words):
            await asker.ask()
        book = await asker.book()

    assert [attempt for attempt, _ in asker.failed] == [1]
    assert len(book) == 1


async def test_a_prompt_that_is_really_too_long_is_refused(simulated: Any) -> None:
    """The server's own words reach the caller."""
    from blocks.exceptions import ModelServerRefused

    async with simulated(max_model_len=64) as asker:
        with pytest.raises(ModelServerRefused, match="maximum context length is 64 tokens"):
            await asker.ask(call={"messages": [{"role": "user", "content": "word " * 200}], "max_tokens": 8})


async def test_nobody_listening_is_worth_another_attempt(simulated: Any) -> None:
    """The error names the address."""
    from blocks.exceptions import ModelServerUnavailable

    async with simulated() as asker:
        pass
    with pytest.raises(ModelServerUnavailable, match=asker.url):
        await asker.ask(attempts=2)

    assert [attempt for attempt, _ in asker.failed] == [1, 2]


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hanging_server_is_left_at_the_deadline(simulated: Any, stream: bool) -> None:
    """The caller gets TimeoutError, and the server sees the request go."""
    async with simulated({"kind": "hang"}) as asker:
        with pytest.raises(TimeoutError):
            await asker.ask(deadline_s=0.5, stream=stream)
        entry = await asker.until("aborted")

    assert entry["status"] is None
    assert asker.failed == []


async def test_an_attempt_that_takes_too_long_is_tried_again(simulated: Any) -> None:
    """Its own bound is shorter than the deadline."""
    async with simulated({"kind": "hang", "times": 1}) as asker:
        answer = await asker.ask(request_timeout_s=0.5)
        book = await asker.book()

    assert answer.finish_reason == "stop"
    assert ["no answer in 0.5 s" in str(error) for _, error in asker.failed] == [True]
    assert [entry["aborted"] for entry in book] == [True, False]


async def test_no_attempt_is_made_past_the_deadline(simulated: Any) -> None:
    """However many attempts are left, the deadline ends them, and none follows."""
    async with simulated({"kind": "503"}) as asker:
        with pytest.raises(TimeoutError):
            await asker.ask(deadline_s=0.6, attempts=20, backoff_s=0.2)
        at_the_deadline = len(await asker.book())
        await asyncio.sleep(0.5)
        later = len(await asker.book())

    assert 1 <= at_the_deadline < 20
    assert later == at_the_deadline


async def test_a_server_is_given_the_time_it_asks_for(simulated: Any) -> None:
    """Retry-After is waited for, though the block's own pause is shorter."""
    async with simulated({"kind": "429", "times": 1, "retry_after_s": 1}) as asker:
        await asker.ask()
        first, second = await asker.book()

    assert second["received_at"] - first["received_at"] >= 1


async def test_a_server_that_asks_for_more_time_than_there_is_fails_at_once_and_in_its_words(simulated: Any) -> None:
    """Nobody waits for a deadline behind which the answer would be."""
    from blocks.exceptions import ModelServerUnavailable

    started = asyncio.get_running_loop().time()
    async with simulated({"kind": "503", "retry_after_s": 120}) as asker:
        with pytest.raises(ModelServerUnavailable, match=r"HTTP 503.*in 120 s"):
            await asker.ask(deadline_s=60)
        book = await asker.book()

    assert asyncio.get_running_loop().time() - started < 120
    assert len(book) == 1


async def test_a_caller_that_is_cancelled_takes_its_request_along(simulated: Any) -> None:
    """The server sees it go, so that its slot is free."""
    async with simulated({"kind": "hang"}) as asker:
        call = asyncio.create_task(asker.ask())
        await asker.until("started_at")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        entry = await asker.until("aborted")

    assert entry["status"] is None


async def test_calls_at_once_are_bounded(simulated: Any) -> None:
    """Of six calls two are under way at any time, never more, and never one alone."""
    async with simulated(latency_s=0.1) as asker:
        server = asker.block(max_in_flight=2)
        await asyncio.gather(*(asker.ask(server=server) for _ in range(6)))
        book = await asker.book()

    starts = [(entry["received_at"], 1) for entry in book]
    ends = [(entry["sent_at"], -1) for entry in book]
    under_way, most = 0, 0
    for _, change in sorted(starts + ends):
        under_way += change
        most = max(most, under_way)
    assert (len(book), most) == (6, 2)


# --- connections ----------------------------------------------------------------------------------


async def test_a_server_that_closes_idle_connections_fails_no_call(simulated: Any) -> None:
    """Calls come about when the server lets go of the connection."""
    async with simulated(keepalive_s=0.05) as asker:
        server = asker.block()
        for pause in range(20):
            await asyncio.sleep(0.045 + pause * 0.0005)
            assert (await asker.ask(server=server)).finish_reason == "stop"


async def test_a_connection_that_closes_under_a_request_is_replaced(answering: Any) -> None:
    """The server closes every connection that is used a second time: the keep-alive race, each time."""
    used = set()

    async def once(request: web.Request) -> web.Response:
        if request.transport in used:
            request.transport.close()
        used.add(request.transport)
        return web.json_response(completion())

    async with answering(once) as asker:
        server = asker.block()
        answers = [await asker.ask(server=server) for _ in range(4)]

    assert {answer.content for answer in answers} == {"hello"}
    assert asker.failed
    assert {attempt for attempt, _ in asker.failed} == {1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_without_end_is_refused(answering: Any, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """No more is read than the bound; a body below it is."""
    import blocks.vllm_server
    from blocks.exceptions import ModelServerUnavailable

    monkeypatch.setattr(blocks.vllm_server, "MAX_ANSWER_BYTES", 10_000)

    def sized(count: int) -> bytes:
        text = "x" * count
        return events(delta(text, "stop")) if stream else json.dumps(completion(text)).encode()

    async with answering(body_of(sized(9_000))) as asker:
        assert len((await asker.ask(stream=stream)).content) == 9_000
    async with answering(body_of(sized(11_000))) as asker:
        with pytest.raises(ModelServerUnavailable, match="longer than 10000 bytes"):
            await asker.ask(stream=stream, attempts=1)


async def test_a_list_of_models_without_end_is_refused(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds for what the server says of itself, too."""
    import blocks.vllm_server
    from blocks.exceptions import ModelServerUnavailable

    monkeypatch.setattr(blocks.vllm_server, "MAX_ANSWER_BYTES", 10_000)
    async with answering(body_of(b"{}"), body_of(b" " * 11_000)) as asker:
        with pytest.raises(ModelServerUnavailable, match="longer than 10000 bytes"):
            await asker.block().info()


# --- what is never told ---------------------------------------------------------------------------


def echo(mode: str, before: str) -> Any:
    """A handler that gives the Authorization header back, behind a text of some length."""

    async def answer(request: web.Request) -> web.Response:
        key = before + request.headers["Authorization"]
        match mode:
            case "error":
                return web.json_response({"error": {"message": key, "code": 400}}, status=400)
            case "plain":
                return web.Response(text=key, status=500)
            case "garbage":
                return web.Response(text=key)
            case "event":
                return web.Response(text=f"data: {key}\n\n")
            case "inside":
                return web.Response(body=events({"error": {"message": key, "code": 500}}))
            case "reason":
                return web.json_response({**completion(), "choices": [{"message": {"content": [key]}}]})
        raise AssertionError(mode)

    return answer


@pytest.mark.parametrize("length", [0, 60, 470, 495])
@pytest.mark.parametrize("mode", ["error", "plain", "garbage", "event", "inside", "reason"])
async def test_a_server_that_echoes_the_key_does_not_get_it_told(
    answering: Any, caplog: pytest.LogCaptureFixture, mode: str, length: int
) -> None:
    """No part of it is in an error, a traceback or a log, also where the text is cut inside it."""
    from blocks.exceptions import ModelServerError

    caplog.set_level(logging.DEBUG)
    async with answering(echo(mode, "x" * length)) as asker:
        with pytest.raises(ModelServerError) as caught:
            await asker.ask(api_key=KEY, attempts=2, stream=mode in ("event", "inside"))

    errors = [caught.value, *(error for _, error in asker.failed)]
    assert length > 400 or all("***" in str(error) for error in errors), errors
    told = [line for error in errors for line in (*traceback.format_exception(error), repr(error), str(vars(error)))]
    assert PREFIX not in "".join(told)
    assert PREFIX not in caplog.text


async def test_an_answer_keeps_a_word_that_is_the_key(answering: Any) -> None:
    """Local servers are given any key, such as EMPTY."""
    async with answering(body_of(json.dumps(completion("The queue is EMPTY.")).encode())) as asker:
        assert (await asker.ask(api_key="EMPTY")).content == "The queue is EMPTY."


async def test_no_part_of_a_key_is_told_where_an_error_is_cut_inside_it(answering: Any) -> None:
    """Also where blanks before it are told as one, and where it is written with escapes."""
    from blocks.exceptions import ModelServerError

    key = "sk-'very\\secret'-0123456789"

    async def cut(request: web.Request) -> web.Response:
        told = request.headers["Authorization"].removeprefix("Bearer ")
        return web.Response(text=json.dumps({"error": {"message": "bad key" + " " * 65_480 + told}}), status=401)

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text=repr(request.headers["Authorization"]), status=500)

    for handler in (cut, plain):
        async with answering(handler) as asker:
            with pytest.raises(ModelServerError) as caught:
                await asker.ask(api_key=key, attempts=1)
        assert "sk-" not in str(caught.value)


async def test_an_answer_that_is_no_http_does_not_get_the_key_told(
    own_connections: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What aiohttp raises holds the headers of the request, and is not passed on."""
    from blocks.exceptions import ModelServerUnavailable
    from blocks.vllm_server import VLLM

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = request.partition(b"Bearer ")[2].partition(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\nX-Key\x00: " + key + b"\r\n\r\n")
        writer.close()

    caplog.set_level(logging.DEBUG)
    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ModelServerUnavailable) as caught:
            await VLLM(base_url=url, api_key=KEY).info()

    error = caught.value
    assert str(error).startswith(url)
    assert PREFIX not in "".join([*traceback.format_exception(error), repr(error), repr(error.__cause__)])
    assert PREFIX not in caplog.text


@pytest.mark.parametrize("listed", [True, False])
async def test_a_wrong_key_is_refused_and_not_told(simulated: Any, listed: bool) -> None:
    """Whether the server asks for the key before or after it lists its models."""
    from blocks.exceptions import ModelServerRefused

    settings = {} if listed else {"api_key": "right"}
    async with simulated({"kind": "unauthorized"}, **settings) as asker:
        with pytest.raises(ModelServerRefused, match="HTTP 401: Unauthorized") as caught:
            await asker.ask(api_key=KEY)

    assert PREFIX not in repr(caught.value)
    assert len(asker.failed) == 1


async def test_the_right_key_opens(simulated: Any) -> None:
    """Also one that was read from a file, with its line break; and the block does not show it."""
    async with simulated(api_key=KEY) as asker:
        server = asker.block(api_key=f"{KEY}\n")
        answer = await asker.ask(server=server)

    assert answer.finish_reason == "stop"
    assert PREFIX not in f"{server!r} {server} {server.model_dump()}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "such as http://host:8000"),
        ("http://", "such as http://host:8000"),
        ("host:8000", "such as http://host:8000"),
        (f"http://user:{KEY}@host", "belongs in api_key"),
        (f"http://host/?key={KEY}", "belongs in api_key"),
    ],
)
async def test_a_wrong_address_is_refused_without_its_secrets(importable_prefect: None, url: str, words: str) -> None:
    """The error says what would be right and does not repeat what was given."""
    from pydantic import ValidationError

    from blocks.vllm_server import VLLM

    with pytest.raises(ValidationError, match=words) as caught:
        VLLM(base_url=url)
    assert PREFIX not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"]
)
async def test_an_address_is_the_root_with_or_without_v1(importable_prefect: None, url: str) -> None:
    """Users copy either."""
    from blocks.vllm_server import VLLM

    assert VLLM(base_url=url).base_url == "http://host:8000"
