"""What a client of vLLM's API relies on: answers, streams, formats, refusals, probes and metrics."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest

from tests.contract.servers import BLOCK, CONTEXT, HELLO, KEY, MODEL, SLOTS, Client

pytestmark = pytest.mark.servers

own_server = pytest.mark.own_server

BODY = {
    "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage", "prompt_logprobs",
    "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
}  # fmt: skip
CHOICE = {"index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"}
MESSAGE = {"role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"}
USAGE = {"prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"}
DETAILS = {"cached_tokens", "created_cache_tokens", "multimodal_tokens"}

# --- answers --------------------------------------------------------------------------------------


async def test_an_answer_says_whose_it_is_and_what_it_took(client: Client) -> None:
    """Id, model, finish_reason and usage are where a client looks for them."""
    reply = await client.chat("run-7:member-1", max_tokens=8, ignore_eos=True)

    body, choice, usage = reply.body, reply.body["choices"][0], reply.body["usage"]
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert (body["id"], body["object"]) == ("chatcmpl-run-7:member-1", "chat.completion")
    assert body["model"] == client.server.model
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (0, "assistant", "length")
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@own_server
async def test_an_answer_has_exactly_these_fields(client: Client) -> None:
    """A field more or less shows that one of the two servers has changed."""
    body = await client.completion()

    (choice,) = body["choices"]
    assert (set(body), set(choice), set(choice["message"])) == (BODY, CHOICE, MESSAGE)
    assert (set(body["usage"]), set(body["usage"]["prompt_tokens_details"])) == (USAGE, DETAILS)


@own_server
async def test_the_request_id_comes_back_in_the_header(client: Client) -> None:
    """Of an answer, a refusal and a probe."""
    replies = [
        await client.chat("abc"),
        await client.chat("abc", max_tokens=0),
        await client.send("GET", "/health", headers={"X-Request-Id": "abc"}),
    ]

    assert [reply.headers["X-Request-Id"] for reply in replies] == ["abc"] * 3


async def test_without_an_id_the_server_makes_one(client: Client) -> None:
    """Two requests are never told the same id."""
    ids = {(await client.completion())["id"] for _ in range(2)}

    assert len(ids) == 2
    assert all(re.fullmatch(r"chatcmpl-[0-9a-f-]{16,36}", one) for one in ids)


async def test_a_text_ends_by_itself(client: Client) -> None:
    """Then its finish_reason is stop."""
    body = await client.completion(max_tokens=1_500, min_tokens=5, temperature=0.7)

    assert body["choices"][0]["finish_reason"] == "stop"
    assert 5 <= body["usage"]["completion_tokens"] < 1_500


@own_server
async def test_the_same_seed_gives_the_same_text(client: Client) -> None:
    """Choice i of n is the answer to seed + i."""
    asked = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.8}
    body = await client.completion(seed=5, n=3, **asked)
    fifth, seventh = [await client.text(seed=seed, **asked) for seed in (5, 7)]

    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert (texts[0], texts[2]) == (fifth, seventh)
    assert len(set(texts)) == 3
    assert body["usage"]["completion_tokens"] == 36


async def test_unknown_fields_are_ignored(client: Client) -> None:
    """Silently: a misspelt option is without effect. A missing model is the one that is served."""
    reply = await client.chat(guided_choice=["a"], no_such_field=1)
    nameless = await client.send("POST", "/v1/chat/completions", {"messages": HELLO, "max_tokens": 2})

    assert (reply.status, nameless.status, nameless.body["model"]) == (200, 200, client.server.model)


async def test_content_may_come_in_parts_or_not_at_all(client: Client) -> None:
    """A list of text parts reads like one text."""
    parts = [{"type": "text", "text": "hello"}]
    whole = await client.completion()
    listed = await client.completion(messages=[{"role": "user", "content": parts}])

    assert listed["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert (await client.chat(messages=[{"role": "user"}])).status == 200


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_cuts_the_text(client: Client, field: str) -> None:
    """With either name, at the token."""
    body = {"messages": HELLO, field: 5, "ignore_eos": True}
    reply = await client.send("POST", "/v1/chat/completions", body)

    assert reply.body["choices"][0]["finish_reason"] == "length"
    assert reply.body["usage"]["completion_tokens"] == 5


# --- streams --------------------------------------------------------------------------------------


async def test_a_stream_goes_from_role_to_done(client: Client) -> None:
    """Role, text, the finish_reason with the last text, usage without choices, `[DONE]`."""
    asked = {"max_tokens": 12, "ignore_eos": True}
    events = await client.stream("s-1", stream_options={"include_usage": True}, **asked)

    *chunks, usage, done = events
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert done == "[DONE]"
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert all(set(delta) == {"content"} for delta in deltas[1:])
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 12)
    assert {chunk["object"] for chunk in [*chunks, usage]} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in [*chunks, usage]} == {"chatcmpl-s-1"}
    assert {chunk["model"] for chunk in [*chunks, usage]} == {client.server.model}


@own_server
async def test_a_stream_carries_the_text_of_the_plain_answer(client: Client) -> None:
    """How it is read changes neither the text nor the count of tokens."""
    asked = {"max_tokens": 40, "ignore_eos": True, "seed": 9}
    plain = await client.completion(**asked)
    *chunks, usage, _ = await client.stream(stream_options={"include_usage": True}, **asked)

    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == plain["choices"][0]["message"]["content"]
    assert usage["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]


@own_server
async def test_chunks_have_exactly_these_fields(client: Client) -> None:
    """The first, one with text, the last with text and the one with the usage differ."""
    first, *middle, last, usage, _ = await client.stream(
        stream_options={"include_usage": True}, max_tokens=12, ignore_eos=True
    )

    head = {"id", "object", "created", "model", "choices"}
    choice = {"index", "delta", "logprobs", "finish_reason"}
    assert set(first) == head | {"prompt_token_ids", "prompt_text"}
    assert set(first["choices"][0]) == choice
    assert [set(chunk) for chunk in middle] == [head] * len(middle)
    assert {frozenset(chunk["choices"][0]) for chunk in middle} == {frozenset(choice | {"token_ids"})}
    assert set(last) == head
    assert set(last["choices"][0]) == choice | {"stop_reason", "token_ids"}
    assert set(usage) == head | {"usage", "system_fingerprint"}
    assert set(usage["usage"]) == USAGE - {"completion_tokens_details"}


async def test_a_stream_tells_choices_apart_by_index(client: Client) -> None:
    """Without the option there is no usage, and the last chunk of each choice says who answered."""
    *chunks, done = await client.stream(n=2, max_tokens=6, ignore_eos=True)

    reasons = {index: [] for index in (0, 1)}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        reasons[choice["index"]].append(choice["finish_reason"])
        assert chunk.get("usage") is None
        assert (choice["finish_reason"] is None) == (chunk.get("system_fingerprint") is None)
    assert done == "[DONE]"
    assert all(found[-1] == "length" and set(found[:-1]) == {None} for found in reasons.values())


# --- structured output ----------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": {"type": "array", "items": {"enum": ["A", "B", "C"]}, "minItems": 3, "maxItems": 3},
        "agrees": {"type": "boolean"},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "reason": {"type": "string", "maxLength": 40},
    },
    "required": ["order", "agrees", "score", "reason"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
async def test_an_answer_keeps_to_its_schema(client: Client, seed: int) -> None:
    """It parses, is valid, and ends by itself."""
    asked = {"type": "json_schema", "json_schema": {"name": "ballot", "schema": SCHEMA}}
    body = await client.completion(response_format=asked, seed=seed, max_tokens=400)

    assert body["choices"][0]["finish_reason"] == "stop"
    jsonschema.validate(json.loads(body["choices"][0]["message"]["content"]), SCHEMA)


async def test_other_formats_are_kept_to(client: Client) -> None:
    """A choice, a pattern, a JSON schema beside the messages, and any JSON object."""
    choice = await client.text(structured_outputs={"choice": ["yes", "no"]})
    pattern = await client.text(structured_outputs={"regex": "[A-Z][0-9]"})
    schema = await client.text(structured_outputs={"json": {"enum": [1, 2]}})
    anything = await client.text(response_format={"type": "json_object"}, max_tokens=20)

    assert choice in ("yes", "no")
    assert re.fullmatch("[A-Z][0-9]", pattern)
    assert schema in ("1", "2")
    assert anything.startswith("{")


async def test_a_limit_cuts_structured_output_too(client: Client) -> None:
    """HTTP 200, and JSON that does not parse: only the finish_reason says so."""
    asked = {"type": "json_schema", "json_schema": {"name": "ballot", "schema": SCHEMA}}
    body = await client.completion(response_format=asked, max_tokens=3)

    assert body["choices"][0]["finish_reason"] == "length"
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(body["choices"][0]["message"]["content"])


# --- order and cache ------------------------------------------------------------------------------


@own_server
async def test_the_lowest_priority_is_served_first(client: Client) -> None:
    """Of two that wait, though it came later."""
    order: list[str] = []

    async def ask(name: str, priority: int) -> None:
        assert (await client.chat(priority=priority)).status == 200
        order.append(name)

    async with client.busy(SLOTS) as fillers:
        late = asyncio.create_task(ask("late", 10))
        await client.until("num_requests_waiting", lambda waiting: waiting == 1)
        urgent = asyncio.create_task(ask("urgent", -5))
        await client.until("num_requests_waiting", lambda waiting: waiting == 2)
        fillers[0].cancel()
        await asyncio.gather(late, urgent)

    assert order == ["urgent", "late"]


@own_server
async def test_a_repeated_prompt_comes_from_the_cache(client: Client) -> None:
    """In whole blocks, and counted; another salt has a cache of its own."""
    messages = [{"role": "user", "content": "the terms and conditions of this License " * 8}]
    hits = await client.metric("prefix_cache_hits_total")
    usages = [(await client.completion(messages=messages))["usage"] for _ in range(2)]
    hits = await client.metric("prefix_cache_hits_total") - hits
    salted = await client.completion(messages=messages, cache_salt="other")

    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in [*usages, salted["usage"]]]
    blocks = (usages[1]["prompt_tokens"] - 1) // BLOCK
    assert cached == [0, blocks * BLOCK, 0]
    assert blocks > 0
    assert hits == cached[1]


# --- refusals -------------------------------------------------------------------------------------

Case = tuple[dict[str, Any], str | None, object, str]

LOGPROBS = "when using `top_logprobs`, `logprobs` must be set to true."
TOO_MANY_LOGPROBS = "Requested sample logprobs of 50, which is greater than max allowed: 20"
MORE_CHOICES = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
NO_SCHEMA = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
NO_TEXT = "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"
LONE_SURROGATE = [{"role": "user", "content": "\ud800"}]

REFUSED: list[Case] = [
    (
        {"messages": []},
        None,
        None,
        "Cannot apply chat template to an empty conversation. Provide at least one message.",
    ),
    ({"messages": LONE_SURROGATE}, None, None, NO_TEXT),
    ({"max_tokens": 0}, "max_tokens", 0, "max_tokens must be at least 1, got 0."),
    ({"stream": True, "max_tokens": -1}, "max_tokens", -1, "max_tokens must be at least 1, got -1."),
    (
        {"max_tokens": None, "max_completion_tokens": -1},
        "max_tokens",
        -1,
        "max_tokens must be at least 1, got -1.",
    ),
    ({"min_tokens": 9}, None, None, "min_tokens must be less than or equal to max_tokens=8, got 9."),
    ({"temperature": -1}, "temperature", -1.0, "temperature must be non-negative, got -1.0."),
    ({"temperature": 99}, "temperature", 99.0, "temperature must be in [0, 2], got 99.0."),
    ({"temperature": float("nan")}, "temperature", "nan", "temperature must be a finite number, got nan."),
    ({"top_p": 2}, "top_p", 2.0, "top_p must be in (0, 1], got 2.0."),
    ({"presence_penalty": 9}, None, None, "presence_penalty must be in [-2, 2], got 9.0."),
    ({"n": 0}, None, None, "n must be at least 1, got 0."),
    ({"n": 20_000}, None, None, f"n must be at most 16384, got 20000. {MORE_CHOICES}"),
    ({"n": 2, "temperature": 0}, None, None, "n must be 1 when using greedy sampling, got 2."),
    ({"top_logprobs": 50}, "top_logprobs", None, LOGPROBS),
    ({"logprobs": True, "top_logprobs": 50}, "logprobs", 50, TOO_MANY_LOGPROBS),
    (
        {"stream_options": {"include_usage": True}},
        "stream_options",
        None,
        "Stream options can only be defined when `stream=True`.",
    ),
    ({"response_format": {"type": "json_schema"}}, "response_format", None, NO_SCHEMA),
    ({"structured_outputs": {"choice": []}}, None, None, "Choice '[]' cannot be an empty list"),
]


@pytest.mark.parametrize(("fields", "param", "value", "text"), REFUSED)
async def test_a_value_out_of_bounds_is_refused(
    client: Client, fields: dict[str, Any], param: str | None, value: object, text: str
) -> None:
    """400 with the words of vLLM, naming the parameter and its value where vLLM does."""
    reply = await client.chat(**fields)

    named = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    message = f"{text} ({named})" if param else text
    expected = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
    assert (reply.status, reply.error) == (400, expected)


async def test_another_model_is_not_found(client: Client) -> None:
    """404, with those that there are."""
    reply = await client.chat(model="nope")

    assert (reply.status, reply.error["type"], reply.error["param"]) == (404, "NotFoundError", "model")
    assert reply.error["message"].startswith("The model `nope` does not exist.")
    assert client.server.model in reply.error["message"]


TOO_LONG = f"This model's maximum context length is {CONTEXT} tokens. However, your prompt contains"
SHORTEN = "Please reduce the length of the input prompt."


@own_server
async def test_a_prompt_longer_than_the_context_is_refused(client: Client) -> None:
    """Its tokens are counted up to one more than there may be."""
    reply = await client.chat(messages=[{"role": "user", "content": "word " * 3_000}])

    found = f"at least {CONTEXT + 1} input tokens, which exceeds this limit even without any output tokens"
    message = f"{TOO_LONG} {found}. {SHORTEN} (parameter=input_tokens, value={CONTEXT + 1})"
    assert (reply.status, reply.error["type"], reply.error["param"]) == (400, "BadRequestError", "input_tokens")
    assert reply.error["message"] == message


@own_server
async def test_a_prompt_so_long_that_it_is_not_counted_is_refused(client: Client) -> None:
    """In characters, of the whole conversation as the model would read it."""
    text = "word " * 40_000
    reply = await client.chat(messages=[{"role": "user", "content": text}], max_tokens=1_500)

    length = len(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
    bound = f"more than {32 * CONTEXT} characters, which is the upper bound for {CONTEXT} input tokens"
    message = f"{TOO_LONG} {length} characters ({bound}). {SHORTEN} (parameter=input_text, value={length})"
    assert (reply.status, reply.error["type"], reply.error["param"]) == (400, "BadRequestError", "input_text")
    assert reply.error["message"] == message


@own_server
async def test_an_answer_ends_where_the_context_ends(client: Client) -> None:
    """Prompt and limit together may ask for more than there is; nothing refuses that."""
    messages = [{"role": "user", "content": "License " * 900}]
    body = await client.completion(messages=messages, max_tokens=CONTEXT, ignore_eos=True)

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["prompt_tokens"] > 900
    assert body["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_more_output_than_the_context_is_refused(client: Client, field: str) -> None:
    """Before the prompt is looked at."""
    card = (await client.send("GET", "/v1/models")).body["data"][0]
    asked, limit = card["max_model_len"] + 1, card["max_model_len"]
    reply = await client.chat(**{"max_tokens": None, field: asked})

    message = f"{field}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
    assert (reply.status, reply.error["param"]) == (400, field)
    assert reply.error["message"] == f"{message} (parameter={field}, value={asked})"


@own_server
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            f"{MODEL} is not a multimodal model",
        ),
        (
            {"structured_outputs": {"json": {"type": "objekt"}}},
            "Grammar error: Invalid type: objekt",
        ),
    ],
)
async def test_what_this_server_was_not_set_up_for_is_refused(
    client: Client, fields: dict[str, Any], message: str
) -> None:
    """Tools without a parser, images, a schema that the backend does not know."""
    reply = await client.chat(**fields)

    assert (reply.status, reply.error) == (
        400,
        {"message": message, "type": "BadRequestError", "param": None, "code": 400},
    )


def detail(kind: str, place: str, problem: str, given: str) -> dict[str, Any]:
    """One of pydantic's errors, as vLLM shows it."""
    return {"type": kind, "loc": place, "msg": problem, "input": given}


NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"
NO_OBJECT = "Input should be a valid dictionary or object to extract fields from"
UNREADABLE: list[tuple[bytes, dict[str, Any]]] = [
    (b"{}", detail("missing", "body.messages", "Field required", "<dict of 0 items>")),
    (b'{"messages": "hi"}', detail("list_type", "body.messages", "Input should be a valid list", "hi")),
    (b'{"messages": [], "priority": "hi"}', detail("int_parsing", "body.priority", NO_INTEGER, "hi")),
    (b"[]", detail("model_attributes_type", "body", NO_OBJECT, "<list of 0 items>")),
    *(
        (
            body,
            detail("json_invalid", place, "JSON decode error", "<dict of 0 items>")
            | {"ctx": {"error": "Expecting value"}},
        )
        for body, place in ((b'{"messages": [}', "body.14"), (b"\xff\xfe", "body.0"))
    ),
]


@pytest.mark.parametrize(("body", "expected"), UNREADABLE)
async def test_an_unreadable_body_is_a_bad_request(client: Client, body: bytes, expected: dict[str, Any]) -> None:
    """The type has a space in it; the message is pydantic's and names the place."""
    reply = await client.send("POST", "/v1/chat/completions", body)

    message = f"1 validation error:\n  {expected}"
    error = {"message": message, "type": "Bad Request", "param": expected["loc"], "code": 400}
    assert (reply.status, reply.error) == (400, error)


