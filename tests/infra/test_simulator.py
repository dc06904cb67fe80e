"""The simulator as a client sees it: answers, streams, refusals, queue, book-keeping and metrics."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any

import aiohttp
import jsonschema
import pytest

from infra.simulator.prefix_cache import PrefixCache

pytestmark = pytest.mark.servers

USER = [{"role": "user", "content": "hello"}]
REVIEW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 60},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
        "rank": {"type": "integer", "minimum": 1, "maximum": 3},
        "agrees": {"type": "boolean"},
        "verdict": {"enum": ["accept", "revise", "reject"]},
        "version": {"const": 2},
        "points": {"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 2, "maxItems": 4},
        "order": {"type": "array", "items": {"enum": ["A", "B", "C"]}, "minItems": 3, "uniqueItems": True},
        "note": {"anyOf": [{"type": "string", "minLength": 30}, {"type": "null"}]},
    },
    "required": ["summary", "score", "rank", "agrees", "verdict", "version", "points", "order"],
    "additionalProperties": False,
    "$defs": {
        "point": {
            "type": "object",
            "properties": {"label": {"type": "string", "pattern": "^[A-Z]"}, "weight": {"type": "integer"}},
            "required": ["label"],
        }
    },
}


def error_of(body: Any) -> dict[str, Any]:
    """The error object, whose shape is always the same."""
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


# --- answers --------------------------------------------------------------------------------------


async def test_a_completion_has_vllms_shape(running: Any) -> None:
    """Id, choice, usage and fingerprint are where a client of vLLM looks for them."""
    async with running() as client:
        status, body = await client.chat("run-7.member-1")

    choice, usage = body["choices"][0], body["usage"]
    assert status == 200
    assert (body["id"], body["object"]) == ("chatcmpl-run-7.member-1", "chat.completion")
    assert (body["model"], body["system_fingerprint"]) == ("simulated", "conclave-simulator")
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (0, "assistant", "stop")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


async def test_the_request_id_comes_back_in_the_header(running: Any) -> None:
    """A client can match an answer with its request."""
    async with (
        running() as client,
        client.session.get(f"{client.url}/health", headers={"X-Request-Id": "abc"}) as response,
    ):
        assert response.headers["X-Request-Id"] == "abc"
        assert await response.read() == b""


async def test_a_missing_model_and_unknown_fields_are_accepted(running: Any) -> None:
    """As vLLM does, silently."""
    async with running() as client:
        status, _ = await client.chat(guided_choice=["a"], no_such_field=1)
        named, _ = await client.chat(model="simulated")

    assert (status, named) == (200, 200)


async def test_choices_count_up_from_the_seed(running: Any) -> None:
    """Choice i of n is the answer to seed + i."""
    async with running() as client:
        _, body = await client.chat(seed=5, n=3)
        seventh = await client.content(seed=7)

    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert texts[2] == seventh
    assert len(set(texts)) == 3


async def test_without_a_seed_answers_differ_unless_greedy(running: Any) -> None:
    """A missing seed is drawn afresh; temperature 0 has no use for one."""
    async with running() as client:
        free = [await client.content(seed=None) for _ in range(3)]
        greedy = [await client.content(seed=seed, temperature=0) for seed in (1, 2)]

    assert len(set(free)) > 1
    assert greedy[0] == greedy[1]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_cuts_the_text(running: Any, field: str) -> None:
    """A cut answer says so by its finish_reason and is the beginning of the whole one."""
    async with running() as client:
        whole = await client.content()
        _, body = await client.chat(**{field: 20})

    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 20
    assert whole.startswith(choice["message"]["content"])


async def test_content_may_come_in_parts(running: Any) -> None:
    """A list of text parts reads like one text."""
    parts = [{"type": "text", "text": "explain linked lists"}]
    async with running() as client:
        text = await client.content(messages=[{"role": "user", "content": parts}])

    assert "linked" in text


# --- streams --------------------------------------------------------------------------------------


async def test_a_stream_goes_from_role_to_done(running: Any) -> None:
    """Role, text, the finish_reason with the last text, usage without choices, `[DONE]`."""
    async with running() as client:
        events = await client.stream("s-1", stream_options={"include_usage": True})
        _, plain = await client.chat()

    *chunks, usage, done = events
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert done == "[DONE]"
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas) == plain["choices"][0]["message"]["content"]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], plain["usage"]["total_tokens"])
    assert {chunk["object"] for chunk in [*chunks, usage]} == {"chat.completion.chunk"}
    assert usage["system_fingerprint"] == "conclave-simulator"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-s-1"}


async def test_a_stream_without_the_option_has_no_usage(running: Any) -> None:
    """Usage comes only where it was asked for."""
    async with running() as client:
        events = await client.stream()

    assert all("usage" not in event for event in events[:-1])


async def test_a_stream_carries_all_choices(running: Any) -> None:
    """Chunks of several choices are told apart by their index."""
    async with running() as client:
        events = await client.stream(n=2, seed=3)
        second = await client.content(seed=4)

    chunks = [event["choices"][0] for event in events[:-1]]
    assert "".join(chunk["delta"]["content"] for chunk in chunks if chunk["index"] == 1) == second


async def test_a_stream_starts_before_it_ends(running: Any) -> None:
    """The first event is there before the last has been sent."""
    body = {"messages": USER, "stream": True}
    async with (
        running(latency_s=10) as client,
        client.session.post(f"{client.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.content_type == "text/event-stream"
        assert (await response.content.readline()).startswith(b"data: ")
        (entry,) = (await client.calls())["requests"]

    assert entry["started_at"] is not None
    assert entry["sent_at"] is None


# --- structured output ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
async def test_structured_output_is_valid_for_its_schema(running: Any, seed: int) -> None:
    """The answer parses, and every keyword that models are held to is kept."""
    asked = {"type": "json_schema", "json_schema": {"name": "review", "schema": REVIEW_SCHEMA}}
    async with running() as client:
        text = await client.content(seed=seed, response_format=asked)

    value = json.loads(text)
    jsonschema.validate(value, REVIEW_SCHEMA)
    assert sorted(value["order"]) == ["A", "B", "C"]


async def test_structured_output_repeats_and_varies_with_the_seed(running: Any) -> None:
    """The same seed gives the same value, others give others."""
    asked = {"type": "json_schema", "json_schema": {"name": "review", "schema": REVIEW_SCHEMA}}
    async with running() as client:
        texts = [await client.content(seed=seed, response_format=asked) for seed in (1, 1, 2, 3)]

    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 0.05},
        {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 9},
        {"type": "integer", "maximum": -3},
        {"type": ["string", "null"], "maxLength": 3},
        {"type": "string", "minLength": 200},
        {"type": "string", "pattern": "^[ -~]*$", "maxLength": 40},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "maxItems": 2},
        {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}]},
        {"type": "object", "required": ["free"]},
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"next": {"$ref": "#/$defs/tree"}}}}},
    ],
)
async def test_corners_of_a_schema_are_kept(running: Any, schema: dict[str, Any]) -> None:
    """Bounds, lengths, patterns and combinations give valid values too."""
    asked = {"type": "json_schema", "json_schema": {"name": "corner", "schema": schema}}
    async with running() as client:
        for seed in range(5):
            text = await client.content(seed=seed, response_format=asked)
            jsonschema.validate(json.loads(text), schema)


async def test_a_json_object_and_a_choice_are_kept(running: Any) -> None:
    """The two other ways to ask for structure."""
    async with running() as client:
        free = await client.content(response_format={"type": "json_object"})
        choice = await client.content(structured_outputs={"choice": ["yes", "no"]})

    assert isinstance(json.loads(free), dict)
    assert choice in ("yes", "no")


async def test_structured_output_that_is_cut_does_not_parse(running: Any) -> None:
    """Truncated JSON comes with HTTP 200 and finish_reason length, as with vLLM."""
    asked = {"type": "json_schema", "json_schema": {"name": "review", "schema": REVIEW_SCHEMA}}
    async with running() as client:
        status, body = await client.chat(response_format=asked, max_tokens=5)

    assert (status, body["choices"][0]["finish_reason"]) == (200, "length")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body["choices"][0]["message"]["content"])


# --- refusals -------------------------------------------------------------------------------------

ENDLESS = {"type": "array", "items": {"$ref": "#"}, "minItems": 2}


async def test_a_schema_without_an_end_is_refused(running: Any) -> None:
    """What else is refused, and how, `tests/contract` compares with vLLM."""
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": ENDLESS}}
    async with running() as client:
        status, body = await client.chat(response_format=asked)

    assert status == 400
    assert error_of(body)["message"] == "Grammar error: the schema has no end"


@pytest.mark.parametrize("outputs", [{"regex": "["}, {"regex": "[^\\w\\W]"}])
async def test_a_format_that_cannot_be_held_is_refused(running: Any, outputs: dict[str, Any]) -> None:
    """Rather than answered with anything, or with an error of ours."""
    async with running() as client:
        status, body = await client.chat(structured_outputs=outputs)

    assert status == 400
    assert error_of(body)["message"].startswith("Grammar error: ")


async def test_only_v1_and_its_own_routes_ask_for_the_key(running: Any) -> None:
    """The 401 is a plain string; health, metrics and tokenize answer without a key, as vLLM's do."""
    async with running(api_key="sk-test") as client:
        refused = [
            await client.chat(),
            await client.send("GET", "/v1/models", headers={"Authorization": "Bearer wrong"}),
            await client.send("GET", "/v1/models", headers={"Authorization": "Bearer sk-test-and-more"}),
            await client.send("GET", "/sim/calls"),
            await client.send("POST", "/sim/faults", {"kind": "500"}),
            await client.send("PUT", "/sim/players", {}),
            await client.send("DELETE", "/sim/calls"),
        ]
        key = {"Authorization": "Bearer sk-test"}
        status, _ = await client.send("GET", "/v1/models", headers=key)
        free = [(await client.send("GET", path))[0] for path in ("/health", "/metrics")]
        own, _ = await client.send("GET", "/sim/calls", headers=key)
        tokenized, _ = await client.send("POST", "/tokenize", {"prompt": "x"})

    assert refused == [(401, {"error": "Unauthorized"})] * 7
    assert [status, *free, own, tokenized] == [200] * 5


