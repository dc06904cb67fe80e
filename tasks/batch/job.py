"""From a file of rows to a file of decisions: what is still to be asked, and what came of it, row by row.

The same for the command, which asks through the gateway, and for the flow on a worker: neither councils nor a network
are known here. A row is found again by its key, so that rows which were put between others change nothing for these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tasks.batch.asked import AgendaBody, AskedRow, agendas_of, content_key, row_key
from tasks.batch.files import opened
from tasks.batch.output.folder import Finished, Order, OutputFolder
from tasks.batch.output.index import Place
from tasks.batch.output.rows import INVALID, NOT_ASKED, RowCopy, RowResult
from tasks.batch.places import Places
from tasks.batch.records import BatchFileError, Records
from tasks.batch.rows import Columns, Row, read_rows
from tasks.council.decisions import ItemResult
from tasks.council.models import ItemRequest, Status
from tasks.council.plain import SHOWN_ERROR, one_line

Retry = Literal["none", "failed"]
FAILED = (Status.FAILED.value, Status.TIMEOUT.value)
DONE = (Status.COMPLETED.value, *FAILED)
UNKNOWN_ID = ""
"""Id of a bad row whose own cannot be told: its number would be another row's, perhaps."""
SHOWN = 20
"""Bad rows that are kept to be shown; all are counted."""
NOT_DECIDED = (*FAILED, Status.CANCELLED.value, NOT_ASKED)
"""Statuses that a later run may change: the parts are kept for it."""


@dataclass(frozen=True)
class InputFile:
    """A file of rows and how it is read; whatever somebody else than this process's user names lies in `places`."""

    named: str
    columns: Columns = field(default_factory=Columns)
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    input_format: str | None = None
    keep_duplicates: bool = False
    places: Places | None = None

    def opened(self) -> AbstractContextManager[Records]:
        """Its records, while it is open. Raises BatchFileError, as reading them does."""
        return opened(self.named, self.encoding, self.delimiter, self.sheet, self.input_format, self.places)

    def rows(self) -> Iterator[Row]:
        """Its rows, in order. Raises BatchFileError."""
        with self.opened() as records:
            yield from read_rows(records, self.columns, self.keep_duplicates)


class DecidedLine(NamedTuple):
    """A row that was decided, as it is told: what was asked of it, and what it came to."""

    id: str
    row: int
    line: int
    key: str
    item: str
    deliberation_id: str
    council_digest: str
    after: str
    result: ItemResult

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> DecidedLine:
        """From a line of the results of a batch."""
        return cls(**{**{name: told[name] for name in cls._fields}, "result": ItemResult.from_record(told["result"])})


