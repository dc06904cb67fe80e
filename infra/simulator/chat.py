"""Requests to `/v1/chat/completions`: what they say, read tolerantly.

Fields as in vLLM `entrypoints/openai/chat_completion/protocol.py`; unknown ones are ignored with 200, as
observed with vLLM 0.32 (a misspelt option is silently without effect there too).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.simulator import errors
from infra.simulator.prefix_cache import count_tokens


class Message(BaseModel):
    """One turn; its content is text or a list of parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class ResponseFormat(BaseModel):
    """The form that an answer is to have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class StreamOptions(BaseModel):
    """What a stream says beside its text."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """The fields that have an effect here."""

    model_config = ConfigDict(frozen=True)

    messages: list[Message]
    model: str | None = None
    n: int | None = 1
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = None
    priority: int = 0
    cache_salt: str | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None

    @property
    def choices(self) -> int:
        """How many answers."""
        return 1 if self.n is None else self.n

    @property
    def output_limit(self) -> tuple[str, int | None]:
        """Name and value of the limit of the answer, in tokens."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the fields that were given a value, the form of the answer with its type."""
        given = [name for name in sorted(self.model_fields_set) if getattr(self, name) is not None]
        if self.response_format is not None:
            given[given.index("response_format")] += f":{self.response_format.type}"
        return tuple(given)

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream is to carry the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


@dataclass(frozen=True)
class Prompt:
    """The conversation as the model would read it."""

    text: str
    system: str
    user: str
    assistant: str

    @property
    def tokens(self) -> int:
        """Its length."""
        return count_tokens(self.text)

    @property
    def fingerprint(self) -> int:
        """A number that other prompts hardly share."""
        return zlib.crc32(self.text.encode())


class TokenizeRequest(BaseModel):
    """The fields of `/tokenize` that have an effect here."""

    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = False


Request = TypeVar("Request", ChatRequest, TokenizeRequest)


def parse(kind: type[Request], body: bytes, content_type: str) -> Request:
    """The request of a body; raises ApiError (400)."""
    if content_type != "application/json":
        raise errors.not_json()
    try:
        return kind.model_validate(json.loads(body))
    except json.JSONDecodeError as error:
        raise errors.invalid_json(error.pos, error.msg) from error
    except UnicodeDecodeError as error:
        raise errors.invalid_json(0, "Expecting value") from error
    except ValidationError as error:
        details: list[dict[str, Any]] = [dict(entry) for entry in error.errors(include_url=False)]
        raise errors.invalid_fields(details) from error


def render(messages: list[Message]) -> Prompt:
    """The messages in the ChatML template, the one of the models that the project is tried with."""
    turns = [(message.role, message.text) for message in messages]
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)

    def said_by(speaker: str) -> str:
        return "\n".join(content for role, content in turns if role == speaker)

    return Prompt(f"{text}<|im_start|>assistant\n", said_by("system"), said_by("user"), said_by("assistant"))
