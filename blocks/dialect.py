"""What a server's API takes of a request: all of it as vLLM does, or less, as its refusals have told.

One table says which field may be asked for in another way, or left out: none of them changes the task, only how an
answer to it is drawn, bounded or formed. The words of refusals are those of OpenAI's API reference
(`unsupported_parameter`, `unsupported_value`), of pydantic's 422, and of servers that reports of their users quote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

UNLISTED = (404, 405, 501)
"""HTTP statuses of a server that does not list its models."""
REFUSING = (400, 422)
"""HTTP statuses with which a field is refused."""

NEXT: dict[tuple[str, str], str | None] = {
    ("max_tokens", "max_tokens"): "max_completion_tokens",
    ("max_tokens", "max_completion_tokens"): None,
    ("temperature", "temperature"): None,
    ("seed", "seed"): None,
    ("stream_options", "stream_options"): None,
    ("response_format", "json_schema"): "json_object",
    ("response_format", "json_object"): None,
}
"""By field, and by how it was asked for: how it is asked for next; None: not at all."""

MAX_PARSED = 1 << 20
"""Bytes of a refusal that is read as JSON; a longer one is read as words."""
MAX_WORDS = 65_536
"""Characters of a refusal that are searched."""
FIELDS = tuple(dict.fromkeys(field for field, _ in NEXT))
TELL_S = 86_400.0
"""How long what a server's refusals told is believed; then it is asked as any other, and may have learnt."""
_IN_WORDS = {
    **{field: re.compile(rf"\b{field}\b") for field in FIELDS},
    "max_tokens": re.compile(r"\bmax_(?:completion_)?tokens\b"),
    "response_format": re.compile(r"\bresponse[_ ]format\b|\bjson_(?:schema|object)\b"),
}

_UNSUPPORTED = re.compile(
    r"unsupported|not (?:be )?supported|n't support|not support|unavailable|not (?:be )?(?:allowed|permitted|accepted)"
    r"|unexpected|unknown|unrecogni[sz]ed|extra[_ ](?:inputs|fields|forbidden)|only the default|not one of"
    r"|must be (?:one of|'?(?:text|json_object))",
    re.IGNORECASE,
)
_OF_CONTENT = re.compile(r"\b(?:content|prompt|polic(?:y|ies)|moderation|flagged|safety|api key)\b", re.IGNORECASE)
"""What was asked, or who asked, is refused: its words may quote that, and name a field by chance."""
_NO_PARAMETER = re.compile(r"\b(?:unsupported_parameter|unknown_parameter|extra_forbidden)\b")
"""Codes that leave nothing open."""
_OUT_OF_BOUNDS = re.compile(
    r"too (?:large|long|many|big|small)|exceed|(?:greater|less|more|higher|lower|larger|smaller) than|context length"
    r"|maximum(?! number of)|minimum|at (?:most|least)|up to|\.\.|between|\brange\b|[<>]=|[\u2264\u2265]",
    re.IGNORECASE,
)
"""A value out of bounds is the caller's, and asking in another way would hide it."""
_ECHOED = ("input", "body", "request", "messages")
"""Keys under which a refusal repeats what was sent."""
_ECHO_IN_WORDS = re.compile(rf"""['"](?:{"|".join(_ECHOED)})\\?['"]\s*:.*""", re.DOTALL)


