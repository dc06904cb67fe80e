"""Servers that take or say less, or something else, than OpenAI's API and vLLM do; each as users have met it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from blocks.refusals import retry_after_s
from blocks.urls import api_of, proxy_for, server_root
from infra.simulator.dialects import DECLINED, THOUGHT
from tests.blocks.test_vllm_server import completion

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


@pytest.mark.parametrize(
    ("dialects", "fields", "takes"),
    [
        (("max_completion_tokens",), {}, "max_completion_tokens messages model seed temperature"),
        (("no_limit",), {}, "messages model seed temperature"),
        (("default_temperature",), {}, "max_tokens messages model seed"),
        (("no_seed",), {}, "max_tokens messages model temperature"),
        (("no_stream_options",), {"stream": True}, "max_tokens messages model seed stream temperature"),
        (
            ("json_object",),
            {"extra": JSON_SCHEMA},
            "max_tokens messages model response_format:json_object seed temperature",
        ),
        (("no_response_format",), {"extra": JSON_SCHEMA}, "max_tokens messages model seed temperature"),
        (
            ("no_seed", "default_temperature", "max_completion_tokens", "no_response_format"),
            {"extra": JSON_SCHEMA},
            "max_completion_tokens messages model",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_a_field_that_a_server_refuses_is_asked_for_otherwise_and_remembered(
    simulated: Any, dialects: tuple[str, ...], fields: dict[str, Any], takes: str
) -> None:
    """No attempt of the call is spent on it, and the next call asks in the right way at once."""
    async with simulated(dialects=dialects) as asker:
        block = asker.block(stream=fields.get("stream", False))
        call = {name: value for name, value in fields.items() if name == "extra"}
        await asker.ask(server=block, call=call, request_id="first")
        await asker.ask(server=block, call=call, request_id="second")
        first, second = await asker.book("first"), await asker.book("second")

    assert asker.failed == []
    assert [entry["status"] for entry in second] == [200]
    assert second[0]["asked"] == first[-1]["asked"] == takes.split()
    assert {entry["status"] for entry in first[:-1]} <= {400, 422}


async def test_a_field_that_is_refused_in_words_alone_is_found(answering: Any) -> None:
    """Without a field of its own for the name, and without a place."""
    server = Picky(lambda body: (422, {"message": "Extra inputs are not permitted: seed"}) if "seed" in body else None)
    async with answering(server.answer) as asker:
        await asker.ask()

    assert "seed" not in server.seen[-1]


async def test_what_was_learnt_is_told_and_can_be_recalled_and_forgotten(simulated: Any) -> None:
    """What the block leaves out was told by nobody: another block of the same server may ask for it."""
    from blocks.dialect import Dialect

    told: list[tuple[str, Any]] = []

    async def learnt(model: str, dialect: Any) -> None:
        told.append((model, dialect))

    async with simulated(dialects=("no_seed",)) as asker:
        block = asker.block(omit=["temperature"])
        await asker.ask(server=block, learnt=learnt)
        assert told == [("simulated", Dialect(seed=None))]
        assert (await block.dialect("simulated")).differences == {"temperature": None, "seed": None}
        other = asker.block(model="simulated")
        await other.recall(dict(told))
        await asker.ask(server=other, request_id="recalled", learnt=learnt)
        await other.forget()
        await asker.ask(server=other, request_id="forgotten")
        statuses = [[entry["status"] for entry in await asker.book(call)] for call in ("recalled", "forgotten")]

    assert len(told) == 1
    assert statuses == [[200], [422, 200]]


async def test_an_answer_does_not_fail_while_what_was_learnt_is_told(simulated: Any) -> None:
    """Its deadline is for the answer, which is there."""

    async def slowly(_model: str, _dialect: Any) -> None:
        await asyncio.sleep(1.2)

    async with simulated(dialects=("no_seed",)) as asker:
        answer = await asker.ask(deadline_s=1.0, learnt=slowly)

    assert answer.finish_reason == "stop"


async def test_what_was_learnt_is_believed_for_a_day(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may be a newer one by then."""
    import blocks.vllm_server
    from blocks.dialect import TELL_S, Dialect

    async with simulated() as asker:
        block = asker.block()
        await block.recall({"m": Dialect(seed=None)})
        assert await block.dialect("m") == Dialect(seed=None)
        now = blocks.vllm_server.time.monotonic
        monkeypatch.setattr(blocks.vllm_server.time, "monotonic", lambda: now() + TELL_S)
        assert await block.dialect("m") == Dialect()


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        ({"seed": None, "max_tokens": "max_completion_tokens"}, ("no seed", "max_completion_tokens for max_tokens")),
        ({"seed": "sown", "of a later version": None, "temperature": 3, "response_format": "json_object"}, ()),
        ({}, ()),
        ("no object", ()),
    ],
)
def test_a_dialect_that_was_kept_is_read_again(kept: Any, read: tuple[str, ...]) -> None:
    """What this version does not know is passed over."""
    from blocks.dialect import read_dialect

    found = read_dialect(kept)
    assert set(found.changes) >= set(read)
    assert read_dialect(found.differences) == found


