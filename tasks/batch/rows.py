"""Rows of a file as items that a council can be asked about, or with what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from tasks.batch import chat_records
from tasks.batch.json_records import as_written
from tasks.batch.messages import task_of
from tasks.batch.records import BatchFileError, Fault, Record, Records
from tasks.batch.row_ids import RowIds, number_text, row_id
from tasks.batch.templates import TaskTemplate
from tasks.council.base import MAX_TEXT
from tasks.council.models import ItemRequest
from tasks.council.plain import SHOWN_ERROR, one_line
from tasks.council.problems import first_problem

TASK, ID = "task", "id"
LIKELY = {
    **dict.fromkeys(("prompt", "question", "instruction", "input"), "--task"),
    **dict.fromkeys(("messages", "conversations"), "--messages"),
    "text": "--task",
}
"""Columns that tasks are often in, by other programs' conventions; told where there is no `task`, never taken."""
_OF_OPENAI = {"custom_id", "body"}
MAX_ROWS = 1_000_000
"""Rows of a file, good or bad: of each good one the digest of its id is kept."""
MAX_SHOWN = 50
"""Columns that an error names."""


class Row(NamedTuple):
    """One row: its number from 1, where it stands, its id where it can be told, and its item or what is wrong."""

    number: int
    line: int
    """The number of its line, or of what else the records' `place` counts."""
    id: str | None
    item: ItemRequest | None
    fault: Fault | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns make an item, and how they are taken.

    Without an `id` it is the column of that name where there is one, and a row without an id has its number; where the
    column was named each row has to have one. The task is a column's text, unless a template makes it of several or
    `messages` names the column of a conversation.
    """

    task: str | None = None
    id: str | None = None
    context: tuple[str, ...] = ()
    template: TaskTemplate | None = None
    coerce: bool = False
    messages: str | None = None

    @property
    def task_column(self) -> str:
        """The column of the task where it has one of its own."""
        return TASK if self.task is None else self.task

    @property
    def wanted(self) -> tuple[str, ...]:
        """Columns that have to be there."""
        if self.template:
            tasks = self.template.columns
        else:
            tasks = (self.task_column if self.messages is None else self.messages,)
        return (*tasks, *filter(None, [self.id]), *self.context)

    @property
    def used(self) -> frozenset[str]:
        """Columns that are looked at where they are there."""
        return frozenset((*self.wanted, ID if self.id is None else self.id))


_OF_REQUESTS = Columns(id=chat_records.ID, messages=chat_records.MESSAGES)


def read_rows(records: Records, columns: Columns, keep_duplicates: bool = False) -> Iterator[Row]:
    """A row for each record, in order. Raises BatchFileError where the file cannot be read as it is meant."""
    if records.council is not None:
        columns = _of_requests(columns, records.name)
    records.wanted, missing = columns.used, set(columns.wanted)
    if records.header:
        missing -= records.columns.keys()
        _require_none(missing, records, columns)
    ids, number = RowIds(records.name, records.place, keep_duplicates), 0
    for number, record in enumerate(records, 1):
        if number > MAX_ROWS:
            where = f"{records.name} {records.place} {record.line}"
            raise BatchFileError(f"{where}: more than {MAX_ROWS:,} rows are too many for a batch")
        missing -= record.values.keys()
        row = _row(record, number, columns, ids)
        yield row if record.fault else _with_cell(row, records, columns)
    if not number:
        raise BatchFileError(f"{records.name} has no row{records.below_header}")
    if records.columns:
        _require_none(missing, records, columns)


def _of_requests(columns: Columns, name: str) -> Columns:
    """The columns of a file that has its own. Raises BatchFileError where others were named."""
    if columns != Columns(coerce=columns.coerce):
        told = (
            "has ids and messages of its own; --task, --task-template, --messages, --id and --context say nothing there"
        )
        raise BatchFileError(f"{name} is a batch file of OpenAI's API, which {told}")
    return _OF_REQUESTS


def _with_cell(row: Row, records: Records, columns: Columns) -> Row:
    """A bad row whose fault names the cell, in a format in which cells have names."""
    if row.fault is None:
        return row
    named = {ID: columns.id or ID, TASK: columns.task_column}
    cell = records.cell(named.get(row.fault.field, row.fault.field), row.line)
    return row if cell is None else row._replace(fault=row.fault._replace(text=f"cell {cell}: {row.fault.text}"))


def _row(record: Record, number: int, columns: Columns, ids: RowIds) -> Row:
    given = row_id(record.values.get(ID if columns.id is None else columns.id))
    if record.fault:
        return Row(number, record.line, given if isinstance(given, str) else None, None, record.fault)
    if given is None and columns.id is not None:
        given = Fault("id", "is empty", f"the column {columns.id!r:.100}, which --id names, is empty or not there")
    if isinstance(given, Fault):
        return Row(number, record.line, None, None, given)
    if given is None:
        given, name = str(number), ids.numbered(number)
    else:
        name = ids.taken(given, record.line, number)
    item = _item(name, record.values, columns)
    if isinstance(item, Fault):
        return Row(number, record.line, given, None, item)
    return Row(number, record.line, given, item)


def _item(item_id: str, values: dict[str, Any], columns: Columns) -> ItemRequest | Fault:
    task = _task(values, columns)
    if isinstance(task, Fault):
        return task
    context = {name: values[name] for name in columns.context if values.get(name, "") != ""}
    try:
        return ItemRequest.model_validate({"id": item_id, "task": task, "context": as_written(context)})
    except RecursionError:
        return Fault("context", "cannot be asked", "is nested too deep")
    except ValidationError as error:
        problem = first_problem(error)
        field = str(problem.path[0]) if problem.path else "row"
        return Fault(field, "cannot be asked", one_line(problem.text, SHOWN_ERROR))


def _task(values: dict[str, Any], columns: Columns) -> str | Fault:
    if columns.template is not None:
        field, task = "task-template", _filled(columns.template, values)
    elif columns.messages is not None:
        field, task = columns.messages, task_of(values.get(columns.messages), columns.messages)
    else:
        field, task = columns.task_column, _task_text(values.get(columns.task_column), columns)
    if isinstance(task, Fault):
        return task
    if not task.strip():
        return Fault(field, "is empty", "is empty")
    if (size := len(task.strip())) > MAX_TEXT:
        return Fault(field, "is too long", f"has {size:,} characters; {MAX_TEXT:,} are taken")
    return task


def _filled(template: TaskTemplate, values: dict[str, Any]) -> str | Fault:
    """The template with a row's columns; where all of them are empty nothing is asked, whatever stands between them."""
    try:
        texts = {name: _as_text(values[name]) for name in template.columns if name in values}
    except RecursionError:
        return Fault("task-template", "cannot be filled", "has a column that is nested too deep")
    return "" if texts and not any(map(str.strip, texts.values())) else template.filled(texts)