async def test_several_wrong_fields_are_all_named(client: Client) -> None:
    """The first one is the param."""
    reply = await client.chat(n="a", seed="b")

    first, *lines = reply.error["message"].split("\n")
    assert (reply.status, first, reply.error["param"]) == (400, "2 validation errors:", "body.n")
    assert ["'loc': 'body.n'" in lines[0], "'loc': 'body.seed'" in lines[1]] == [True, True]


@pytest.mark.parametrize("fields", [{"messages": [{"content": "x"}]}, {"response_format": {"type": "nope"}}])
async def test_a_wrong_part_of_a_field_is_a_bad_request(client: Client, fields: dict[str, Any]) -> None:
    """vLLM lists every alternative of its own models here, which only it has."""
    reply = await client.chat(**fields)

    assert (reply.status, reply.error["type"]) == (400, "Bad Request")
    assert re.match(r"\d+ validation errors?:\n  \{'type': '", reply.error["message"])
    assert reply.error["param"].startswith(f"body.{next(iter(fields))}.")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_another_content_type_is_refused(client: Client, content_type: str) -> None:
    """Only JSON is read."""
    body = json.dumps({"messages": HELLO}).encode()
    reply = await client.send("POST", "/v1/chat/completions", body, {"Content-Type": content_type})

    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    assert (reply.status, reply.error) == (
        400,
        {"message": message, "type": "Bad Request", "param": None, "code": 400},
    )


