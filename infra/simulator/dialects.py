"""Dialects: what other servers with an OpenAI-compatible API take or say otherwise than vLLM, one name for each.

`--dialect NAME` puts one on for all requests, several of them together. The words are those that reports of users
quote of OpenAI's API, of FastAPI and pydantic, of Text Generation Inference, Mistral's API and of proxies.

| dialect | what the server does |
|---|---|
| max_completion_tokens | refuses max_tokens, and names the other field |
| no_limit | refuses both |
| default_temperature | refuses any temperature but 1 |
| no_seed, no_stream_options, no_response_format | refuses the field |
| json_object | refuses a JSON schema, and takes the older form |
| parts | sends the content as a list of parts, thinking among them |
| eos_token, end_turn, completed | calls the ends of an answer so |
| reasoning, reasoning_content | sends its thinking in that field |
| think, thought, reasoning_tags, think_brackets, harmony | leaves it in the text, between these marks |
| rate_limit, overloaded | refuses the first try of each X-Request-Id, with 429 or 529 |
| retry_after, retry_after_decimals, retry_after_ms, retry_after_date | the same, and says how long to wait |
| error_in_200 | answers 200 with an error inside |
| refusal | says in a field of its own that the model refuses |
| html, redirect | answers everything under /v1 with a proxy's page, or sends it elsewhere |
| no_models, bare_models | has no list of models, or a list without its object |
| one_piece | answers a stream in one piece |
| long_header | sends a header of 30 000 characters |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from aiohttp import web

from infra.simulator.answers import DONE, event
from infra.simulator.calls import Call, Calls
from infra.simulator.chat import ChatRequest
from infra.simulator.distortions import Events
from infra.simulator.errors import ApiError

Dialect = Literal[
    "max_completion_tokens", "no_limit", "default_temperature", "no_seed", "no_stream_options", "json_object",
    "no_response_format", "parts", "eos_token", "end_turn", "completed", "reasoning", "reasoning_content", "think",
    "thought", "reasoning_tags", "think_brackets", "harmony", "rate_limit", "overloaded", "retry_after",
    "retry_after_decimals", "retry_after_ms", "retry_after_date", "error_in_200", "refusal", "html", "redirect",
    "no_models", "bare_models", "one_piece", "long_header",
]  # fmt: skip
Dialects = tuple[Dialect, ...]

THOUGHT = "The task is read twice, then the simplest plan is taken."
DECLINED = "I cannot help with that."
ELSEWHERE = "https://elsewhere.example"
PAGE = "<html>\n<head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
WAIT_S = 0.2
"""For which a rate limit asks where it says so; a date has whole seconds."""
ENDS: dict[str, dict[str, str]] = {
    "eos_token": {"stop": "eos_token"},
    "end_turn": {"stop": "end_turn", "length": "max_tokens"},
    "completed": {"stop": "completed", "length": "max_output_tokens"},
}
MARKS = {
    "think": (f"<think>{THOUGHT}</think>\n\n", ""),
    "thought": (f"<thought>{THOUGHT}</thought>\n\n", ""),
    "reasoning_tags": (f"<reasoning>{THOUGHT}</reasoning>\n\n", ""),
    "think_brackets": (f"[THINK]{THOUGHT}[/THINK]", ""),
    "harmony": (
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
    ),
}
"""What stands before and behind a text in which the thinking was left."""


# --- what it refuses ------------------------------------------------------------------------------


def refuse(chat: ChatRequest, dialects: Dialects) -> None:
    """Raise the ApiError with which a server refuses a field, the first one that it does not take."""
    for name in dialects:
        found = _REFUSALS[name](chat) if name in _REFUSALS else None
        if found is not None:
            raise found


def limit(call: Call, calls: Calls, dialects: Dialects) -> None:
    """Raise the ApiError of a rate limit where this is the first try of a call."""
    for name in dialects:
        if name in _LIMITS and calls.is_first(call):
            status, headers = _LIMITS[name]
            raise ApiError(status, _words("Rate limit exceeded.", None, "rate_limit_exceeded").body, headers())


def _words(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A refusal as OpenAI's API words it."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return ApiError(400, {"error": error})


def _extra(field: str) -> ApiError:
    """A refusal as FastAPI words pydantic's."""
    detail = {"type": "extra_forbidden", "loc": ["body", field], "msg": "Extra inputs are not permitted"}
    return ApiError(422, {"detail": [detail]})


def _max_completion_tokens(chat: ChatRequest) -> ApiError | None:
    if chat.max_tokens is None:
        return None
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return _words(said, "max_tokens", "unsupported_parameter")


def _no_limit(chat: ChatRequest) -> ApiError | None:
    name, given = chat.output_limit
    return None if given is None else ApiError(422, {"detail": f"unexpected field {name}"})


def _default_temperature(chat: ChatRequest) -> ApiError | None:
    if chat.temperature in (None, 1):
        return None
    said = f"'temperature' does not support {chat.temperature} with this model. Only the default (1) is supported."
    return _words(f"Unsupported value: {said}", "temperature", "unsupported_value")


