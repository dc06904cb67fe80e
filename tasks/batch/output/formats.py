"""The formats that OUTPUT can have, each a writer of chunks of rows.

All but `openai` have every column in every row. What models and rows wrote is text in all of them: it cannot end a
line of JSON for those who split at more than line feeds, nor begin a formula in a spreadsheet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, BinaryIO, Final, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output.parts import SMALL
from tasks.batch.output.schema import NESTED, SCHEMA, Record
from tasks.batch.records import BatchFileError
from tasks.council.models import Status
from tasks.council.plain import one_line

Format = Literal["parquet", "jsonl", "csv", "openai"]
PARQUET: Final = "parquet"
JSONL: Final = "jsonl"
CSV: Final = "csv"
OPENAI: Final = "openai"
BY_ENDING: Mapping[str, Format] = MappingProxyType(
    {".parquet": PARQUET, ".pq": PARQUET, ".jsonl": JSONL, ".ndjson": JSONL, ".csv": CSV}
)
ERRORS = ".errors.jsonl"
"""What the name of the second file of `openai` ends with, behind the whole name of the first."""
GROUP_ROWS, GROUP_BYTES = 10_000, 32 << 20
"""Of a row group of Parquet, whichever is reached first."""
AT_ONCE = 100
"""Rows that are Python's at once."""
_TO_QUOTE = re.compile('[",\r\n]')
_MORE_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes for a formula, also in characters of full width; with quotes before it, so that one of them
can be taken off again."""


class Rows(Protocol):
    """Takes all rows in chunks, then the end."""

    def write(self, chunk: pa.Table) -> None:
        """Write rows of the schema."""

    def close(self) -> None:
        """Write what is left. The file stays open."""


def format_of(name: str, given: str | None) -> Format:
    """The format that was asked for, else by the end of the name. Raises BatchFileError."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if given is None and ending in BY_ENDING:
        return BY_ENDING[ending]
    for known in (PARQUET, JSONL, CSV, OPENAI):
        if given == known:
            return known
    if given is not None:
        raise BatchFileError(f"--output-format: {given!r:.100} is none of parquet, jsonl, csv, openai")
    told = f"the end of its name says what is written, and is none of {', '.join(BY_ENDING)}; or say --output-format"
    raise BatchFileError(f"{one_line(name)}: {told}")


class ParquetRows:
    """Parquet with zstd, in row groups of a bounded size."""

    def __init__(self, file: BinaryIO, schema: pa.Schema = SCHEMA) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=SMALL)
        self._waiting: list[pa.Table] = []

    def write(self, chunk: pa.Table) -> None:
        """Write rows once they fill a group."""
        for start in range(0, chunk.num_rows, GROUP_ROWS):
            self._waiting.append(chunk.slice(start, GROUP_ROWS))
            rows = sum(one.num_rows for one in self._waiting)
            if rows >= GROUP_ROWS or sum(one.nbytes for one in self._waiting) >= GROUP_BYTES:
                self._write_group()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=GROUP_ROWS)
            self._waiting = []


class JsonRows:
    """JSON Lines (UTF-8): an object a row, what is nested as JSON."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, chunk: pa.Table) -> None:
        """Write rows."""
        for record in records_of(chunk):
            self._file.write(json_line(record | {"completed_at": _time(record["completed_at"])}))

    def close(self) -> None:
        """There is nothing left."""


class CsvRows:
    """CSV (RFC 4180, UTF-8, CRLF) with a header; what is nested as JSON, nothing as an empty cell.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a line end, or with quotes (`'`) and then one of these, gets
    a quote before it: a reader that wants the text takes one off such a cell.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(_csv_line(SCHEMA.names))

    def write(self, chunk: pa.Table) -> None:
        """Write rows."""
        for record in records_of(chunk):
            self._file.write(_csv_line([_cell(name, value) for name, value in record.items()]))

    def close(self) -> None:
        """There is nothing left."""


class OpenAIRows:
    """Lines as OpenAI's batch files have them, in two files: rows that were decided, and the others."""

    def __init__(self, file: BinaryIO, errors: BinaryIO) -> None:
        self._file, self._errors = file, errors

    def write(self, chunk: pa.Table) -> None:
        """Write rows, each to its file."""
        for record in records_of(chunk.drop_columns(list(NESTED))):
            file = self._file if _is_decided(record) else self._errors
            file.write(json_line(openai_line(record)))

    def close(self) -> None:
        """There is nothing left."""


WRITERS: Mapping[str, Callable[..., Rows]] = MappingProxyType(
    {PARQUET: ParquetRows, JSONL: JsonRows, CSV: CsvRows, OPENAI: OpenAIRows}
)


def records_of(chunk: pa.Table) -> Iterator[Record]:
    """Rows as Python's values."""
    for start in range(0, chunk.num_rows, AT_ONCE):
        yield from chunk.slice(start, AT_ONCE).to_pylist()


def json_line(value: Mapping[str, Any]) -> bytes:
    """A line of JSON that is one for those, too, who split at every line end of Unicode."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not line.isascii():
        for char, escape in _MORE_LINE_ENDS.items():
            line = line.replace(char, escape)
    return line.encode() + b"\n"


def openai_line(record: Record) -> Record:
    """A row as a line of a batch's output: `response` with a `chat.completion`, or `error`."""
    name = f"{record['deliberation_id'] or 'none'}-{record['item_id'] or record['row']}"
    if not _is_decided(record):
        error = {"code": record["status"].lower(), "message": record["error"] or "there is no decision"}
        return {"id": f"batch_req_{name}", "custom_id": record["id"], "response": None, "error": error}
    response = {"status_code": 200, "request_id": name, "body": _completion(record, name)}
    return {"id": f"batch_req_{name}", "custom_id": record["id"], "response": response, "error": None}


def _is_decided(record: Record) -> bool:
    return record["status"] == Status.COMPLETED and record["decision"] is not None


def _completion(record: Record, name: str) -> Record:
    """The decision as an answer of `/v1/chat/completions`; `model` is the council, as in a request."""
    usage = {kind: record[f"usage_{kind}"] for kind in ("prompt_tokens", "completion_tokens", "total_tokens")}
    message = {"role": "assistant", "content": record["decision"], "refusal": None}
    own = ("degraded", "decided_by", "winner_id", "council_digest", "strategy", "model", "engine", "copied_from")
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": int(record["completed_at"].timestamp()) if record["completed_at"] else 0,
        "model": record["council"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage,
        "conclave": {kind: record[kind] for kind in own},
    }


def _csv_line(cells: Iterable[str]) -> bytes:
    """A record of CSV. The csv module writes the same, by character: at four times the cost of the whole row here."""
    return (",".join(map(_quoted, cells)) + "\r\n").encode()


def _quoted(cell: str) -> str:
    if _TO_QUOTE.search(cell) is None:
        return cell
    return '"{}"'.format(cell.replace('"', '""'))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in NESTED:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _time(value) or ""
    return _unformulated(value) if isinstance(value, str) else repr(value)


def _unformulated(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _time(value: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