async def test_unknown_routes_and_methods(client: Client) -> None:
    """FastAPI's own bodies."""
    replies = [
        await client.send("GET", "/nope"),
        await client.send("GET", "/v1/nope"),
        await client.send("GET", "/v1/chat/completions"),
        await client.send("POST", "/v1/models", {}),
    ]

    missing, wrong = (404, {"detail": "Not Found"}), (405, {"detail": "Method Not Allowed"})
    assert [(reply.status, reply.body) for reply in replies] == [missing, missing, wrong, wrong]
    assert [reply.headers.get("Allow") for reply in replies[2:]] == ["POST", "GET"]


@own_server
@pytest.mark.parametrize("header", ["", "Bearer wrong", f"bearer {KEY}", KEY])
async def test_v1_asks_for_the_key(client: Client, header: str) -> None:
    """Its error is a plain string; how the scheme is written makes no difference."""
    sent = {"Authorization": header}
    reply = await client.send("GET", "/v1/models", headers=sent)
    unknown = await client.send("GET", "/v1/nope", headers=sent)

    right = header.lower() == f"bearer {KEY}"
    refused = (401, {"error": "Unauthorized"})
    assert (reply.status == 200) if right else ((reply.status, reply.body) == refused)
    assert (unknown.status, unknown.body) == ((404, {"detail": "Not Found"}) if right else refused)