def test_the_key_comes_by_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM's does, since everybody can read a command line; an option wins."""
    from infra.simulator.__main__ import read_arguments

    monkeypatch.setenv("VLLM_API_KEY", "sk-environment")
    given, named = read_arguments([]), read_arguments(["--api-key", "sk-option"])
    assert given.api_key is not None
    assert named.api_key is not None
    assert given.api_key.get_secret_value() == "sk-environment"
    assert named.api_key.get_secret_value() == "sk-option"


# --- the other routes -----------------------------------------------------------------------------


async def test_the_model_list_says_who_serves_it(running: Any) -> None:
    """A client must be able to tell a simulator from a model."""
    async with running(model="tiny", max_model_len=512) as client:
        _, body = await client.send("GET", "/v1/models")

    card = body["data"][0]
    assert (card["id"], card["owned_by"], card["max_model_len"]) == ("tiny", "conclave-simulator", 512)


async def test_probes_answer(running: Any) -> None:
    """Health, ping, version and load."""
    async with running() as client:
        probes = [await client.send("GET", path) for path in ("/health", "/ping", "/load")]
        _, version = await client.send("GET", "/version")

    assert probes == [(200, ""), (200, ""), (200, {"server_load": 0})]
    assert "simulator" in version["version"]


async def test_tokenize_counts_as_usage_does(running: Any) -> None:
    """The tokens of the messages are the prompt tokens of the completion."""
    async with running() as client:
        _, tokens = await client.send("POST", "/tokenize", {"messages": USER})
        _, body = await client.chat(messages=USER)

    assert tokens["count"] == len(tokens["tokens"]) == body["usage"]["prompt_tokens"]


