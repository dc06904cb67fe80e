"""Events of others as requests: which field of a request is found where in an event.

A mapping is made of JMESPath expressions (https://jmespath.org/specification.html), a small language that reads JSON
and runs nothing; they come from the operator's file and never from an event. A text is an expression, `{value: ...}` is
a constant. Knows of no transport: whoever brings events (NATS, HTTP) decides what becomes of one that does not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Fields
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from tasks.council.base import MAX_INTEGER, NAME_PATTERN, NAME_RULE
from tasks.council.exceptions import InvalidRequest, WrongUse
from tasks.council.models import DeliberationRequest
from tasks.council.plain import SHOWN_INPUT, shortened

CONSTANT = "value"

_FAILING = (JMESPathError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What an expression raises on a value of another type; jmespath checks arguments, but not what operators compare."""


class MappingError(WrongUse):
    """A mapping that cannot be used; `key` names what is wrong, `problem` says what would be right."""

    def __init__(self, key: str, problem: str) -> None:
        self.key, self.problem = shortened(key, SHOWN_INPUT), shortened(problem)
        super().__init__(f"{self.key}: {self.problem}")


@dataclass(frozen=True)
class Constant:
    """A value that stands in the mapping itself."""

    value: Any

    def search(self, event: Any) -> Any:
        """The value, whatever the event is."""
        return self.value


Part = ParsedResult | Constant


@dataclass(frozen=True)
class Asked:
    """What an event asks for: the request, its fields, and an id if the mapping gives one."""

    request: DeliberationRequest
    fields: dict[str, Any]
    id: str | None


class Mapping:
    """How an event becomes a request."""

    def __init__(self, request: Fields[str, Part], when: Part | None, id_: Part | None) -> None:
        self._request, self._when, self._id = dict(request), when, id_

    @classmethod
    def read(cls, request: Fields[str, Any], when: Any = None, id_: Any = None) -> Mapping:
        """A mapping from its parts as a file has them. Raises MappingError."""
        known = set(DeliberationRequest.model_fields)
        if unknown := sorted(set(request) - known):
            raise MappingError(
                f"request.{unknown[0]}", f"is no field of a request; the fields are {', '.join(sorted(known))}"
            )
        if not {"task", "items"} & set(request):
            raise MappingError("request.task", "is missing: where in the event is the task, or for several the items?")
        parts = {name: _part(f"request.{name}", given) for name, given in request.items()}
        return cls(
            parts,
            None if when is None else _part("when", when),
            None if id_ is None else _part("id", id_),
        )

    def asked(self, event: Any) -> Asked | None:
        """What the event asks for; None where the condition does not hold. Raises InvalidRequest."""
        if self._when is not None and not _found("when", self._when, event):
            return None
        fields = {name: _found(name, part, event) for name, part in self._request.items()}
        request = DeliberationRequest.read(fields)
        given = {name: value for name, value in fields.items() if value is not None}
        return Asked(request, given, self._named(event))

    def _named(self, event: Any) -> str | None:
        if self._id is None:
            return None
        found = _found("id", self._id, event)
        if isinstance(found, int) and not isinstance(found, bool) and abs(found) <= MAX_INTEGER:
            found = str(found)
        if not isinstance(found, str) or re.fullmatch(NAME_PATTERN, found) is None:
            raise InvalidRequest("id", f"the event gives {_shown(found)}, which is no id; one is {NAME_RULE}")
        return found


def _part(key: str, given: Any) -> Part:
    if isinstance(given, dict) and set(given) == {CONSTANT}:
        return Constant(given[CONSTANT])
    if not isinstance(given, str) or not given.strip():
        raise MappingError(key, f"must be a JMESPath expression, such as title, or a constant: {{{CONSTANT}: dev}}")
    try:
        return jmespath.compile(given)
    except _FAILING as error:
        shown = shortened(repr(given), SHOWN_INPUT)
        raise MappingError(key, f"{shown} is no JMESPath expression: {_first_line(error)}") from error


def _found(field: str, part: Part, event: Any) -> Any:
    try:
        return part.search(event)
    except _FAILING as error:
        raise InvalidRequest(field, f"the event does not fit the mapping: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return shortened(lines[0], SHOWN_INPUT) if lines else type(error).__name__


def _shown(value: Any) -> str:
    """What was found in place of an id."""
    if value is None or isinstance(value, str | bool | float):
        return shortened(json.dumps(value), SHOWN_INPUT)
    return {list: "a list", dict: "an object", int: "a number of more than 64 bits"}.get(type(value), "an expression")