@own_server
async def test_the_other_routes_ask_for_no_key(client: Client) -> None:
    """Whoever reaches the port can read them."""
    without = {"Authorization": ""}
    free = [(await client.send("GET", path, headers=without)).status for path in ("/health", "/metrics", "/version")]
    tokens = await client.send("POST", "/tokenize", {"prompt": "x"}, without)

    assert [*free, tokens.status] == [200] * 4


# --- what the server tells of itself --------------------------------------------------------------


async def test_the_model_list(client: Client) -> None:
    """Name, owner and room of each model."""
    reply = await client.send("GET", "/v1/models")

    card = next(card for card in reply.body["data"] if card["id"] == client.server.model)
    assert (reply.status, reply.body["object"], card["object"]) == (200, "list", "model")
    assert set(card) >= {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"}
    assert card["max_model_len"] > 0


@own_server
async def test_a_model_card_has_exactly_these_fields(client: Client) -> None:
    """Its permission among them."""
    (card,) = (await client.send("GET", "/v1/models")).body["data"]

    owner = {"simulator": "conclave-simulator", "vllm": "vllm"}[client.server.kind]
    assert (card["owned_by"], card["max_model_len"], card["parent"]) == (owner, CONTEXT, None)
    assert set(card) == {
        "id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission",
    }  # fmt: skip
    (permission,) = card["permission"]
    assert set(permission) == {
        "id", "object", "created", "allow_create_engine", "allow_sampling", "allow_logprobs", "allow_search_indices",
        "allow_view", "allow_fine_tuning", "organization", "group", "is_blocking",
    }  # fmt: skip


async def test_probes(client: Client) -> None:
    """Health and ping have no body; version and load have one field each."""
    health, ping = await client.send("GET", "/health"), await client.send("POST", "/ping")
    version, load = await client.send("GET", "/version"), await client.send("GET", "/load")

    assert [(reply.status, reply.body) for reply in (health, ping)] == [(200, "")] * 2
    assert (set(version.body), load.body) == ({"version"}, {"server_load": 0})


async def test_tokenize_counts_as_usage_does(client: Client) -> None:
    """The tokens of the messages are the prompt tokens of the completion."""
    reply = await client.send("POST", "/tokenize", {"messages": HELLO, "return_token_strs": True})
    plain = await client.send("POST", "/tokenize", {"prompt": "hello"})
    body = await client.completion()

    assert set(reply.body) == {"count", "max_model_len", "tokens", "token_strs"}
    assert reply.body["count"] == len(reply.body["tokens"]) == body["usage"]["prompt_tokens"]
    assert len(reply.body["token_strs"]) == reply.body["count"]
    assert plain.body["token_strs"] is None


async def test_tokenize_needs_a_text(client: Client) -> None:
    """A prompt or messages."""
    reply = await client.send("POST", "/tokenize", {})

    assert (reply.status, reply.error["type"], reply.error["param"]) == (400, "Bad Request", "body.prompt")
    assert "'missing', 'loc': 'body.messages'" in reply.error["message"]


# --- metrics --------------------------------------------------------------------------------------

LABELS = {"engine", "model_name"}
FAMILIES = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "num_requests_waiting_by_reason": "gauge",
    "kv_cache_usage_perc": "gauge",
    "prefix_cache_queries_total": "counter",
    "prefix_cache_hits_total": "counter",
    "prompt_tokens_total": "counter",
    "prompt_tokens_by_source_total": "counter",
    "prompt_tokens_cached_total": "counter",
    "generation_tokens_total": "counter",
    "num_preemptions_total": "counter",
    "request_success_total": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "request_time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_inference_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "request_prompt_tokens": "histogram",
    "request_generation_tokens": "histogram",
    "request_max_num_generation_tokens": "histogram",
    "request_params_n": "histogram",
    "request_params_max_tokens": "histogram",
    "iteration_tokens_total": "histogram",
}
"""What dashboards, alerts and load tests read."""
OWN_LABELS = {
    "num_requests_waiting_by_reason": {"reason": {"capacity", "deferred"}},
    "request_success_total": {"finished_reason": {"stop", "length", "abort", "error", "repetition"}},
    "prompt_tokens_by_source_total": {"source": {"local_compute", "local_cache_hit", "external_kv_transfer"}},
}