# --- pace, slots and queue ------------------------------------------------------------------------


async def test_an_answer_takes_its_time(running: Any) -> None:
    """A fixed latency goes before the time for each token, which else adds up."""
    async with (
        running(latency_s=0.2, ttft_s=20) as fixed,
        running(latency_s=None, ttft_s=0.1, tpot_s=0.01) as paced,
    ):
        times = []
        for client in (fixed, paced):
            before = time.monotonic()
            await client.chat(max_tokens=20)
            times.append(time.monotonic() - before)

    assert 0.2 <= times[0] < 15
    assert times[1] >= 0.3


async def test_jitter_stays_within_its_share(running: Any) -> None:
    """No answer is quicker than the latency less its share."""
    async with running(latency_s=0.1, jitter=0.5) as client:
        before = time.monotonic()
        await client.chat()

    assert time.monotonic() - before >= 0.05


async def test_requests_share_the_slots(running: Any) -> None:
    """Twice as many requests as slots take two rounds, not as many as there are requests."""
    async with running(latency_s=0.3, slots=8) as client:
        await asyncio.gather(*(client.chat(f"r-{number}") for number in range(16)))
        started = sorted(entry["started_at"] for entry in (await client.calls())["requests"])

    assert started[8] - started[0] >= 0.3
    assert started[15] - started[0] < 8 * 0.3


