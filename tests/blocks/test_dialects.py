"""Servers that take or say less, or something else, than OpenAI's API and vLLM do; each as users have met it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from blocks.refusals import retry_after_s
from blocks.urls import api_of, proxy_for, server_root
from tests.blocks.test_vllm_server import completion, delta, events

pytestmark = pytest.mark.servers

MESSAGE = {"messages": [{"role": "user", "content": "hi"}]}
JSON_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}}


def openai_error(message: str, **more: Any) -> dict[str, Any]:
    """A refusal as OpenAI's API words it."""
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


class Picky:
    """A server that refuses a request as `refuse` says, and notes the bodies that it was sent."""

    def __init__(self, refuse: Any) -> None:
        self.refuse, self.seen = refuse, []  # type: ignore[var-annotated]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append(body)
        refused = self.refuse(body)
        if refused is None:
            return web.json_response(completion())
        status, answer = refused
        return web.json_response(answer, status=status)


def without(field: str, status: int, answer: Any) -> Any:
    """Refuse each request that has the field."""
    return lambda body: (status, answer) if field in body else None


def only_default_temperature(body: dict[str, Any]) -> Any:
    """As OpenAI's reasoning models do."""
    if body.get("temperature", 1) == 1:
        return None
    said = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) is supported."
    return 400, openai_error(said, param="temperature", code="unsupported_value")


def no_limit(body: dict[str, Any]) -> Any:
    """Neither of the two names for it is known."""
    named = [field for field in ("max_tokens", "max_completion_tokens") if field in body]
    return (422, {"detail": f"unexpected field {named[0]}"}) if named else None


def only_json_object(body: dict[str, Any]) -> Any:
    """As servers do that know the older of the two forms."""
    if body.get("response_format", {}).get("type") == "json_schema":
        return 400, openai_error("This response_format type is unavailable now")
    return None


SAYS_MAX_COMPLETION_TOKENS = openai_error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
EXTRA_SEED = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}


@pytest.mark.parametrize(
    ("refuse", "fields", "expected"),
    [
        (without("max_tokens", 400, SAYS_MAX_COMPLETION_TOKENS), {}, {"max_completion_tokens": 64}),
        (no_limit, {}, {"temperature": 0.7}),
        (only_default_temperature, {}, {"max_tokens": 64, "seed": 1}),
        (without("seed", 422, EXTRA_SEED), {}, {"max_tokens": 64, "temperature": 0.7}),
        (without("seed", 422, {"message": "Extra inputs are not permitted: seed"}), {}, {"max_tokens": 64}),
        (
            without("stream_options", 400, openai_error("unknown field stream_options")),
            {"stream": True},
            {"stream": True},
        ),
        (only_json_object, {"call": {"extra": JSON_SCHEMA}}, {"response_format": {"type": "json_object"}}),
        (
            without("response_format", 400, openai_error("response_format is not supported by this model")),
            {"call": {"extra": JSON_SCHEMA}},
            {"max_tokens": 64},
        ),
    ],
    ids=[
        "max_tokens",
        "no limit",
        "temperature",
        "seed",
        "seed in words",
        "stream_options",
        "json_schema",
        "response_format",
    ],
)
async def test_a_field_that_a_server_refuses_is_asked_for_otherwise_and_remembered(
    answering: Any, refuse: Any, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """No attempt of the call is spent on it, and the next call asks in the right way at once."""
    server = Picky(refuse)
    async with answering(server.answer) as asker:
        block = asker.block(**{name: value for name, value in fields.items() if name == "stream"})
        await asker.ask(server=block, call={"max_tokens": 64, **fields.get("call", {})})
        asked = len(server.seen)
        await asker.ask(server=block, call={"max_tokens": 64, **fields.get("call", {})})

    assert asker.failed == []
    assert len(server.seen) == asked + 1
    last = server.seen[-1]
    assert expected.items() <= last.items()
    assert refuse(last) is None


NO_FORM = without("response_format", 400, openai_error("unknown field response_format"))


@pytest.mark.parametrize("refuse", [only_json_object, NO_FORM], ids=["json_object", "none"])
async def test_a_form_is_asked_for_in_words_where_a_server_takes_no_schema(answering: Any, refuse: Any) -> None:
    """Without `json_object`, which knows no form, and which some refuse unless the prompt has the word."""
    server = Picky(refuse)
    async with answering(server.answer) as asker:
        await asker.ask(call={**MESSAGE, "extra": JSON_SCHEMA, "in_words": "End with ANSWER: yes or no."})

    assert "response_format" not in server.seen[-1]
    assert server.seen[-1]["messages"][-1]["content"] == "hi\n\nEnd with ANSWER: yes or no."
    assert server.seen[0]["messages"] == MESSAGE["messages"]


async def test_a_block_says_what_its_server_takes_not(answering: Any) -> None:
    """Then it is not asked even once."""
    server = Picky(lambda _body: None)
    async with answering(server.answer) as asker:
        await asker.ask(omit=["seed", "temperature", "max_tokens", "response_format"], call={"extra": JSON_SCHEMA})

    assert {"seed", "temperature", "max_tokens", "max_completion_tokens", "response_format"} & set(
        server.seen[0]
    ) == set()


@pytest.mark.parametrize(
    "answer",
    [
        openai_error("'max_tokens' or 'max_completion_tokens' is too large: 9000. The maximum context length is 64."),
        openai_error("temperature must be non-negative", param="temperature"),
        openai_error("Grammar error: unsupported keyword"),
        "no JSON",
    ],
)
async def test_a_value_that_is_refused_is_the_callers(answering: Any, answer: Any) -> None:
    """It is not left out behind the caller's back."""
    from blocks.exceptions import ModelServerRefused

    server = Picky(lambda _body: (400, answer))
    async with answering(server.answer) as asker:
        with pytest.raises(ModelServerRefused):
            await asker.ask()

    assert len(server.seen) == 1


async def test_a_refusal_that_repeats_a_task_is_not_learnt_from(answering: Any) -> None:
    """A filter of contents quotes what it refuses, which may name every field; nothing is left out for the others."""

    def refuse(body: dict[str, Any]) -> Any:
        said = f"refused: {body['messages'][0]['content']}"
        return (400, openai_error(said)) if "unknown" in said else None

    from blocks.exceptions import ModelServerRefused

    server = Picky(refuse)
    async with answering(server.answer) as asker:
        block = asker.block()
        fields = "unknown: max_tokens, max_completion_tokens, temperature, seed"
        with pytest.raises(ModelServerRefused):
            await asker.ask(server=block, call={"messages": [{"role": "user", "content": fields}]})
        await asker.ask(server=block)

    assert {"max_tokens", "temperature", "seed"} <= set(server.seen[-1])


# --- what a server says ---------------------------------------------------------------------------


def body(data: Any, **options: Any) -> Any:
    """A handler that answers 200 with this."""

    async def answer(_request: web.Request) -> web.Response:
        if isinstance(data, bytes):
            return web.Response(body=data, content_type="text/event-stream", **options)
        return web.json_response(data, **options)

    return answer


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "let me see"}]},
    {"type": "text", "text": "forty "},
    {"type": "text", "text": "two"},
]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_content_may_come_in_parts(answering: Any, stream: bool) -> None:
    """Text parts are joined, and thinking is kept apart."""
    data = events(delta(PARTS[:2]), delta(PARTS[2:], "stop")) if stream else completion(PARTS)
    async with answering(body(data)) as asker:
        answer = await asker.ask(stream=stream)

    assert (answer.content, answer.reasoning) == ("forty two", "let me see")


