"""What of a server's answer can be trusted: any body is a completion that can be stored, or a declared error."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.chat import MAX_COUNT, MAX_NAME, SHOWN_BYTES, Completion, read_completion, read_error, read_stream
from blocks.exceptions import ModelServerError
from tasks.council.plain import plain
from tests.conftest import cases

pytestmark = pytest.mark.servers

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=9)
    | st.sampled_from(["\ud800", "\ud83d", "\ude00", "\0", "\x1b]0;title\x07", "x" * 5_000, 10**4_000, -1, 2**53 + 1])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries({}, optional={"content": JSON, "reasoning": JSON, "reasoning_content": JSON})
CHOICES = st.lists(
    st.fixed_dictionaries({}, optional={"message": MESSAGES | JSON, "delta": MESSAGES | JSON, "finish_reason": JSON})
    | JSON,
    max_size=2,
)
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": JSON,
        "completion_tokens": JSON,
        "prompt_tokens_details": st.fixed_dictionaries({}, optional={"cached_tokens": JSON}) | JSON,
    },
)
ANSWERS = (
    st.fixed_dictionaries(
        {}, optional={"choices": CHOICES | JSON, "usage": USAGES | JSON, "model": JSON, "error": JSON, "detail": JSON}
    )
    | JSON
)


class Stream:
    """A response whose body comes in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.content, self._pieces = self, pieces

    async def iter_any(self) -> AsyncGenerator[bytes, None]:
        """The pieces."""
        for piece in self._pieces:
            yield piece


def check(completion: Completion) -> None:
    """Everything in it can be stored, and what is no text of the model's is short."""
    texts = (completion.content or "", completion.reasoning or "", completion.model, completion.finish_reason or "")
    for text in texts:
        text.encode()
        assert "\0" not in text
    for name in (completion.model, completion.finish_reason or ""):
        assert len(name) < MAX_NAME + 50
        assert name == plain(name)
    for count in completion.usage.model_dump().values():
        assert 0 <= count <= MAX_COUNT


def body(value: Any) -> bytes:
    """A value as a server may write it; surrogates are escaped."""
    return json.dumps(value).encode()


@settings(deadline=None, max_examples=cases(400))
@given(ANSWERS)
async def test_any_body_is_a_completion_or_a_declared_error(value: Any) -> None:
    """Whole or as a stream; its error too can be stored and is short."""
    try:
        check(read_completion(body(value), "m", "vllm"))
    except ModelServerError as error:
        str(error).encode()
    try:
        check(await read_stream(Stream(b"data: ", body(value), b"\n\n"), "m", "vllm", 1 << 20))  # type: ignore[arg-type]
    except ModelServerError as error:
        str(error).encode()
    said = read_error(body(value))
    said.encode()
    assert len(said) < 2 * SHOWN_BYTES


@settings(deadline=None)
@given(st.binary(max_size=200) | st.integers(1, 200_000).map(lambda depth: b'{"error":' + b"[" * depth))
async def test_any_bytes_are_an_error(data: bytes) -> None:
    """No JSON at all, or one that no parser takes."""
    with pytest.raises(ModelServerError):
        read_completion(data, "m", "vllm")
    with pytest.raises(ModelServerError):
        await read_stream(Stream(b"data: " + data), "m", "vllm", 1 << 20)  # type: ignore[arg-type]
    read_error(data).encode()


def test_a_deeply_nested_error_is_shown() -> None:
    """Its text would be written by recursion."""
    for depth in (100, 500, 900):
        assert read_error(b'{"error": ' + b"[" * depth + b"]" * depth + b"}")


def test_odd_words_and_numbers_of_an_answer_are_cleaned() -> None:
    """The scenario: a lone surrogate and five megabytes for a name, a count of 4000 digits."""
    answer = {
        "model": "\ud800\x1b[31m" + "x" * 5_000_000,
        "choices": [{"message": {"content": "a\ud800b\0"}, "finish_reason": "stop\n" + "y" * 500}],
        "usage": {"prompt_tokens": int("9" * 4_000), "completion_tokens": -5},
    }
    found = read_completion(body(answer), "m", "vllm")
    check(found)
    assert found.content == "a\ufffdb\ufffd"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (MAX_COUNT, 0)


async def test_a_character_in_two_pieces_of_a_stream_is_whole() -> None:
    """Each piece has half of it, as a server may send that cuts by UTF-16 units."""
    chunks = [
        {"choices": [{"delta": {"content": part}, "finish_reason": reason}]}
        for part, reason in (("a\ud83d", None), ("\ude00b", "stop"))
    ]
    sent = b"".join(b"data: " + body(chunk) + b"\n\n" for chunk in chunks)
    found = await read_stream(Stream(sent), "m", "vllm", 1 << 20)  # type: ignore[arg-type]
    assert found.content == "a\U0001f600b"


async def test_a_long_line_that_trickles_costs_no_more_than_its_bytes() -> None:
    """The same bytes in as many pieces, once as one line and once as many, take about as long to read."""
    answer = b"data: " + body({"choices": [{"delta": {"content": "x" * 600_000}, "finish_reason": "stop"}]})
    pieces = [answer[at : at + 20] for at in range(0, len(answer), 20)]
    comments = [b":" + b"-" * 18 + b"\n"] * len(pieces)
    short = b"data: " + body({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]})
    in_one, in_many = [], []
    for _ in range(3):
        in_one.append(await seconds_to_read(*pieces))
        in_many.append(await seconds_to_read(*comments, short))
    assert min(in_one) < 5 * min(in_many)


async def seconds_to_read(*pieces: bytes) -> float:
    """Processor time for one stream."""
    started = time.process_time()
    check(await read_stream(Stream(*pieces), "m", "vllm", 1 << 20))  # type: ignore[arg-type]
    return time.process_time() - started