def only_json_object(body: dict[str, Any]) -> Any:
    """As servers do that know the older of the two forms."""
    if body.get("response_format", {}).get("type") == "json_schema":
        return 400, openai_error("This response_format type is unavailable now")
    return None


def no_form(body: dict[str, Any]) -> Any:
    """Neither form is known."""
    return (400, openai_error("unknown field response_format")) if "response_format" in body else None


@pytest.mark.parametrize("refuse", [only_json_object, no_form], ids=["json_object", "none"])
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
        openai_error("Unsupported value: 'temperature' must be between 0 and 1.", param="temperature"),
        openai_error("max_tokens 8192 is not supported by this model, at most 4096", param="max_tokens"),
        openai_error("temperature=1.5 is not allowed: it has to be less than or equal to 1"),
        openai_error("'temperature' does not support 2.5. Only values up to 2 are supported.", param="temperature"),
        openai_error("unsupported value 0.7 of temperature, pick 0..2"),
        openai_error("The content 'is the seed unknown to botany?' was flagged by our policy"),
        openai_error("Your prompt is not allowed: what is the temperature of the sun?"),
        openai_error("API key not allowed to use this model. See docs on temperature"),
        {"detail": [{"type": "less_than_equal", "loc": ["body", "seed"], "msg": "unsupported: <= 65535", "input": 7}]},
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


ECHO = {"messages": [{"role": "user", "content": "maximum context length, too large: between"}], "seed": 7}
REFUSED_SEED = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}


@pytest.mark.parametrize(
    "refusal",
    [
        {"detail": [{**REFUSED_SEED, "input": 7}], "body": ECHO},
        {"detail": [{**REFUSED_SEED, "input": ECHO}]},
        openai_error(f"[{ {**REFUSED_SEED, 'input': ECHO} }]"),
        openai_error("Unsupported parameter: seed", param="seed", request=ECHO),
        openai_error("seed: at most ten calls are made without it", param="seed", code="unsupported_parameter"),
        openai_error("'seed' is not supported. Use 'prompt_seed' to set the maximum number of seeds.", param="seed"),
    ],
)
def test_what_a_refusal_repeats_of_the_request_hides_no_reason(refusal: Any) -> None:
    """A task may hold every word that tells one refusal from another."""
    from blocks.dialect import Dialect

    found = Dialect().after(422, json.dumps(refusal).encode(), {"seed": 7, "temperature": 1, **MESSAGE})
    assert found is not None and found.changes == ("no seed",)


def test_a_long_refusal_is_read_no_further_than_it_matters() -> None:
    """Whatever it is made of, a host has other work."""
    from blocks.dialect import Dialect

    long = {"detail": [{"loc": ["body"] * 10, "msg": "unsupported"}] * 100_000}
    body, start = json.dumps(long).encode(), time.process_time()
    assert Dialect().after(400, body, {"seed": 7, **MESSAGE}) is None
    assert time.process_time() - start < 1


def test_the_name_of_a_model_is_no_field() -> None:
    """Though it is called after one."""
    from blocks.dialect import Dialect

    told = json.dumps(openai_error("The model seed-oss-36b is not supported")).encode()
    assert Dialect().after(400, told, {"seed": 7, "model": "seed-oss-36b", **MESSAGE}) is None
    assert Dialect().after(400, told, {"seed": 7, "model": "another", **MESSAGE}) is not None


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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["parts", "reasoning", "reasoning_content"])
async def test_thinking_that_a_server_sends_apart_is_kept_apart(simulated: Any, dialect: str, stream: bool) -> None:
    """As a part of the content or in a field of its own; text parts are joined."""
    async with simulated() as usual:
        text = (await usual.ask()).content
    async with simulated(dialects=(dialect,)) as asker:
        answer = await asker.ask(stream=stream)

    assert (answer.content, answer.reasoning) == (text, THOUGHT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["think", "thought", "reasoning_tags", "think_brackets", "harmony"])
async def test_thinking_that_a_server_leaves_in_the_text_is_found(simulated: Any, dialect: str, stream: bool) -> None:
    """By the marks of its model's family."""
    from tasks.council.replies import read_reply

    async with simulated() as usual:
        text = (await usual.ask()).content
    async with simulated(dialects=(dialect,)) as asker:
        answer = await asker.ask(stream=stream)

    reply = read_reply(answer.content, answer.finish_reason, answer.reasoning)
    assert (reply.content, reply.reasoning) == (text.strip(), THOUGHT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("limit", "end"), [(2048, "stop"), (8, "length")])
@pytest.mark.parametrize("dialect", ["eos_token", "end_turn", "completed"])
async def test_other_words_for_the_end_of_an_answer_are_known(
    simulated: Any, dialect: str, limit: int, end: str, stream: bool
) -> None:
    """For both ends that OpenAI's API knows."""
    async with simulated(dialects=(dialect,)) as asker:
        answer = await asker.ask(stream=stream, call={"max_tokens": limit})

    assert answer.finish_reason == end