@pytest.mark.parametrize(
    ("said", "read"),
    [("eos_token", "stop"), ("end_turn", "stop"), ("EOS", "stop"), ("max_output_tokens", "length"), ("other", "other")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_other_words_for_the_end_of_an_answer_are_known(
    answering: Any, said: str, read: str, stream: bool
) -> None:
    """Those that nobody knows stay as they are."""
    whole = completion()
    whole["choices"][0]["finish_reason"] = said
    async with answering(body(events(delta("hello", said)) if stream else whole)) as asker:
        answer = await asker.ask(stream=stream)

    assert answer.finish_reason == read


@pytest.mark.parametrize("code", [402, "402"])
async def test_an_error_with_status_200_is_the_error_that_it_is(answering: Any, code: Any) -> None:
    """Final where its code is, told in its words, and asked once."""
    from blocks.exceptions import ModelServerRefused

    data = {"error": {"message": "Insufficient credits", "code": code}}
    async with answering(body(data)) as asker:
        with pytest.raises(ModelServerRefused, match=r"\(402\): Insufficient credits$"):
            await asker.ask()

    assert len(asker.failed) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_model_is_told(answering: Any, stream: bool) -> None:
    """Its words stand in a field of their own."""
    from blocks.exceptions import ModelServerRefused

    said = "I cannot help with that."
    data = completion(None)
    data["choices"][0]["message"]["refusal"] = said
    halves = [{"choices": [{"index": 0, "delta": {"refusal": half}}]} for half in (said[:9], said[9:])]
    async with answering(body(events(*halves, delta(None, "stop")) if stream else data)) as asker:
        with pytest.raises(ModelServerRefused, match=said):
            await asker.ask(stream=stream)


async def test_a_stream_that_is_answered_in_one_piece_is_read(answering: Any) -> None:
    """Some servers know no streams."""
    async with answering(body(completion())) as asker:
        assert (await asker.ask(stream=True)).content == "hello"


async def test_a_long_header_is_no_failure(answering: Any) -> None:
    """Clouds and proxies send them."""
    async with answering(body(completion(), headers={"X-Policy": "x" * 30_000})) as asker:
        assert (await asker.ask()).content == "hello"


async def test_a_page_of_a_proxy_is_told_by_its_title(answering: Any) -> None:
    """And not as its source."""
    from blocks.exceptions import ModelServerUnavailable

    async def page(_request: web.Request) -> web.Response:
        html = "<html>\n<head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
        return web.Response(text=html, status=502, content_type="text/html")

    async with answering(page) as asker:
        with pytest.raises(
            ModelServerUnavailable, match=r"HTTP 502: an HTML page in place of an answer: 502 Bad Gateway$"
        ):
            await asker.ask(attempts=1)


# --- rate limits ----------------------------------------------------------------------------------


def limited(times: int, status: int = 429, **headers: str) -> Any:
    """A server that answers 429 so often, then a completion."""
    left = [times]

    async def answer(_request: web.Request) -> web.Response:
        if left[0]:
            left[0] -= 1
            return web.json_response(openai_error("slow down"), status=status, headers=headers)
        return web.json_response(completion())

    return answer


@pytest.mark.parametrize("status", [429, 529])
async def test_a_rate_limit_is_waited_out(answering: Any, status: int) -> None:
    """Patience is the deadline: attempts do not count."""
    async with answering(limited(9, status)) as asker:
        answer = await asker.ask(attempts=2, backoff_s=0.01)

    assert answer.content == "hello"
    assert len(asker.failed) == 9


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "500", "Retry-After": "9"}, 0.5, 0.5),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)}, 1, 7200),
        ({"Retry-After": "Fri, 01 Jan 2021 00:00:00 GMT"}, 0, 0),
        ({"Retry-After": "1" + "0" * 11}, 86_400, 86_400),
    ],
    ids=["seconds", "decimals", "milliseconds", "date", "past", "bounded"],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], low: float, high: float) -> None:
    """RFC 9110 has seconds and dates; OpenAI's API has milliseconds."""
    asked_s = retry_after_s(headers)
    assert asked_s is not None
    assert low <= asked_s <= high