class Job:
    """What of a file is still to be asked, and what came of it.

    `asks` is the identity of whom and how it asks. `retry`: rows that failed are asked again. `dedupe`: rows that ask
    the same are asked once.
    """

    def __init__(
        self,
        source: InputFile,
        output: OutputFolder,
        asks: str,
        retry: Retry = "none",
        dedupe: bool = False,
        first: int | None = None,
    ) -> None:
        self.source, self.output, self._asks = source, output, asks
        self._retry, self._dedupe, self._first = retry, dedupe, first
        self.rows = self.bad = self.asked = self.stood = 0
        """Rows of the file, those that cannot be asked, that are asked now, that were decided before."""
        self.reasons = Counter[str]()
        self.first_bad: list[Row] = []
        self._is_read = False
        self._seen = Counter[str]()
        self._open: set[bytes] = set()
        self._copies: dict[bytes, list[RowCopy]] = {}
        self._of_standing: dict[str, list[RowCopy]] = {}
        """Copies of rows that an earlier run wrote, by the key of these."""
        self._done = set[bytes]()
        """Keys of rows that need not be asked."""
        self._had_rows = False
        """Whether an earlier run wrote any: the file may be another by now."""

    def agendas(self) -> Iterator[tuple[AskedRow, ...]]:
        """What has to be asked, in agendas; rows that cannot be asked are written. Raises BatchFileError."""
        again = FAILED if self._retry == "failed" else ()
        for standing in self.output.standing():
            self._had_rows = True
            if standing.key and standing.status in DONE and standing.status not in again:
                self._done.add(bytes.fromhex(standing.key))
        yield from agendas_of(self._to_ask())
        self._is_read = True

    def take(self, told: DecidedLine) -> bool:
        """A row was decided: it is written, and so are those that ask the same. Whether it is the first time."""
        key = bytes.fromhex(told.key)
        is_first = key in self._open
        self._open.discard(key)
        decided = RowResult(
            told.id,
            told.row,
            told.line,
            told.key,
            item_id=told.item,
            deliberation_id=told.deliberation_id,
            council_digest=told.council_digest,
            result=told.result,
        )
        self.output.write(decided)
        for copy in self._copies.get(key, ()):
            self._open.discard(bytes.fromhex(copy.key))
            self.output.write(_copied(decided, copy))
        return is_first

    def finish(self, reason: str | None, order: Order = "completion", elapsed_s: float | None = None) -> Finished:
        """Make OUTPUT, in which rows that were not decided say why. Raises BatchFileError."""
        if not self._is_read:  # whoever was told to stop before has still to know what there is
            for _ in self.agendas():
                pass
        if self._of_standing:
            self.output.copy(self._of_standing)
        if self._open:
            self._write_open(reason or "it was not decided")
        places = self._places() if self._had_rows else None
        keep = self._is_unfinished()
        return self.output.finish(self.rows, order=order, places=places, elapsed_s=elapsed_s, keep_parts=keep)

    def _is_unfinished(self) -> bool:
        """Whether a later run may change what a row came to."""
        self.output.flush()
        if not any(self.output.counts.get(status) for status in NOT_DECIDED):
            return bool(self._open)
        return any(standing.status in NOT_DECIDED for standing in self.output.standing())  # the last results

    @property
    def undecided(self) -> int:
        """Rows that were to be asked, and are not decided."""
        return len(self._open)

    # --- reading ----------------------------------------------------------------------------------

    def _to_ask(self) -> Iterator[AskedRow]:
        firsts: dict[bytes, bytes] = {}
        for row in self.source.rows():
            self.rows += 1
            if row.item is None:
                self._note_bad(row)
                continue
            key = self._key(row, row.item)
            if bytes.fromhex(key) in self._done:
                self.stood += 1
                if self._dedupe:
                    firsts.setdefault(_content(row.item), bytes.fromhex(key))
            elif self._first is None or self.asked < self._first:
                yield from self._unless_copy(row, row.item, key, firsts)
            else:
                self._open.add(bytes.fromhex(key))

    def _unless_copy(self, row: Row, item: ItemRequest, key: str, firsts: dict[bytes, bytes]) -> Iterator[AskedRow]:
        """The row to ask, unless an earlier one asks the same and its answer is taken."""
        own = bytes.fromhex(key)
        if self._dedupe:
            first, copy = firsts.setdefault(_content(item), own), RowCopy(str(row.id), row.number, row.line, key)
            if first in self._done:
                self._of_standing.setdefault(first.hex(), []).append(copy)
                return
            if first != own:
                self._open.add(own)
                self._copies.setdefault(first, []).append(copy)
                return
        self._open.add(own)
        self.asked += 1
        yield AskedRow(id=str(row.id), row=row.number, line=row.line, key=key, item=item)

    def _key(self, row: Row, item: ItemRequest) -> str:
        """The row's key; of rows with one id that are kept apart each has its own."""
        asks = self._asks
        if self.source.keep_duplicates:
            self._seen[str(row.id)] += 1
            asks += f":{self._seen[str(row.id)]}"
        return row_key(str(row.id), item, asks)

    def _note_bad(self, row: Row) -> None:
        field_, reason, text = row.fault or ("", "", "")
        self.bad += 1
        self.reasons[f"{field_} {reason}"] += 1
        if len(self.first_bad) < SHOWN:
            self.first_bad.append(row)
        error = one_line(f"{field_}: {text}", SHOWN_ERROR)
        self.output.write(RowResult(row.id or UNKNOWN_ID, row.number, row.line, error=error, status=INVALID))

    # --- the end ----------------------------------------------------------------------------------

    def _again(self) -> Iterator[tuple[Row, str]]:
        """The good rows once more, with their keys. Raises BatchFileError where the file is another by now."""
        self._seen.clear()
        rows = 0
        for row in self.source.rows():
            rows += 1
            if row.item is not None:
                yield row, self._key(row, row.item)
        if rows != self.rows:
            raise BatchFileError(f"{one_line(self.source.named)} has {rows:,} rows, and had {self.rows:,} before")

    def _write_open(self, reason: str) -> None:
        for row, key in self._again():
            if bytes.fromhex(key) in self._open:
                self.output.write(RowResult(str(row.id), row.number, row.line, key, error=reason, status=NOT_ASKED))

    def _places(self) -> Iterator[Place]:
        """Where each row stands now."""
        self._seen.clear()
        for row in self.source.rows():
            if row.item is None:
                yield Place(row.id or UNKNOWN_ID, "", row.number, row.line)
            else:
                yield Place(str(row.id), self._key(row, row.item), row.number, row.line)


def _copied(decided: RowResult, copy: RowCopy) -> RowResult:
    return RowResult(
        copy.id,
        copy.row,
        copy.line,
        copy.key,
        deliberation_id=decided.deliberation_id,
        council_digest=decided.council_digest,
        copied_from=decided.id,
        result=decided.result,
    )


def _content(item: ItemRequest) -> bytes:
    return bytes.fromhex(content_key(item))[:16]


def body_of(rows: tuple[AskedRow, ...]) -> dict[str, Any]:
    """The rows of an agenda as they are sent."""
    return AgendaBody(rows=rows).model_dump(mode="json", exclude_defaults=True)
