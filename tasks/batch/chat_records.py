"""Records of a batch file of OpenAI's API, each line a request of its own, whose model names the council.

`{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "council/dev", "messages": []}}`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast, get_args

from tasks.batch.json_records import JsonRecords
from tasks.batch.records import BatchFileError, Fault, Record, Records
from tasks.council.base import NAME_PATTERN
from tasks.council.plain import SHOWN_INPUT, shortened
from tasks.council.stages import Strategy

ID, MESSAGES = "custom_id", "messages"
"""The columns of such a record."""
FORM = (ID, "method", "url", "body")
"""By which the first line tells that a file is one."""
URL, METHOD = "/v1/chat/completions", "POST"
PASSED_OVER = frozenset(
    (
        *("frequency_penalty", "max_completion_tokens", "max_tokens", "presence_penalty", "reasoning_effort", "seed"),
        *("temperature", "top_k", "top_p", "verbosity"),  # how a model samples, which members have settings for
        *("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "stream_options", "user"),
    )
)
"""Fields of a body that a council does without; they are counted, and told."""
_READ = ("model", MESSAGES)
_SAYS_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "response_format": ({"type": "text"},),
    "stream": (False,),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "logprobs": (False,),
    "modalities": (["text"],),
}
"""Values that ask for no more than an answer, of fields that could ask for more."""
_MODEL = re.compile(rf"council/(?P<council>{NAME_PATTERN.strip('^$')})(?::(?P<strategy>[a-z]+))?")
_MODELS = f"council/NAME or council/NAME:STRATEGY, the strategy one of {', '.join(get_args(Strategy))}"


class _Asked(NamedTuple):
    """Who is asked, and how it decides."""

    council: str
    strategy: Strategy | None


class ChatRecords(Records):
    """The records of a batch file of OpenAI's: the id and the messages of each request."""

    header, below_header = False, ""

    def __init__(self, lines: JsonRecords, first: Record) -> None:
        """Raises BatchFileError where the first line asks no council."""
        super().__init__(lines.name)
        self._lines = lines
        self.columns = {ID: None, MESSAGES: None}
        body = first.values["body"]
        model = body.get("model") if isinstance(body, dict) else None
        asked = _asked(model)
        if asked is None:
            told = f"body.model: {_shown(model)} is no council; the model is {_MODELS}"
            raise BatchFileError(f"{self.name} line {first.line}: {told}")
        self.council, self.strategy = asked

    def __iter__(self) -> Iterator[Record]:
        for record in self._lines:
            self.replaced = self._lines.replaced
            yield record if record.fault else self._request(record)

    def _request(self, record: Record) -> Record:
        values = record.values
        self._require("method", values, METHOD, record.line)
        self._require("url", values, URL, record.line)
        id_, body = values.get(ID), values.get("body")
        if not isinstance(id_, str) or not id_:
            return Record(record.line, {}, Fault(ID, "is no text", "has to be there, and a text that is not empty"))
        if not isinstance(body, dict):
            return Record(record.line, {}, Fault("body", "is no object", "has to be an object with model and messages"))
        if body.get("stream") is True:
            told = "body.stream: is true; a batch streams nothing"
            raise BatchFileError(f"{self.name} line {record.line}: {told}")
        fault = self._other_model(body.get("model")) or self._more_than_an_answer(body)
        return Record(record.line, {ID: id_, MESSAGES: body.get(MESSAGES)}, fault)

    def _require(self, field: str, values: Mapping[str, Any], only: str, line: int) -> None:
        if values.get(field) != only:
            told = f"{field}: {_shown(values.get(field))} cannot be asked; a batch takes {only} alone"
            raise BatchFileError(f"{self.name} line {line}: {told}")

    def _other_model(self, model: Any) -> Fault | None:
        """Why a row's model is not the one of the first."""
        asked = _asked(model)
        if asked == (self.council, self.strategy):
            return None
        if asked is None:
            return Fault("body.model", "is no council", f"{_shown(model)} is no council; the model is {_MODELS}")
        first = ":".join(filter(None, [self.council, self.strategy]))
        told = f"is {_shown(model)}; the first line asks council/{first}, and a batch asks one council in one way"
        return Fault("body.model", "is another council", told)

    def _more_than_an_answer(self, body: Mapping[str, Any]) -> Fault | None:
        """The first field that asks for what a council has not; those that can be passed over are counted."""
        for field, value in body.items():
            if field in _READ or value in (None, [], {}, ""):
                continue
            if field in PASSED_OVER:
                self.notes[f"body.{field} passed over: a council's members have settings of their own"] += 1
            elif value not in _SAYS_NOTHING.get(field, ()):
                told = f"{shortened(repr(value), SHOWN_INPUT)} cannot be asked: a council takes no such field"
                return Fault(f"body.{field:.100}", "cannot be asked", told)
        return None


def chat_or_plain(lines: JsonRecords) -> Records:
    """The records of JSONL, as requests where the first line is one. Raises BatchFileError."""
    first = lines.first
    if first is None or first.fault or not first.values.keys() >= set(FORM):
        return lines
    return ChatRecords(lines, first)


def _asked(model: Any) -> _Asked | None:
    found = _MODEL.fullmatch(model) if isinstance(model, str) else None
    if found is None or found["strategy"] not in (None, *get_args(Strategy)):
        return None
    return _Asked(found["council"], cast(Strategy | None, found["strategy"]))


def _shown(value: Any) -> str:
    return "nothing" if value is None else shortened(repr(value), SHOWN_INPUT)
