"""The wire format of `/v1/chat/completions`: what is sent, and what of the answer can be trusted.

Pure functions over bytes and dicts. Observed with vLLM 0.32: `[DONE]` is no proof of success, an error can
come inside a stream with HTTP 200, and a server that is stopped answers 200 with `finish_reason: abort`.
Source of the fields: vLLM `entrypoints/openai/chat_completion/protocol.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from html import unescape
from typing import TYPE_CHECKING, Any

from blocks.exceptions import ModelServerError, ModelServerRefused, ModelServerUnavailable
from tasks.council.plain import one_line, sound
from tasks.council.proposal import Usage

if TYPE_CHECKING:
    import aiohttp

INTERRUPTED = ("abort", "error")
"""Finish reasons of an answer that the server broke off: worth another attempt."""
ENDS = {
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "end_of_text", "complete", "completed"), "stop"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_length", "model_length"), "length"),
}
"""Other servers' words for the two ends of an answer that OpenAI's API calls `stop` and `length`."""
LIMITS = (429, 529)
"""HTTP statuses of a limit of calls in a time: too many of ours (RFC 6585), or of everybody's (Anthropic's API)."""
RETRYABLE = (408, 425, 429)
"""HTTP statuses below 500 that are worth another attempt."""
SHOWN_BYTES = 64 * 1024
MAX_NAME = 200
"""Characters of a model's name, and of another word of the server's about its answer."""
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,400})", re.IGNORECASE)
BEHIND = 10
"""How far behind the priority of its block a call comes that may wait; a lower one is served first."""
MAX_COUNT = 1 << 53
"""Above it, readers of JSON disagree about a whole number."""

_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What reading a body of another shape raises, be it deeply nested or with an infinite number in it."""


@dataclass(frozen=True)
class ChatCall:
    """One call of `/v1/chat/completions`; `in_words` is told where a server takes no JSON schema as in `extra`.

    One that `may_wait` is asked for behind others, where the server serves by priority.
    """

    messages: list[dict[str, str]]
    request_id: str
    seed: int
    temperature: float
    max_tokens: int
    model: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    in_words: str = ""
    may_wait: bool = False

    def worded(self) -> ChatCall:
        """The same call without its schema: the form of the answer in words behind its last message, if it has any."""
        if not self.in_words:
            return self
        *before, last = self.messages
        told = {**last, "content": f"{last['content']}\n\n{self.in_words}"}
        extra = {name: value for name, value in self.extra.items() if name != "response_format"}
        return replace(self, messages=[*before, told], extra=extra)


@dataclass(frozen=True)
class Completion:
    """One answer of a model, as the server gave it."""

    content: str | None
    reasoning: str | None
    finish_reason: str | None
    usage: Usage
    model: str
    engine: str


@dataclass
class _Streamed:
    """What the events of a stream have said so far."""

    model: str
    engine: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)

    def add_event(self, data: bytes) -> None:
        """Take in one event; raises ModelServerError where it is an error, or nothing that can be read."""
        try:
            chunk = json.loads(data)
            error = chunk.get("error")
            if not error:
                self._add(chunk)
        except _MALFORMED:
            raise ModelServerUnavailable(f"the stream carries no completion: {_shown(data)}") from None
        if error:
            raise _error_inside(error, data)

    def completion(self) -> Completion:
        """The whole; raises ModelServerUnavailable where the server did not say that it is."""
        if self.finish_reason is None:
            raise ModelServerUnavailable("the stream ended without a finish_reason")
        content, reasoning = sound("".join(self.content)), sound("".join(self.reasoning)) or None
        _check_not_declined(content, "".join(self.refusal))
        return _whole(Completion(content, reasoning, self.finish_reason, self.usage, self.model, self.engine))

    def _add(self, chunk: dict[str, Any]) -> None:
        if chunk.get("usage"):
            self.usage = _usage(chunk["usage"])
        self.model = read_name(chunk.get("model")) or self.model
        self.engine = _engine(chunk, self.engine)
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            content, thinking = _parts(delta.get("content"))
            self.content.append(content)
            self.reasoning += [thinking, _piece(delta.get("reasoning") or delta.get("reasoning_content"))]
            self.refusal.append(_piece(delta.get("refusal")))
            self.finish_reason = _end(choice) or self.finish_reason


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
        payload["priority"] = priority + (BEHIND if call.may_wait else 0)
    if stream:
        payload |= {"stream": True, "stream_options": {"include_usage": True}}
    return payload


def read_completion(body: bytes, model: str, engine: str) -> Completion:
    """Completion from a body; raises ModelServerUnavailable where it is none, or was broken off.

    Raises ModelServerRefused where it is an error that will not pass, or the model's refusal.
    """
    try:
        answer = json.loads(body)
        error = None if answer.get("choices") else answer.get("error")
        completion = None if error else _answered(answer, model, engine)
    except _MALFORMED:
        raise ModelServerUnavailable(f"the answer is no completion: {_shown(body)}") from None
    if completion is None:
        raise _error_inside(error, body)
    return _whole(completion)


