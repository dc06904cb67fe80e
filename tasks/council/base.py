"""What every model of the domain is made of: names, text, JSON, the frozen base, and a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, GetPydanticSchema, StringConstraints
from pydantic_core import core_schema

from tasks.council.plain import SHOWN_INPUT, shortened

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
NAME_RULE = "1 to 64 of A-Z, a-z, 0-9, '_' and '-'"
MAX_TEXT = 100_000
"""Characters in one task, rubric or requirement; about 25 000 tokens."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""An id that becomes a NATS subject token: of a deliberation, an item, a council or a member."""


MAX_DEPTH = 32
"""Levels of lists and objects in a JSON value of a request; what reads it elsewhere recurses, and has its limit."""
MAX_NODES = 20_000
"""Values in one JSON object of a request, at all depths."""
MAX_JSON = 1 << 20
"""Bytes of one JSON object of a request."""
MAX_INTEGER = (1 << 63) - 1
"""Prefect's server and databases take whole numbers of 64 bits."""


class Size(NamedTuple):
    """How many values a JSON value has, at all depths, and its bytes."""

    nodes: int
    bytes: int


def size_of(value: Any) -> Size:
    """The size of a JSON value, which every reader can take. Raises ValueError. Never recurses deeper than allowed."""
    nodes = _nodes(value)
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"is no JSON object of sound text and finite numbers: {shortened(str(error), SHOWN_INPUT)}"
        ) from error
    if size > MAX_JSON:
        raise ValueError(f"has {size:,} bytes as JSON; {MAX_JSON:,} are taken")
    return Size(nodes, size)


def _nodes(value: Any) -> int:
    """How many values there are, counted level by level."""
    level, nodes = [value], 1
    for _ in range(MAX_DEPTH + 1):
        for one in level:
            _check_leaf(one)
        inner = [one for one in level if isinstance(one, dict | list | tuple)]
        nodes += sum(map(len, inner))
        if nodes > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES:,} values")
        if not inner:
            return nodes
        level = list(chain.from_iterable(map(_children, inner)))
    raise ValueError(f"is nested more than {MAX_DEPTH} deep")


def _children(value: dict[str, Any] | list[Any] | tuple[Any, ...]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_leaf(value: Any) -> None:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"has the key {shortened(repr(key), SHOWN_INPUT)}, which is no text")
            without_nul(key)
    elif isinstance(value, str):
        without_nul(value)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("has a whole number of more than 64 bits")


def without_nul(text: str) -> str:
    """The text, if there is no NUL character in it, which no database takes. Raises ValueError."""
    if "\0" in text:
        raise ValueError("has a NUL character in it")
    return text


def _bounded_json(value: dict[str, Any]) -> dict[str, Any]:
    size_of(value)
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_bounded_json)]
"""A JSON object of bounded depth and size: whoever accepted it can store it, digest it and read it back."""

Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT), AfterValidator(without_nul)
]


def one_of(names: Iterable[str]) -> GetPydanticSchema:
    """What makes a text one of these names, as a Literal of them would, where they are listed elsewhere."""
    return GetPydanticSchema(lambda _type, _handler: core_schema.literal_schema([*names]))


MAX_URL = 2_000
"""Characters of a callback's URL."""


def _callback_url(url: str) -> str:
    """The URL, if something can be sent to it. Raises ValueError."""
    if re.fullmatch("[!-~]+", url) is None:
        raise ValueError("must be a URL of printable ASCII characters without blanks")
    try:
        parts = urlsplit(url)
        place = (parts.hostname, parts.port != 0)
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not all(place):
        raise ValueError("must be an http or https URL")
    if "@" in parts.netloc:
        raise ValueError("must have no user and no password in it: what is sent is signed")
    if parts.fragment:
        raise ValueError("must have no fragment (#...), which nobody is sent")
    return url


CallbackUrl = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL), AfterValidator(_callback_url)]
"""A URL that callbacks may be asked to; whether its address may be connected to shows when that is done."""


class Frozen(BaseModel):
    """Base of every model here: immutable, and an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_record(cls, body: Any) -> Self:
        """The model from a body on the record or in the queue; fields that a later version wrote are passed over.

        Raises ValidationError.
        """
        return cls.model_validate(body, extra="ignore")


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
