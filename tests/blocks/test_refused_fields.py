"""Which field a refusal is about: the one that it names as such, and only else those in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocks.dialect import Dialect

SENT = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "seed": 1,
    "temperature": 0.7,
    "max_tokens": 64,
    "top_k": 5,
}
WORDS = "Unsupported parameter; leave it out, as seed and temperature."


def openai(param: Any) -> dict[str, Any]:
    """A refusal as OpenAI's API words it."""
    return {"error": {"message": WORDS, "type": "invalid_request_error", "param": param}}


def pydantic(*place: Any) -> dict[str, Any]:
    """A refusal as FastAPI words pydantic's, which repeats what was given."""
    detail = {"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted", "input": "the seed"}
    return {"detail": [detail]}


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        (openai("temperature"), ("no temperature",)),
        (openai("max_tokens"), ("max_completion_tokens for max_tokens",)),
        ({"message": WORDS, "param": "temperature"}, ("no temperature",)),
        (pydantic("body", "temperature"), ("no temperature",)),
        (pydantic("temperature"), ("no temperature",)),
    ],
)
def test_the_field_that_a_refusal_names_is_asked_for_otherwise(answer: Any, changes: tuple[str, ...]) -> None:
    """Whatever other fields its words name."""
    narrower = Dialect().after(400, json.dumps(answer).encode(), SENT)

    assert narrower is not None
    assert narrower.changes == changes


@pytest.mark.parametrize(
    "answer",
    [
        openai("top_k"),
        openai("messages[0].content"),
        openai("messages.[0].content"),
        {"message": WORDS, "param": "top_k"},
        pydantic("body", "top_k"),
        pydantic("body", "messages", 0, "content"),
    ],
)
def test_a_refusal_of_another_field_changes_none_of_ours(answer: Any) -> None:
    """Its words may quote a value or give advice; the field that is refused was sent, and stays."""
    assert Dialect().after(422, json.dumps(answer).encode(), SENT) is None


@pytest.mark.parametrize("param", [None, "", "reasoning", 7, [], {}])
def test_words_tell_where_no_field_that_was_sent_is_named(param: Any) -> None:
    """`null`, no name at all, or the server's own word for something."""
    narrower = Dialect().after(400, json.dumps(openai(param)).encode(), SENT)

    assert narrower is not None
    assert narrower.changes == ("no temperature",)


@pytest.mark.parametrize(
    "body", [b"Unknown field: seed", b'"unknown: seed"', b'["unknown seed"]', b"\xff unknown seed"]
)
def test_a_refusal_without_fields_is_read_by_its_words(body: bytes) -> None:
    """Text, or JSON of another form."""
    narrower = Dialect().after(400, body, SENT)

    assert narrower is not None
    assert narrower.changes == ("no seed",)