async def test_the_lowest_priority_is_served_first(running: Any) -> None:
    """Of those that wait the lowest number goes first, and equals in the order they came."""
    asked = {"late-a": 10, "late-b": 10, "urgent": -5, "normal": 0}
    async with running(slots=1) as client:
        await client.fault("hang", match="^first$")
        first = asyncio.create_task(client.chat("first"))
        await client.until("first", "started_at")
        waiting = []
        for number, (request_id, priority) in enumerate(asked.items(), start=1):
            waiting.append(asyncio.create_task(client.chat(request_id, priority=priority)))
            while await client.metric("num_requests_waiting") < number:
                await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(*waiting)
        calls = (await client.calls())["by_id"]

    order = sorted(asked, key=lambda request_id: calls[request_id]["started_at"])
    assert order == ["urgent", "normal", "late-a", "late-b"]


async def test_a_full_queue_refuses(running: Any) -> None:
    """One request more than slots and queue hold gets 503 and is counted."""
    async with running(slots=1, max_queue=0) as client:
        await client.fault("hang", match="^stuck$")
        stuck = asyncio.create_task(client.chat("stuck"))
        await client.until("stuck", "started_at")
        status, body = await client.chat()
        rejected = await client.metric("admission_rejections_total")
        stuck.cancel()

    error = error_of(body)
    assert (status, error["type"], error["code"]) == (503, "Service Unavailable", 503)
    assert rejected == 1


async def test_a_client_that_leaves_frees_its_slot(running: Any) -> None:
    """The next request is served at once, and the book notes the one that left."""
    async with running(slots=1) as client:
        await client.fault("hang", match="^stuck$")
        stuck = asyncio.create_task(client.chat("stuck"))
        await client.until("stuck", "started_at")
        stuck.cancel()
        status, _ = await client.chat("next")
        entry = await client.until("stuck", "aborted")
        running_now = await client.metric("num_requests_running")

    assert status == 200
    assert (entry["finish_reason"], entry["sent_at"]) == ("abort", None)
    assert running_now == 0


async def test_a_client_that_leaves_the_queue_takes_no_slot(running: Any) -> None:
    """A place in the queue is given up with the connection."""
    async with running(slots=1) as client:
        await client.fault("hang", match="^stuck$")
        stuck = asyncio.create_task(client.chat("stuck"))
        await client.until("stuck", "started_at")
        waiting = asyncio.create_task(client.chat("waiting"))
        await client.until("waiting", "received_at")
        waiting.cancel()
        await client.until("waiting", "aborted")
        left = await client.metric("num_requests_waiting")
        stuck.cancel()
        status, _ = await client.chat("next")

    assert (left, status) == (0, 200)


# --- book-keeping and metrics ---------------------------------------------------------------------


async def test_calls_are_counted_by_request_id(running: Any) -> None:
    """Every arrival counts, with its times in order; clearing forgets them."""
    async with running() as client:
        for request_id in ("a", "a", "b"):
            await client.chat(request_id)
        await client.chat("bad", max_tokens=-1)
        book = await client.calls()
        await client.send("DELETE", "/sim/calls")
        empty = await client.calls()

    first = book["requests"][0]
    assert book["calls"] == {"a": 2, "b": 1, "bad": 1}
    assert first["received_at"] <= first["started_at"] <= first["sent_at"]
    assert (first["status"], first["finish_reason"], first["aborted"]) == (200, "stop", False)
    assert (book["by_id"]["bad"]["status"], book["by_id"]["bad"]["started_at"]) == (400, None)
    assert empty["calls"] == {}


