"""The wire format of `/v1/chat/completions`: what is sent, and what of the answer can be trusted.

Pure functions over bytes and dicts. Observed with vLLM 0.32: `[DONE]` is no proof of success, an error can
come inside a stream with HTTP 200, and a server that is stopped answers 200 with `finish_reason: abort`.
Source of the fields: vLLM `entrypoints/openai/chat_completion/protocol.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocks.exceptions import ModelServerRefused, ModelServerUnavailable
from tasks.council.models import Usage

if TYPE_CHECKING:
    import aiohttp

    from blocks.vllm_server import ChatCall

MAX_ERROR_CHARS = 500
INTERRUPTED = ("abort", "error")
"""Finish reasons of an answer that the server broke off: worth another attempt."""


@dataclass(frozen=True)
class Completion:
    """One answer of a model, as the server gave it."""

    content: str | None
    reasoning: str | None
    finish_reason: str | None
    usage: Usage
    model: str
    engine: str


def chat_payload(
    call: ChatCall, model: str, priority: int | None, stream: bool, extra: dict[str, Any]
) -> dict[str, Any]:
    """Body of the request; a priority is sent only if set, since vLLM refuses one without its policy."""
    payload: dict[str, Any] = {
        **extra,
        **call.extra,
        "model": model,
        "messages": call.messages,
        "seed": call.seed,
        "temperature": call.temperature,
        "max_tokens": call.max_tokens,
    }
    if priority is not None:
        payload["priority"] = priority
    if stream:
        payload |= {"stream": True, "stream_options": {"include_usage": True}}
    return payload


def read_completion(body: bytes, model: str, engine: str) -> Completion:
    """Completion from a body; raises ModelServerUnavailable where it is none, or was broken off."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message = choice["message"]
        completion = Completion(
            content=_text(message.get("content")),
            reasoning=_text(message.get("reasoning") or message.get("reasoning_content")),
            finish_reason=choice.get("finish_reason"),
            usage=_usage(answer.get("usage")),
            model=str(answer.get("model") or model),
            engine=_engine(answer, engine),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelServerUnavailable(f"the answer is no completion: {_shown(body)}") from error
    return _whole(completion)


async def read_stream(response: aiohttp.ClientResponse, model: str, engine: str, max_bytes: int) -> Completion:
    """Completion from server-sent events; raises ModelServerUnavailable on an error inside the stream."""
    parts: dict[str, list[str]] = {"content": [], "reasoning": []}
    finish_reason, usage, size = None, Usage(), 0
    async for line in response.content:
        size += len(line)
        if size > max_bytes:
            raise ModelServerUnavailable(f"answer is longer than {max_bytes} bytes")
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        chunk = _chunk(data)
        usage = _usage(chunk["usage"]) if chunk.get("usage") else usage
        model, engine = str(chunk.get("model") or model), _engine(chunk, engine)
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            parts["content"].append(delta.get("content") or "")
            parts["reasoning"].append(delta.get("reasoning") or delta.get("reasoning_content") or "")
            finish_reason = choice.get("finish_reason") or finish_reason
    if finish_reason is None:
        raise ModelServerUnavailable("the stream ended without a finish_reason")
    content, reasoning = "".join(parts["content"]), "".join(parts["reasoning"]) or None
    return _whole(Completion(content, reasoning, finish_reason, usage, model, engine))


def read_error(body: bytes) -> str:
    """Message of an error body; vLLM's is an object, its 401 a plain string, FastAPI's `detail`."""
    try:
        answer = json.loads(body)
    except ValueError:
        return _shown(body)
    error = answer.get("error", answer.get("detail", answer)) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:MAX_ERROR_CHARS]


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise ModelServerUnavailable(f"the stream carries no JSON: {_shown(data)}") from error
    if not isinstance(chunk, dict):
        raise ModelServerUnavailable(f"the stream carries no completion: {_shown(data)}")
    if "error" in chunk:
        cause = chunk["error"]
        code = cause.get("code") if isinstance(cause, dict) else None
        kind = ModelServerRefused if isinstance(code, int) and 400 <= code < 500 else ModelServerUnavailable
        raise kind(f"error inside the stream: {read_error(data)}")
    return chunk


def _whole(completion: Completion) -> Completion:
    if completion.finish_reason in INTERRUPTED:
        raise ModelServerUnavailable(f"the server broke off: finish_reason {completion.finish_reason}")
    return completion


def _usage(usage: dict[str, Any] | None) -> Usage:
    usage = usage or {}
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def _engine(answer: dict[str, Any], engine: str) -> str:
    return "simulator" if answer.get("system_fingerprint") == "conclave-simulator" else engine


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("content is not text")


def _shown(body: bytes) -> str:
    return repr(body[:120].decode(errors="replace"))