@pytest.mark.parametrize("told", ["", "soon", "-5", "1e5", "Nov 31 99:99:99 99999999999999999999"])
def test_what_is_no_time_is_none(told: str) -> None:
    """Others send what they like."""
    assert retry_after_s({"Retry-After": told}) is None


# --- where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "endpoints"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        ("http://h/llm/v1", "http://h/llm/v1"),
        ("https://h/api/paas/v4/", "https://h/api/paas/v4"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/video/llm", "https://h/video/llm/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_a_url_with_a_version_in_it_is_taken_as_it_is(given: str, endpoints: str) -> None:
    """Any other is the root, below which OpenAI's first version lies."""
    assert api_of(server_root(given)) == endpoints


@pytest.mark.parametrize(
    "list_of_models",
    [
        web.json_response({"detail": "Not Found"}, status=404),
        web.json_response({"detail": "Not Implemented"}, status=501),
        web.json_response([{"id": "m"}]),
        web.json_response("?"),
    ],
    ids=["none", "not implemented", "bare list", "something else"],
)
async def test_a_named_model_needs_no_list(answering: Any, list_of_models: web.Response) -> None:
    """What a server lists is a hint."""

    async def models(_request: web.Request) -> web.Response:
        return web.Response(body=list_of_models.body, status=list_of_models.status, content_type="application/json")

    async with answering(body(completion()), models) as asker:
        assert (await asker.ask(model="m")).content == "hello"


async def test_a_redirect_is_told_and_not_followed(answering: Any) -> None:
    """It would be asked with a GET, and another host would get the key."""
    from blocks.exceptions import ModelServerRefused

    async def moved(_request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "https://elsewhere.example/v1/chat/completions"})

    async with answering(moved) as asker:
        with pytest.raises(
            ModelServerRefused, match=r"redirects POST to https://elsewhere\.example.*set the server's URL"
        ):
            await asker.ask()

    assert len(asker.failed) == 1


def test_a_proxy_of_the_environment_is_used_but_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for what NO_PROXY names; a SOCKS proxy, which the client does not speak, is not taken for another one."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_for("http://models.example/v1/models") == "http://proxy:3128"
    for direct in ("http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:1", "http://inside.example"):
        assert proxy_for(direct) is None
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    assert proxy_for("https://models.example") is None


def test_what_is_learnt_narrows_until_nothing_is_left_to_refuse() -> None:
    """So a server that refuses everything is refused in the end."""
    from blocks.dialect import Dialect

    dialect, sent = Dialect(), {"max_tokens": 1, "temperature": 1, "seed": 1, "stream_options": {}, **JSON_SCHEMA}
    steps = 0
    told = b"unsupported: max_tokens max_completion_tokens temperature seed stream_options response_format"
    while (found := dialect.after(400, told, dialect.spoken(sent))) is not None:
        dialect, steps = found, steps + 1
    assert steps == 7
    assert json.dumps(dialect.spoken(sent)) == "{}"