async def test_metrics_add_up_to_the_usage(running: Any) -> None:
    """Tokens, finish reasons and counts of /metrics are those of the answers."""
    async with running() as client:
        answers = [(await client.chat(seed=seed))[1] for seed in range(3)]
        await client.chat(max_tokens=4)
        await client.stream()
        generated = await client.metric("generation_tokens_total")
        stopped = await client.metric("request_success_total", finished_reason="stop")
        cut = await client.metric("request_success_total", finished_reason="length")
        served = await client.metric("e2e_request_latency_seconds_count")
        first_tokens = await client.metric("time_to_first_token_seconds_bucket", le="+Inf")

    plain = sum(answer["usage"]["completion_tokens"] for answer in answers)
    assert generated == plain + 4 + answers[1]["usage"]["completion_tokens"]
    assert (stopped, cut, served, first_tokens) == (4, 1, 5, 5)


async def test_a_repeated_prompt_hits_the_prefix_cache(running: Any) -> None:
    """Of 501 tokens 480 are full blocks of 32; another salt has a cache of its own."""
    template = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "x" * (501 * 4 - len(template))}]
    async with running() as client:
        usages = [(await client.chat(messages=messages))[1]["usage"] for _ in range(2)]
        _, salted = await client.chat(messages=messages, cache_salt="other")
        hits = await client.metric("prefix_cache_hits_total")
        queries = await client.metric("prefix_cache_queries_total")

    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert usages[0]["prompt_tokens"] == 501
    assert cached == [0, 480]
    assert salted["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert (hits, queries) == (480, 3 * 501)


def test_the_prefix_cache_hits_only_what_is_shared_and_stays_bounded() -> None:
    """Two prompts share their beginning; the oldest blocks make room."""
    cache = PrefixCache(max_blocks=10)
    shared = "s" * 256

    assert cache.admit(shared + "a" * 300) == 0
    assert cache.admit(shared + "b" * 300) == 64
    cache.admit("c" * 128 * 12)
    assert cache.admit(shared + "a" * 300) == 0


# --- as a process ---------------------------------------------------------------------------------


async def started(*options: str) -> tuple[asyncio.subprocess.Process, str]:
    """A simulator as a process of its own, and the address of its completions."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.simulator", "--port", "0", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    assert line.startswith("simulator listening on http://127.0.0.1:")
    return process, f"{line.rpartition(' ')[2]}/v1/chat/completions"


async def test_the_process_listens_answers_and_ends_on_sigterm() -> None:
    """One line when it is ready, the options in effect, status 0 though a request hangs."""
    hang = '{"kind": "hang", "match": "stuck"}'
    process, url = await started("--model", "tiny", "--latency", "0", "--fault", hang)
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(url, json={"messages": USER}) as response:
                body = await response.json()
            headers = {"X-Request-Id": "stuck"}
            stuck = asyncio.create_task(session.post(url, json={"messages": USER}, headers=headers))
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            status = await asyncio.wait_for(process.wait(), 20)
            with pytest.raises(aiohttp.ClientError):
                await stuck
    finally:
        if process.returncode is None:
            process.kill()

    assert body["model"] == "tiny"
    assert status == 0


async def test_the_process_dies_on_demand() -> None:
    """The fault `die` ends the process at once, and the client gets no answer."""
    process, url = await started("--fault", '{"kind": "die"}')
    try:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.post(url, json={"messages": USER})
        status = await asyncio.wait_for(process.wait(), 20)
    finally:
        if process.returncode is None:
            process.kill()

    assert status == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--slots", "0"), b"--slots: Input should be greater than or equal to 1"),
        (("--fault", '{"kind": "bang"}'), b"--fault: kind: must be one of slow, 500"),
    ],
)
async def test_wrong_options_are_named(options: tuple[str, ...], words: bytes) -> None:
    """The process leaves with status 2 and says what would be right."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.simulator", *options, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()

    assert process.returncode == 2
    assert words in said
