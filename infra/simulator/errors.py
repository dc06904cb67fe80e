"""vLLM's error bodies, word for word as observed with vLLM 0.32.

The shape is `ErrorResponse` of vLLM `entrypoints/openai/engine/protocol.py`; the message of a refused
parameter is that of `VLLMValidationError` (`vllm/exceptions.py`). Three bodies are shaped otherwise there
too: the 401, whose error is a plain string, and the 404 and 405 of unknown routes, which are FastAPI's.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
QUEUE_FULL = "The engine is currently busy and cannot accept new requests."
TRY_ELSEWHERE = "Please try again later or on a different instance."
TOO_LONG_ALONE = ", which exceeds this limit even without any output tokens"
MAX_SHOWN_CHARS = 200
MAX_CHARS_PER_TOKEN = 32


class ApiError(Exception):
    """A request that is answered with an error: its HTTP status, JSON body and further headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """The answer as it will be sent."""
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def error_body(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    """vLLM's ErrorResponse."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refused(message: str, param: str | None = None) -> ApiError:
    """400 without a value in the message (vLLM's ValueError path)."""
    return ApiError(400, error_body(message, "BadRequestError", param, 400))


def refused_value(message: str, param: str, value: object) -> ApiError:
    """400 for one parameter, whose name and value vLLM adds to the message."""
    return refused(f"{message} (parameter={param}, value={value})", param)


def bad_request(message: str, param: str | None = None) -> ApiError:
    """400 of a body that could not be read at all; its type is "Bad Request", with a space."""
    return ApiError(400, error_body(message, "Bad Request", param, 400))


def invalid_fields(errors: list[dict[str, Any]]) -> ApiError:
    """400 for pydantic's errors, as vLLM's `validation_exception_handler` words them."""
    shown = [_shown(_as_fastapi(error)) for error in errors]
    label = "error" if len(shown) == 1 else "errors"
    lines = "\n".join(f"  {error}" for error in shown)
    return bad_request(f"{len(shown)} validation {label}:\n{lines}", shown[0]["loc"])


def invalid_json(position: int, problem: str) -> ApiError:
    """400 of a body that is no JSON, naming the position."""
    details = {"type": "json_invalid", "loc": (position,), "msg": "JSON decode error"}
    return invalid_fields([{**details, "input": {}, "ctx": {"error": problem}}])


def not_json() -> ApiError:
    """400 of a body of another content type."""
    return bad_request("1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")


def unauthorized() -> ApiError:
    """401 of a wrong or missing key."""
    return ApiError(401, {"error": "Unauthorized"})


def unknown_model(wanted: str, served: str) -> ApiError:
    """404 of a model that is not served."""
    message = f"The model `{wanted}` does not exist. Valid aliases: {served}."
    return ApiError(404, error_body(message, "NotFoundError", "model", 404))


def prompt_too_long(max_model_len: int, characters: int | None = None) -> ApiError:
    """400 of a prompt that is longer than the context, in tokens.

    `characters` is the length of a text so long that vLLM refuses it before it counts tokens.
    """
    if characters is None:
        param, value = "input_tokens", max_model_len + 1
        found = f"at least {value} input tokens{TOO_LONG_ALONE}"
    else:
        param, value = "input_text", characters
        bound = f"{max_model_len * MAX_CHARS_PER_TOKEN} characters, which is the upper bound for {max_model_len}"
        found = f"{characters} characters (more than {bound} input tokens)"
    limit = f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains {found}."
    return refused_value(f"{limit} Please reduce the length of the input prompt.", param, value)


def engine_dead() -> ApiError:
    """500 of a request that was under way when the engine died."""
    return ApiError(500, error_body(ENGINE_DEAD, "InternalServerError", None, 500))


def busy(headers: dict[str, str] | None = None) -> ApiError:
    """503 of a full queue (vLLM's QueueOverflowError; its source, not observed)."""
    message = f"{QUEUE_FULL} {TRY_ELSEWHERE}"
    return ApiError(503, error_body(message, HTTPStatus(503).phrase, None, 503), headers)


def too_many_requests(headers: dict[str, str] | None = None) -> ApiError:
    """429 as a proxy in front of vLLM would send it; vLLM itself sends none."""
    return ApiError(429, error_body("Rate limit exceeded.", HTTPStatus(429).phrase, None, 429), headers)


def _as_fastapi(error: dict[str, Any]) -> dict[str, Any]:
    """The error in FastAPI's words: it reads the attributes of what it was given, be it a dict or not."""
    if error["type"] != "model_type":
        return error
    problem = "Input should be a valid dictionary or object to extract fields from"
    return {"type": "model_attributes_type", "loc": error["loc"], "msg": problem, "input": error["input"]}


def _shown(error: dict[str, Any]) -> dict[str, Any]:
    location = ".".join(str(part) for part in ("body", *error["loc"]))
    return {**error, "loc": location, "input": _summary(error["input"])}


def _summary(value: object) -> object:
    if isinstance(value, list | dict):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}...[truncated]"
