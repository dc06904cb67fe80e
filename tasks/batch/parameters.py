"""The parameters of the flow `batch` as files of a batch: whoever reaches Prefect writes them, so each is checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tasks.batch.file_run import FileBatch
from tasks.batch.job import InputFile
from tasks.batch.output.formats import format_of
from tasks.batch.places import Places
from tasks.batch.rows import Columns
from tasks.batch.templates import TaskTemplate
from tasks.council.exceptions import InvalidRequest

ASKED = (
    *("council", "strategy", "rubric", "requirements", "answer_format", "rounds", "members", "quorum", "grace_s"),
    *("deadline_s", "budget", "window"),
)
"""Parameters that are fields of a `BatchRequest`."""
TEXTS = (
    *("task_column", "task_template", "messages_column", "id_column", "encoding", "delimiter", "sheet"),
    *("input_format", "output_format"),
)
FLAGS = ("coerce", "keep_duplicates", "stop_at_bad_rows", "dedupe", "resume", "replace", "retry_failed")
ORDERS = ("completion", "input")


def file_batch(given: Mapping[str, Any]) -> FileBatch:
    """The files that parameters name, in places of this worker's operator.

    Raises InvalidRequest and BatchFileError.
    """
    _require_kinds(given)
    places = Places.of_worker()
    source, output = (str(places.allowed(given[name])) for name in ("input_file", "output_file"))
    if source == output:
        raise InvalidRequest("output_file", "is input_file itself; name another file")
    format_of(output, given["output_format"])
    template = given["task_template"]
    columns = Columns(
        given["task_column"],
        given["id_column"],
        tuple(given["context_columns"] or ()),
        None if template is None else TaskTemplate(template),
        given["coerce"],
        given["messages_column"],
    )
    read = (given["encoding"], given["delimiter"], given["sheet"], given["input_format"])
    return FileBatch(
        InputFile(source, columns, *read, given["keep_duplicates"], places),
        output,
        {name: _plain(given[name]) for name in ASKED if given[name] is not None},
        output_format=given["output_format"],
        order=given["order"],
        resume=given["resume"],
        replace=given["replace"],
        retry="failed" if given["retry_failed"] else "none",
        dedupe=given["dedupe"],
        stop_at_bad=given["stop_at_bad_rows"],
    )


NOTIFY = "CONCLAVE_NOTIFY"
"""The variable of a worker that names the block which tells of failures, such as slack-webhook/ops."""


def notification() -> str | None:
    """The block that the worker's operator named to tell of failures."""
    return os.environ.get(NOTIFY) or None


def _require_kinds(given: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a parameter that is not what its name says: Prefect's API takes anything."""
    for name in ("input_file", "output_file"):
        _require(isinstance(given[name], str), name, "is missing; name a file below CONCLAVE_BATCHES, or give batch_id")
    for name in TEXTS:
        _require(given[name] is None or isinstance(given[name], str), name, "must be a text")
    for name in FLAGS:
        _require(isinstance(given[name], bool), name, "must be true or false")
    columns = given["context_columns"] or []
    are_names = isinstance(columns, list) and all(isinstance(column, str) for column in columns)
    _require(are_names, "context_columns", "must be a list of names")
    _require(given["order"] in ORDERS, "order", f"must be one of {', '.join(ORDERS)}")
    tasks = [name for name in ("task_column", "task_template", "messages_column") if given[name] is not None]
    _require(len(tasks) < 2, "task_column", "task_column, task_template and messages_column exclude one another")


def _require(holds: bool, name: str, told: str) -> None:
    if not holds:
        raise InvalidRequest(name, told)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
