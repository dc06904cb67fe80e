"""Answers and their form on the wire: a completion in one body, or the events of a stream.

Shapes as in vLLM `entrypoints/openai/chat_completion/protocol.py`, and held to vLLM 0.32 by `tests/contract`: a
stream begins with the role, its last chunk with text has the finish_reason, then comes a chunk without choices
for the usage, then `[DONE]`; the fingerprint stands in the last of them. Unlike vLLM's, a chunk carries several
tokens, so that a long text stays cheap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.simulator.chat import ChatRequest, Prompt
from infra.simulator.players import Part
from infra.simulator.prefix_cache import CHARS_PER_TOKEN, count_tokens
from infra.simulator.structured import structured_text
from infra.simulator.text import compose, read_brief

FINGERPRINT = "conclave-simulator"
MAX_STEPS = 16
"""Chunks of text in a stream."""
DONE = b"data: [DONE]\n\n"

_BODY_NULLS = dict.fromkeys(
    ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics")
)
_MESSAGE_NULLS = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Answer:
    """One choice: its text, and why it ended."""

    text: str | None
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Its length; at least the one token that ends it."""
        return max(1, count_tokens(self.text or ""))


@dataclass(frozen=True)
class Completion:
    """All choices of one request, ready to be written."""

    id: str
    created: int
    model: str
    answers: tuple[Answer, ...]
    prompt_tokens: int
    cached_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of all choices."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def usage(self) -> dict[str, Any]:
        """What it took, in tokens."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
            "completion_tokens": self.tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "created_cache_tokens": 0},
        }

    def body(self) -> bytes:
        """The answer in one piece."""
        choices = [_choice(index, answer) for index, answer in enumerate(self.answers)]
        usage = {
            **self.usage,
            "prompt_tokens_details": {**self.usage["prompt_tokens_details"], "multimodal_tokens": None},
            "completion_tokens_details": None,
        }
        rest = {"choices": choices, "service_tier": None, "system_fingerprint": FINGERPRINT, "usage": usage}
        return _dumped({**self._head("chat.completion"), **rest, **_BODY_NULLS})

    def events(self, include_usage: bool) -> list[tuple[float, bytes]]:
        """The answer as a stream: from which share (0 to 1) of its time on, which events are there."""
        steps = max(1, min(MAX_STEPS, max(answer.tokens for answer in self.answers)))
        events = [(0.0, b"".join(self._roles()))]
        for step in range(steps):
            deltas = [{"content": _part(answer.text, step, steps)} for answer in self.answers]
            last = step == steps - 1
            events.append(((step + 1) / steps, b"".join(self._chunks(deltas, last, include_usage))))
        end = DONE
        if include_usage:
            end = self._chunk([], {"usage": self.usage, "system_fingerprint": FINGERPRINT}) + DONE
        return [*events, (1.0, end)]

    def _roles(self) -> Iterator[bytes]:
        for index in range(len(self.answers)):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield self._chunk([choice], {"prompt_token_ids": None, "prompt_text": None})

    def _chunks(self, deltas: list[dict[str, Any]], last: bool, include_usage: bool) -> Iterator[bytes]:
        signed = {"system_fingerprint": FINGERPRINT} if last and not include_usage else None
        for index, (answer, delta) in enumerate(zip(self.answers, deltas, strict=True)):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
            if last:
                choice |= {"finish_reason": answer.finish_reason, "stop_reason": None}
            yield self._chunk([choice], signed)

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        rest = _dumped({"choices": choices, **(more or {})})
        return b"data: " + self._chunk_head + rest[1:] + b"\n\n"

    @cached_property
    def _chunk_head(self) -> bytes:
        """What all chunks begin with, up to where another field follows."""
        return _dumped(self._head("chat.completion.chunk"))[:-1] + b","

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def generate(
    request: ChatRequest, prompt: Prompt, fresh_seed: int, limit: int, part: Part | None = None
) -> tuple[Answer, ...]:
    """The choices; choice i has seed + i. Raises ApiError (400) for a format that cannot be held.

    `fresh_seed` stands in for a missing seed.
    `limit` is the longest answer, in tokens. `part` is what a player makes of it.
    """
    brief = read_brief(prompt.system, prompt.user)
    seed = _seed(request, fresh_seed)
    fingerprint, answers = prompt.fingerprint, []
    for index in range(request.choices):
        key = f"{fingerprint}:{seed + index}"
        text = structured_text(request.response_format, request.structured_outputs, brief.words, key)
        if text is None:
            text = compose(brief, key)
            text = part.closed(text, index) if part else text
        elif part:
            text = part.structured(text, index)
        if request.ignore_eos:
            text *= 1 + limit * CHARS_PER_TOKEN // max(1, len(text))
        answers.append(_cut(Answer(text, "stop"), limit))
    return tuple(answers)


def _seed(request: ChatRequest, fresh_seed: int) -> int:
    """What the first choice is drawn with; temperature 0 is greedy, where vLLM has no use for a seed."""
    if request.temperature == 0:
        return 0
    return fresh_seed if request.seed is None else request.seed


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + _dumped(value) + b"\n\n"


def _cut(answer: Answer, limit: int) -> Answer:
    if answer.tokens <= limit or answer.text is None:
        return answer
    return Answer(answer.text[: limit * CHARS_PER_TOKEN], "length")


def _part(text: str | None, step: int, steps: int) -> str | None:
    if text is None:
        return None
    return text[len(text) * step // steps : len(text) * (step + 1) // steps]


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": answer.text, **_MESSAGE_NULLS},
        "logprobs": None,
        "finish_reason": answer.finish_reason,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }


def _dumped(value: dict[str, Any]) -> bytes:
    return _ENCODER.encode(value).encode()