@dataclass(frozen=True)
class Dialect:
    """How a server is asked: what stands in place of a field, None where it is left out."""

    max_tokens: str | None = "max_tokens"
    temperature: str | None = "temperature"
    seed: str | None = "seed"
    stream_options: str | None = "stream_options"
    response_format: str | None = "json_schema"

    @property
    def differences(self) -> dict[str, str | None]:
        """The fields that are asked for otherwise than of vLLM, and how: what is kept of a dialect."""
        usual = vars(Dialect())
        return {field: asked for field, asked in vars(self).items() if asked != usual[field]}

    @property
    def changes(self) -> tuple[str, ...]:
        """The same in words: `no seed`, `max_completion_tokens for max_tokens`."""
        usual, changes = Dialect(), []
        for field, now in self.differences.items():
            before = getattr(usual, field)
            changes.append(f"no {before}" if now is None else f"{now} for {before}")
        return tuple(changes)

    def without(self, fields: Iterable[str]) -> Dialect:
        """The same, where somebody says that the server takes none of these fields."""
        return replace(self, **dict.fromkeys(fields, None))

    def usual_in(self, fields: Iterable[str]) -> Dialect:
        """The same, with these fields as they are asked of vLLM."""
        usual = Dialect()
        return replace(self, **{field: getattr(usual, field) for field in fields})

    @property
    def takes_schemas(self) -> bool:
        """Whether an answer can be held to a JSON schema."""
        return self.response_format == "json_schema"

    def spoken(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The request as this server takes it."""
        spoken = dict(payload)
        for field in ("temperature", "seed", "stream_options"):
            if getattr(self, field) is None:
                spoken.pop(field, None)
        if self.max_tokens != "max_tokens" and "max_tokens" in spoken:
            limit = spoken.pop("max_tokens")
            if self.max_tokens:
                spoken[self.max_tokens] = limit
        if _form(spoken) == "json_schema" and not self.takes_schemas:
            spoken["response_format"] = {"type": self.response_format}
        if self.response_format is None:
            spoken.pop("response_format", None)
        return spoken

    def after(self, status: int, body: bytes, sent: dict[str, Any]) -> Dialect | None:
        """How to ask once this refusal came for what was `sent`; None where it is about no field of it."""
        if status not in REFUSING:
            return None
        answer = _document(body)
        told = _without_name(_own_words(answer, body), str(sent.get("model") or ""))
        if not _NO_PARAMETER.search(told) and (not _UNSUPPORTED.search(told) or _OUT_OF_BOUNDS.search(told)):
            return None
        for field in _refused(answer, told, sent):
            asked = getattr(self, field)
            present = _form(sent) == asked if field == "response_format" else asked in sent
            if asked is not None and present:
                return replace(self, **{field: NEXT[field, asked]})
        return None


def read_dialect(differences: Any) -> Dialect:
    """The dialect that was kept; what a later version may have written is passed over."""
    told = differences if isinstance(differences, dict) else {}
    return Dialect(**{field: told[field] for field in FIELDS if field in told and _is_a_way(field, told[field])})


def _is_a_way(field: str, asked: Any) -> bool:
    return asked is None or (isinstance(asked, str) and (field, asked) in NEXT)


def _form(payload: dict[str, Any]) -> str | None:
    form = payload.get("response_format")
    return str(form.get("type")) if isinstance(form, dict) else None


def _refused(answer: Any, told: str, sent: dict[str, Any]) -> list[str]:
    """The fields that a refusal may be about: those that it names as such, else those in its words.

    None where it names another field of what was `sent`: its words may quote that one's value, or give advice.
    """
    named = [name.replace("max_completion_tokens", "max_tokens") for name in _named(answer)]
    known = [name for name in named if name in FIELDS]
    if known or not sent.keys().isdisjoint(named) or _OF_CONTENT.search(told):
        return known
    return [field for field in FIELDS if _IN_WORDS[field].search(told.lower())]


def _document(body: bytes) -> Any:
    """The JSON of a refusal; None of one that is none, or too long."""
    if len(body) > MAX_PARSED:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _own_words(answer: Any, body: bytes) -> str:
    """What a refusal says, without what it repeats of the request."""
    texts = [body[:MAX_WORDS].decode(errors="replace")] if answer is None else _texts(answer)
    return "\n".join(_ECHO_IN_WORDS.sub("", text[:MAX_WORDS]) for text in texts)[:MAX_WORDS]


def _without_name(told: str, model: str) -> str:
    """The words without a model's name, which may have a field's in it."""
    return re.sub(rf"(?<![\w-]){re.escape(model)}(?![\w-])", "", told) if model else told


def _texts(part: Any) -> Iterator[str]:
    """The texts of a part of an answer, but for those that it repeats."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for key, value in part.items():
            if key not in _ECHOED:
                yield from _texts(value)
    elif isinstance(part, list):
        for one in part:
            yield from _texts(one)


def _named(answer: Any) -> list[str]:
    """The parameters that a refusal names as such: in `param`, as OpenAI's API, or in pydantic's `loc`."""
    error, details = _part(answer, "error"), _part(answer, "detail")
    places = [_part(error, "param"), _part(answer, "param")]
    for detail in details if isinstance(details, list) else ():
        place = _part(detail, "loc")
        places += [part for part in place if part != "body"][:1] if isinstance(place, list) else []
    return [name[0] for place in places if isinstance(place, str) and (name := re.match(r"\w+", place))]


def _part(of: Any, name: str) -> Any:
    """A field of an object; None of anything else."""
    return of.get(name) if isinstance(of, dict) else None
