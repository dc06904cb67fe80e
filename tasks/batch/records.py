"""What a file of rows gives, whatever its format: records with the place that they begin at, and what is wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from tasks.council.exceptions import WrongUse
from tasks.council.plain import shortened
from tasks.council.stages import Strategy

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
    """One record as it stands in the file: where it begins, and its values by column, or why there are none."""

    line: int
    """Its first physical line; of a format without lines the number of its row."""
    values: dict[str, Any]
    fault: Fault | None = None


class Records(ABC):
    """The records of an open file, once, in order."""

    name: str
    columns: dict[str, None]
    """The columns in their order: all of them where `header` says so, else those of the records until now."""
    header = True
    below_header = " below its header"
    """What an error about a file without rows says of where they should be."""
    place = "line"
    """What the number of a record counts: lines of a text, rows of a Parquet file, rows of a sheet."""
    wanted: Collection[str] | None = None
    """The columns that are used, where that is known: other ones need be neither read nor sound."""
    council: str | None = None
    """The council that the file itself asks, as batch files of OpenAI's do, which have columns of their own, too."""
    strategy: Strategy | None = None
    """How that one should decide, where the file says so."""

    def __init__(self, name: str) -> None:
        self.name, self.columns, self.replaced = name, {}, 0
        self.notes: Counter[str] = Counter()

    replaced: int
    """Lone halves of characters that were replaced until now."""
    notes: Counter[str]
    """What else was seen until now that makes no row bad, each kind with its count."""

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """The records; raises BatchFileError where the file cannot be read on."""

    def cell(self, column: str, line: int) -> str | None:
        """What a person calls the cell there, such as B7, in a format in which cells have names."""
        return None


def has_nul(text: str) -> str:
    """What an error says of a first line with NUL characters in it, as ASCII has in UTF-16."""
    order = "be" if text.startswith("\0") else "le"
    return f"has NUL characters; is it UTF-16? Then say `--encoding utf-16-{order}`"


def too_large(size: int) -> Fault:
    """The fault of a record that is larger than all that a request may carry."""
    return Fault("row", "is too large", f"has {size:,} characters; {MAX_RECORD:,} are taken")
