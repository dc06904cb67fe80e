"""The manifest of an output: what was asked, which parts there are, and what the engine keeps."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from tasks.batch.output.disk import replace_bytes
from tasks.batch.output.errors import OutputError, read
from tasks.batch.records import BatchFileError
from tasks.council.base import Frozen
from tasks.council.plain import SHOWN_INPUT, one_line
from tasks.council.problems import first_problem

NAME = "manifest.json"
FORMAT = 1
MAX_STATE = 64 << 10
"""Bytes of JSON of each state."""


class Part(Frozen):
    """One part that was written whole: its place in the sequence, rows, bytes on disk and characters of text."""

    name: str
    number: int
    rows: int
    bytes: int
    characters: int
    sha256: str
    counts: dict[str, int]
    """Rows by status."""


class Manifest(BaseModel):
    """What stands in `manifest.json`; `asked` and `states` are the engine's."""

    format: int = FORMAT
    batch: str
    asked: dict[str, Any]
    parts: list[Part] = []
    states: dict[str, Any] = {}

    @classmethod
    def begun(cls, asked: Mapping[str, Any]) -> Manifest:
        """That of a new batch."""
        return cls(batch=uuid.uuid4().hex, asked=_as_json(dict(asked)))

    @classmethod
    def load(cls, path: Path) -> Manifest | None:
        """What stands there; None where there is no file. Raises OutputError."""
        try:
            with read(path):
                text = path.read_bytes()
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        return cls._checked(path, text)

    @classmethod
    def _checked(cls, path: Path, text: bytes) -> Manifest:
        where = one_line(str(path))
        try:
            body = json.loads(text)
            found = int(body["format"])
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(f"{where} is no manifest of a batch; --replace begins anew") from error
        if found != FORMAT:
            raise OutputError(f"{where} has format {found}, this version knows {FORMAT}; --replace begins anew")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise OutputError(f"{where}: {first_problem(error)}; --replace begins anew") from error

    def save(self, path: Path) -> None:
        """Put it there whole. Raises OutputError."""
        body = self.model_dump(mode="json") | {"counts": dict(self.counts)}
        replace_bytes(path, json.dumps(body, indent=1).encode())

    @property
    def counts(self) -> Counter[str]:
        """Rows by status of all parts: one that was asked again stands there more than once."""
        total = Counter[str]()
        for part in self.parts:
            total.update(part.counts)
        return total

    @property
    def next_number(self) -> int:
        """Of a part that is written next."""
        return max((part.number for part in self.parts), default=0) + 1

    def keep(self, name: str, value: Any) -> None:
        """Set a state of the engine's. Raises BatchFileError where it is no JSON, or too large."""
        made = _as_json(value)
        if (size := len(json.dumps(made))) > MAX_STATE:
            raise BatchFileError(f"state {name!r:.100} has {size:,} bytes as JSON; {MAX_STATE:,} are kept")
        self.states[name] = made

    def require_same(self, asked: Mapping[str, Any], output: str) -> None:
        """Raise BatchFileError, which names what differs, where another batch is asked for."""
        told = "; ".join(map(str, list(differences(self.asked, _as_json(dict(asked))))[:10]))
        if told:
            raise BatchFileError(f"{output} was begun otherwise, and is not resumed: {told}; --replace begins anew")


class Difference(NamedTuple):
    """What differs between two JSON objects: a dotted name, and both values as JSON, None where there is none."""

    name: str
    was: str | None
    now: str | None

    def __str__(self) -> str:
        return f"{one_line(self.name)} was {_shown(self.was)}, is {_shown(self.now)}"


def differences(was: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[Difference]:
    """All that differs, in the order of names."""
    for name in sorted({*was, *now}):
        one, other = was.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{inside}{name}.")
        elif (name in was, one) != (name in now, other):
            yield Difference(f"{inside}{name}", _json(was, name), _json(now, name))


def _json(values: Mapping[str, Any], name: str) -> str | None:
    return json.dumps(values[name], ensure_ascii=False) if name in values else None


def _shown(value: str | None) -> str:
    return "not given" if value is None else one_line(value, SHOWN_INPUT)


def _as_json(value: Any) -> Any:
    """A value as it is read back. Raises BatchFileError."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BatchFileError(f"what a batch keeps has to be JSON: {one_line(str(error))}") from error