@pytest.mark.parametrize(("said", "read"), [("EOS", "stop"), ("Max_Length", "length"), ("other", "other")])
def test_a_word_for_the_end_is_known_in_any_case_or_stays(said: str, read: str) -> None:
    """Whoever reads the answer says so of one that nobody knows."""
    from blocks.chat import read_completion

    whole = completion()
    whole["choices"][0]["finish_reason"] = said
    assert read_completion(json.dumps(whole).encode(), "m", "vllm").finish_reason == read


async def test_an_error_with_status_200_is_the_error_that_it_is(simulated: Any) -> None:
    """Final where its code is, told in its words, and asked once."""
    from blocks.exceptions import ModelServerRefused

    async with simulated(dialects=("error_in_200",)) as asker:
        with pytest.raises(ModelServerRefused, match=r"\(402\): Insufficient credits$"):
            await asker.ask()

    assert len(asker.failed) == 1


def test_the_code_of_an_error_inside_may_be_a_text() -> None:
    """Some write its digits."""
    from blocks.chat import read_completion
    from blocks.exceptions import ModelServerRefused

    data = {"error": {"message": "Insufficient credits", "status": "402"}}
    with pytest.raises(ModelServerRefused, match=r"\(402\): Insufficient credits$"):
        read_completion(json.dumps(data).encode(), "m", "openai")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_model_is_told(simulated: Any, stream: bool) -> None:
    """Its words stand in a field of their own."""
    from blocks.exceptions import ModelServerRefused

    async with simulated(dialects=("refusal",)) as asker:
        with pytest.raises(ModelServerRefused, match=DECLINED):
            await asker.ask(stream=stream)


@pytest.mark.parametrize("dialect", ["one_piece", "long_header"])
async def test_what_makes_no_difference_is_no_failure(simulated: Any, dialect: str) -> None:
    """Some servers know no streams; clouds and proxies send long headers."""
    async with simulated() as usual:
        text = (await usual.ask()).content
    async with simulated(dialects=(dialect,)) as asker:
        assert (await asker.ask(stream=True)).content == text


async def test_a_page_of_a_proxy_is_told_by_its_title(simulated: Any) -> None:
    """And not as its source."""
    from blocks.exceptions import ModelServerUnavailable

    said = r"HTTP 502: an HTML page in place of an answer: 502 Bad Gateway$"
    async with simulated(dialects=("html",)) as asker:
        with pytest.raises(ModelServerUnavailable, match=said):
            await asker.ask(attempts=1)


# --- rate limits ----------------------------------------------------------------------------------


async def test_a_rate_limit_is_waited_out(simulated: Any) -> None:
    """Patience is the deadline: attempts do not count."""
    async with simulated({"kind": "429", "times": 9}) as asker:
        answer = await asker.ask(attempts=2, backoff_s=0.01)

    assert answer.finish_reason == "stop"
    assert len(asker.failed) == 9


@pytest.mark.parametrize(
    ("dialect", "least_s"),
    [
        ("rate_limit", 0.0),
        ("overloaded", 0.0),
        ("retry_after", 1.0),
        ("retry_after_decimals", 0.2),
        ("retry_after_ms", 0.2),
        ("retry_after_date", 0.0),
    ],
)
async def test_every_way_to_say_how_long_is_waited_for(simulated: Any, dialect: str, least_s: float) -> None:
    """Also with a single attempt, which a limit does not count."""
    async with simulated(dialects=(dialect,)) as asker:
        await asker.ask(attempts=1, backoff_s=0.01)
        refused, answered = await asker.book()

    assert (refused["status"] in (429, 529), answered["status"]) == (True, 200)
    assert answered["received_at"] - refused["received_at"] >= least_s


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


@pytest.mark.parametrize("dialect", ["no_models", "bare_models"])
async def test_a_named_model_needs_no_list(simulated: Any, dialect: str) -> None:
    """What a server lists is a hint."""
    async with simulated(dialects=(dialect,)) as asker:
        assert (await asker.ask(model="simulated")).finish_reason == "stop"


@pytest.mark.parametrize("status", [200, 501])
async def test_something_else_than_a_list_of_models_is_none(answering: Any, status: int) -> None:
    """Nor is that it is not implemented."""

    async def models(_request: web.Request) -> web.Response:
        return web.json_response("?", status=status)

    async with answering(Picky(lambda _body: None).answer, models) as asker:
        assert (await asker.ask(model="m")).content == "hello"


async def test_a_redirect_is_told_and_not_followed(simulated: Any) -> None:
    """It would be asked with a GET, and another host would get the key."""
    from blocks.exceptions import ModelServerRefused

    async with simulated(dialects=("redirect",)) as asker:
        with pytest.raises(
            ModelServerRefused, match=r"redirects GET to https://elsewhere\.example.*set the server's URL"
        ):
            await asker.ask()

    assert len(asker.failed) == 1


async def test_a_redirect_of_the_question_alone_is_told(answering: Any) -> None:
    """Its list of models stays where it was."""
    from blocks.exceptions import ModelServerRefused

    async def moved(_request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "https://elsewhere.example/v1/chat/completions"})

    async with answering(moved) as asker:
        with pytest.raises(ModelServerRefused, match=r"redirects POST to https://elsewhere\.example"):
            await asker.ask()


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