def _no_seed(chat: ChatRequest) -> ApiError | None:
    return None if chat.seed is None else _extra("seed")


def _no_stream_options(chat: ChatRequest) -> ApiError | None:
    return None if chat.stream_options is None else _words("unknown field stream_options")


def _json_object(chat: ChatRequest) -> ApiError | None:
    wanted = chat.response_format
    if wanted is None or wanted.type != "json_schema":
        return None
    return _words("This response_format type is unavailable now")


def _no_response_format(chat: ChatRequest) -> ApiError | None:
    return None if chat.response_format is None else _words("response_format is not supported by this model")


_REFUSALS: dict[str, Callable[[ChatRequest], ApiError | None]] = {
    "max_completion_tokens": _max_completion_tokens,
    "no_limit": _no_limit,
    "default_temperature": _default_temperature,
    "no_seed": _no_seed,
    "no_stream_options": _no_stream_options,
    "json_object": _json_object,
    "no_response_format": _no_response_format,
}


def _in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


_LIMITS: dict[str, tuple[int, Callable[[], dict[str, str]]]] = {
    "rate_limit": (429, dict),
    "overloaded": (529, dict),
    "retry_after": (429, lambda: {"Retry-After": "1"}),
    "retry_after_decimals": (429, lambda: {"Retry-After": str(WAIT_S)}),
    "retry_after_ms": (429, lambda: {"retry-after-ms": str(int(WAIT_S * 1000)), "Retry-After": "60"}),
    "retry_after_date": (429, lambda: {"Retry-After": _in_a_second()}),
}


# --- what it says ---------------------------------------------------------------------------------


def in_place(dialects: Dialects, path: str) -> web.Response | None:
    """What comes in place of every answer; None where it is answered."""
    if "redirect" in dialects:
        return web.Response(status=301, headers={"Location": f"{ELSEWHERE}{path}"})
    if "html" in dialects:
        return web.Response(text=PAGE, status=502, content_type="text/html")
    return None


def in_place_of_answer(dialects: Dialects) -> web.Response | None:
    """What comes in place of a completion alone."""
    if "error_in_200" not in dialects:
        return None
    return web.json_response({"error": {"message": "Insufficient credits", "code": 402}})


def respoken_models(listed: dict[str, Any], dialects: Dialects) -> web.Response:
    """The list of models, as this server has it."""
    if "no_models" in dialects:
        raise web.HTTPNotFound
    return web.json_response(listed["data"] if "bare_models" in dialects else listed)


def respoken_body(body: bytes, dialects: Dialects) -> bytes:
    """An answer in one piece, as this server says it."""
    if not dialects:
        return body
    answer = json.loads(body)
    for choice in answer["choices"]:
        _respeak(choice["message"], dialects, first=True, last=True)
        choice["finish_reason"] = _end(choice["finish_reason"], dialects)
    return json.dumps(answer, ensure_ascii=False).encode()


def respoken_events(events: Events, dialects: Dialects) -> Events:
    """A stream, as this server says it."""
    if not dialects:
        return events
    return [(share, b"".join(_respoken(data.split(b"\n\n"), dialects))) for share, data in events]


def _respoken(pieces: Iterable[bytes], dialects: Dialects) -> Iterable[bytes]:
    """The events of one step; `first` is the one that brings the role."""
    for piece in filter(None, pieces):
        if piece + b"\n\n" == DONE:
            yield DONE
            continue
        chunk = json.loads(piece.removeprefix(b"data: "))
        for choice in chunk["choices"]:
            last = choice["finish_reason"] is not None
            _respeak(choice["delta"], dialects, first="role" in choice["delta"], last=last)
            choice["finish_reason"] = _end(choice["finish_reason"], dialects)
        yield event(chunk)


def _end(reason: str | None, dialects: Dialects) -> str | None:
    for name in dialects:
        reason = ENDS.get(name, {}).get(reason or "", reason)
    return reason


def _respeak(said: dict[str, Any], dialects: Dialects, *, first: bool, last: bool) -> None:
    """Change a message, or one piece of it, of which the first and the last may have more."""
    for name in dialects:
        if name in MARKS:
            said["content"] = _marked(said.get("content") or "", name, first, last)
        elif name in ("reasoning", "reasoning_content"):
            said[name] = THOUGHT if first else None
        elif name == "refusal":
            said |= {"content": None, "refusal": DECLINED if first else None}
    if "parts" in dialects:
        said["content"] = _parts(said.get("content") or "", first)


def _marked(text: str, name: str, first: bool, last: bool) -> str:
    before, behind = MARKS[name]
    return f"{before if first else ''}{text}{behind if last else ''}"


def _parts(text: str, first: bool) -> list[dict[str, Any]]:
    """The text in two parts; before the first of them the thinking, in a list of its own as Mistral's API has it."""
    half = len(text) // 2
    texts = [{"type": "text", "text": part} for part in (text[:half], text[half:])]
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}] if first else []
    return [*thinking, *texts]
