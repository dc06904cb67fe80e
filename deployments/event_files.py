"""Files of the operator's that say how events of others become requests, whoever brings them.

A file holds a list of entries, each with a name of its own and a mapping (`tasks/deliberations/event_mapping.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from blocks.files import read_regular
from tasks.council.base import Name
from tasks.council.exceptions import WrongUse
from tasks.council.plain import shortened
from tasks.council.problems import first_problem
from tasks.deliberations.event_mapping import Asked, Mapping, MappingError

MAX_BYTES = 1 << 20
"""Of an event."""
MAX_FILE = 4 << 20
"""Bytes of a file."""
MAPPING_S = 30.0
"""What an expression may take for an event; it runs beside the loop."""

F = TypeVar("F", bound=BaseModel)


class EventFileError(WrongUse):
    """A file that cannot be used; the text names the file, the key and what would be right."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(text))


class MappedEntry(BaseModel):
    """An entry as it stands in the file."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    when: Any = None
    id: Any = None
    request: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, given: Any) -> Any:
        """A key with nothing behind it would count as left out: a condition that always holds, a check not made."""
        empty = [key for key, value in given.items() if value is None] if isinstance(given, dict) else []
        if empty:
            raise ValueError(f"{empty[0]}: nothing stands behind it; write what it is to be, or take it out")
        return given


def read_event_file(path: Path, form: type[F]) -> F:
    """What stands in a file. Raises EventFileError."""
    try:
        return form.model_validate(yaml.safe_load(read_regular(path, MAX_FILE)))
    except OSError as error:
        raise EventFileError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise EventFileError(f"{path} is not YAML: {_where(error)}") from None
    except ValidationError as error:
        problem = first_problem(error)
        raise EventFileError(f"{path}: {problem.field or 'the file'}: {problem.text}") from error


def require_own_names(path: Path, key: str, entries: Sequence[MappedEntry]) -> None:
    """Raise EventFileError where two entries have the same name."""
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EventFileError(f"{path}: {key}: {twice[0]!r} stands there twice; names are theirs alone")


def mapping_of(path: Path, kind: str, entry: MappedEntry) -> Mapping:
    """How an entry's events become requests. Raises EventFileError."""
    try:
        return Mapping.read(entry.request, entry.when, entry.id)
    except MappingError as error:
        raise EventFileError(f"{path}: {kind} {entry.name!r}: {error}") from error


async def asked_by(mapping: Mapping, read: Callable[[], Any]) -> Asked | None:
    """What an event asks for, read and mapped beside the loop. Raises InvalidRequest and TimeoutError."""
    async with asyncio.timeout(MAPPING_S):
        return await asyncio.to_thread(lambda: mapping.asked(read()))


def _where(error: yaml.YAMLError) -> str:
    """What is wrong with YAML, and where; not what stands there, which may be a secret."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "it cannot be read"
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
