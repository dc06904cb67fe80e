"""What a file of rows gives, whatever its format: records with the line that they begin on, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from tasks.council.exceptions import WrongUse
from tasks.council.plain import shortened

MAX_RECORD = 4_000_000
"""Characters of a record: the largest task and the largest context, each character written as an escape of JSON."""


class BatchFileError(WrongUse):
    """A file of rows that cannot be read as it is meant; the text names the file, and its line where there is one."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(text))


class Fault(NamedTuple):
    """Why a row cannot be asked: the field, the kind of fault in few words, and what was found."""

    field: str
    reason: str
    text: str


class Record(NamedTuple):
    """One record as it stands in the file: its first physical line, and its values by column, or why there are none."""

    line: int
    values: dict[str, Any]
    fault: Fault | None = None


class Records(Protocol):
    """The records of an open file, once, in order."""

    name: str
    columns: dict[str, None]
    """The columns in their order: all of them where `header` says so, else those of the records until now."""
    header: bool
    replaced: int
    """Lone halves of characters that were replaced until now."""

    def __iter__(self) -> Iterator[Record]: ...


def has_nul(text: str) -> str:
    """What an error says of a first line with NUL characters in it, as ASCII has in UTF-16."""
    order = "be" if text.startswith("\0") else "le"
    return f"has NUL characters; is it UTF-16? Then say `--encoding utf-16-{order}`"


def too_large(size: int) -> Fault:
    """The fault of a record that is larger than all that a request may carry."""
    return Fault("row", "is too large", f"has {size:,} characters; {MAX_RECORD:,} are taken")