def _answered(answer: dict[str, Any], model: str, engine: str) -> Completion:
    """The first choice of an answer; raises one of `_MALFORMED` where it has another shape, and the model's refusal."""
    choice = answer["choices"][0]
    message = choice["message"]
    content, thinking = _parts(message.get("content"))
    named = _piece(message.get("reasoning") or message.get("reasoning_content"))
    _check_not_declined(content, _piece(message.get("refusal")))
    return Completion(
        content=None if message.get("content") is None else sound(content),
        reasoning=sound("\n\n".join(filter(None, (named, thinking)))) or None,
        finish_reason=_end(choice) or None,
        usage=_usage(answer.get("usage")),
        model=read_name(answer.get("model")) or model,
        engine=_engine(answer, engine),
    )


async def read_stream(response: aiohttp.ClientResponse, model: str, engine: str, max_bytes: int) -> Completion:
    """Completion from server-sent events; raises ModelServerUnavailable on an error inside the stream."""
    streamed = _Streamed(model, engine)
    async for line in _lines(response, max_bytes):
        data = line.strip().removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            streamed.add_event(data)
    return streamed.completion()


def read_error(body: bytes) -> str:
    """Message of an error body, one line; vLLM's is an object, its 401 a plain string, FastAPI's `detail`."""
    try:
        answer = json.loads(body[:SHOWN_BYTES])  # what is longer is no error that anybody reads
        error = answer.get("error", answer.get("detail", answer)) if isinstance(answer, dict) else answer
        message = error.get("message", error) if isinstance(error, dict) else error
        return one_line(sound(str(message)), SHOWN_BYTES)
    except (ValueError, RecursionError):
        return _page(body) or _shown(body)


def _page(body: bytes) -> str | None:
    """What a proxy's HTML page is called; None where the body is none."""
    text = body[:SHOWN_BYTES].decode(errors="replace")
    if not _HTML.match(text):
        return None
    title = _TITLE.search(text)
    return f"an HTML page in place of an answer{f': {one_line(unescape(title[1]), MAX_NAME)}' if title else ''}"


async def _lines(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Lines of any length up to `max_bytes` in all; aiohttp's own reading of lines bounds each by its buffer.

    Each byte is looked at once, however small the pieces are in which a long line comes.
    """
    line, size = bytearray(), 0
    async for data in response.content.iter_any():
        size += len(data)
        if size > max_bytes:
            raise ModelServerUnavailable(f"the answer is longer than {max_bytes} bytes")
        *ends, begin = data.split(b"\n")
        for end in ends:
            line += end
            yield bytes(line)
            line.clear()
        line += begin
    yield bytes(line)


def _error_inside(error: Any, data: bytes) -> ModelServerError:
    """An error that came with HTTP 200, in a stream or in place of the answer."""
    code = _code(error)
    final = code is not None and 400 <= code < 500 and code not in RETRYABLE
    text = f"error inside the answer{'' if code is None else f' ({code})'}: {read_error(data)}"
    return ModelServerRefused(text) if final else ModelServerUnavailable(text, limited=code in LIMITS)


def _code(error: Any) -> int | None:
    """The HTTP status that an error object names, as `code` or `status`, a number or its digits."""
    told = [error.get(field) for field in ("code", "status")] if isinstance(error, dict) else []
    codes = [int(str(one)) for one in told if str(one).isdecimal() and len(str(one)) == 3]
    return codes[0] if codes else None


def _whole(completion: Completion) -> Completion:
    if completion.finish_reason in INTERRUPTED:
        raise ModelServerUnavailable(f"the server broke off: finish_reason {completion.finish_reason}")
    return completion


def _usage(usage: dict[str, Any] | None) -> Usage:
    usage = usage or {}
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")),
    )


def _count(value: Any) -> int:
    return min(max(0, int(value or 0)), MAX_COUNT)


def _engine(answer: dict[str, Any], engine: str) -> str:
    return "simulator" if answer.get("system_fingerprint") == "conclave-simulator" else engine


def _check_not_declined(content: str, refusal: str) -> None:
    """Raise ModelServerRefused with what a model says in place of a content (`refusal` in OpenAI's API)."""
    if refusal and not content:
        raise ModelServerRefused(f"the model refuses to answer: {one_line(sound(refusal), SHOWN_BYTES)}")


def _end(choice: dict[str, Any]) -> str:
    """Why an answer ended, in OpenAI's words where the server's are known; empty where it does not say."""
    said = read_name(choice.get("finish_reason"))
    return ENDS.get(said.lower(), said)


def _parts(content: Any) -> tuple[str, str]:
    """The text of a content and the thinking in it; some servers, such as Mistral's, send a list of parts."""
    if not isinstance(content, list):
        return _piece(content), ""
    text: list[str] = []
    thinking: list[str] = []
    for part in content:
        if part.get("type") in ("text", "output_text"):
            text.append(_piece(part.get("text")))
        elif part.get("type") in ("thinking", "reasoning"):
            said = part.get("thinking") or part.get("reasoning") or part.get("text")
            thinking.append("".join(_parts(said)))
    return "".join(text), "".join(thinking)


def _piece(value: Any) -> str:
    """A piece of a text, which may end within a character."""
    if value is None or isinstance(value, str):
        return value or ""
    raise TypeError("content is not text")


def read_name(value: Any) -> str:
    """A word of the server's about its answer; empty where there is none."""
    return one_line(sound(_piece(value)), MAX_NAME)


def _shown(body: bytes) -> str:
    """The body in one line; `VLLM` takes the key out of it and cuts it."""
    return repr(body[:SHOWN_BYTES].decode(errors="replace"))