async def test_metrics_have_these_names_and_types(client: Client) -> None:
    """Whoever reads the page finds them by name."""
    await client.completion()
    page = (await client.send("GET", "/metrics")).body

    types = dict(re.findall(r"^# TYPE vllm:(\S+) (\S+)$", page, re.MULTILINE))
    assert {name: types.get(name) for name in FAMILIES} == FAMILIES


async def test_samples_carry_these_labels(client: Client) -> None:
    """Engine and model, and where there is one, the reason."""
    await client.completion()
    samples = (await client.samples()).keys()

    for name, kind in FAMILIES.items():
        ending = "(_bucket|_sum|_count)" if kind == "histogram" else ""
        found = [re.findall(r'(\w+)="([^"]*)"', one) for one in samples if re.match(rf"vllm:{name}{ending}\{{", one)]
        further = OWN_LABELS.get(name, {})
        for labels in found:
            assert {label for label, _ in labels} - {"le"} == LABELS | set(further), name
        for label, values in further.items():
            assert {dict(labels)[label] for labels in found} == values
        assert found, name


async def test_admission_is_counted_without_an_engine(client: Client) -> None:
    """The one family that has no engine: it counts what never got there."""
    samples = (await client.samples()).keys()

    found = {
        re.search('reason="([^"]*)"', one)[1] for one in samples if one.startswith("vllm:admission_rejections_total{")
    }
    assert found == {"max_num_queued_reqs", "max_num_queued_tokens"}
    assert not [one for one in samples if one.startswith("vllm:admission") and "engine=" in one]


@own_server
async def test_counters_move_by_the_usage(client: Client) -> None:
    """Tokens and finish reasons of /metrics are those of the answers."""
    names = ("generation_tokens_total", "prompt_tokens_total", "e2e_request_latency_seconds_count")

    async def counted() -> list[float]:
        sums = [await client.metric(name) for name in names]
        return [*sums, await client.metric("request_success_total", finished_reason="length")]

    before = await counted()
    usages = [(await client.completion(seed=seed, max_tokens=10, ignore_eos=True))["usage"] for seed in (1, 2)]
    after = await counted()

    moved = [new - old for new, old in zip(after, before, strict=True)]
    assert moved == [20, sum(usage["prompt_tokens"] for usage in usages), 2, 2]


@own_server
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_noticed(client: Client, stream: bool) -> None:
    """The request ends in the server; no counter of finished requests tells of it."""
    async with client.busy(2, stream=stream):
        before = await client.metric("request_success_total")
    await client.until("num_requests_running", lambda running: running == 0)

    assert await client.metric("request_success_total") == before