def _task_text(value: Any, columns: Columns) -> str | Fault:
    """A cell as the text of a task: a number or a truth value only where that was asked for."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        told = "is a truth value" if isinstance(value, bool) else "is a number"
        return (
            _as_text(value)
            if columns.coerce
            else Fault(columns.task_column, "is no text", f"{told}; --coerce takes it")
        )
    return Fault(
        columns.task_column, "is no text", f"is {'a list' if isinstance(value, list) else 'an object'}, and no text"
    )


def _as_text(value: Any) -> str:
    """A cell as text: what is no text as it stands in JSON, nothing as nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return json.dumps(as_written(value), ensure_ascii=False)


def _require_none(missing: set[str], records: Records, columns: Columns) -> None:
    """Raise BatchFileError where a column that is wanted is nowhere in the file."""
    if not missing:
        return
    first = next(name for name in columns.wanted if name in missing)
    shown = one_line(", ".join(list(records.columns)[:MAX_SHOWN]))
    told = "".join(_hints(first, records, columns))
    raise BatchFileError(f"{records.name} has no column {first!r:.100}; its columns are {shown}{told}")


def _hints(missing: str, records: Records, columns: Columns) -> Iterator[str]:
    """What may have been meant, where a column is missing."""
    alike = {name.casefold(): name for name in records.columns}
    if found := alike.get(missing.casefold()):
        yield f"; {found!r:.100} differs in case alone, which counts"
    if records.columns.keys() >= _OF_OPENAI:
        yield "; a batch file of OpenAI's API is known by its first line, which has custom_id, method, url and body"
    if not columns.template and missing == columns.task_column:
        yield from _likely(records)
    if records.header and records.place == "line" and len(records.columns) == 1:
        yield "; should there be more, `--delimiter` says what separates them"


def _likely(records: Records) -> Iterator[str]:
    likely = [f"{LIKELY[name]} {name}" for name in LIKELY if name in records.columns]
    if likely:
        yield f"; likely is {', '.join(likely)}"
