"""The flow `batch_files`: each file that matches a pattern, and that no earlier run of it has done, is a batch.

For schedules. Two runs over one pattern never overlap; a run that was missed, a file that failed, and what was left out
is told, in Prefect and by the notification that the operator named.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.documents import open_record
from blocks.task_runner import BlockTaskRunner
from flows.batch import decided
from tasks.batch.file_run import FileRun
from tasks.batch.folder_run import FolderRun, folder_state, notified, overlap
from tasks.council.base import Name
from tasks.council.council import Members
from tasks.council.models import Budget
from tasks.council.stages import Strategy


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="batch-files",
    task_runner=BlockTaskRunner(),
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
    validate_parameters=False,  # as in `batch`
    on_failure=[notified],
    on_crashed=[notified],
)
async def batch_files(
    pattern: str = "in/*",
    output_folder: str | None = None,
    output_format: Literal["parquet", "jsonl", "csv"] = "parquet",
    council: Name | None = None,
    strategy: Strategy | None = None,
    members: Members | None = None,
    task_column: str | None = None,
    task_template: str | None = None,
    id_column: str | None = None,
    context_columns: list[str] | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    budget: Budget | None = None,
    every_hours: float = 24.0,
) -> State[Any]:
    """Let a council decide every row of the files that match and are new.

    Args:
        pattern: Of files in the folders that the worker's CONCLAVE_BATCHES names, such as in/*.csv; what is no file of
            rows by its name is left alone.
        output_folder: Where the decisions go, there, too: a file for each, and the manifest of what is done; `out` in
            the first of these folders where left out.
        output_format: Of these files.
        council: Name of a council; dev where left out.
        strategy: propose, rank, synthesize or escalate; the council's own where left out.
        members: The council's first N members, or more of them in the same roles.
        task_column: The column of the task; task where left out.
        task_template: The task of several columns, such as {{title}}: {{body}}.
        id_column: The column of its id; id where there is one, else the row's number.
        context_columns: Columns with facts that members should know.
        encoding: What text files are in, such as cp1252; UTF-8, or by their byte order mark.
        delimiter: What separates cells of CSV; comma, semicolon and tab are found.
        sheet: The sheet of spreadsheets; the first visible one.
        budget: The most that each file may use: `max_calls`, `max_tokens`, `max_s`.
        every_hours: How often it is scheduled: where the last run was longer ago, one was missed, and that is told.
    """
    given, run = dict(locals()), str(flow_run.id)
    async with connections():
        record = await open_record()
        folder = FolderRun(given)
        async with overlap(folder.key) as is_alone:
            if not is_alone:
                return folder.left_out()
            await folder.look()
            for file in folder.new_files:
                files = FileRun(record, file.batch, run, lambda one: decided(record, one, run))
                await folder.note(file, files.decided())
            return await folder_state(folder, run)
