"""The flow `batch`: rows of a file, each decided by a council, thousands of them under one pace and one budget.

A table of contents: the rows stand on the record in agendas, each agenda is a deliberation of its own, and whatever is
decided stands there, too, so that the same batch again repeats no finished call. Rows that came through the gateway are
on the record already, and are written by whoever sent them; a file that the parameters name is read and written here.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.documents import open_record
from blocks.record.envelope import Body
from blocks.record.events import Record
from blocks.task_runner import BlockTaskRunner
from flows.deliberate import deliberated
from tasks.batch.asked import check_batch_id
from tasks.batch.bar import shown
from tasks.batch.ending import batch_state, begin_batch, end_batch, file_state
from tasks.batch.file_run import FileRun
from tasks.batch.parameters import file_batch
from tasks.batch.running import BatchRun
from tasks.batch.tries import fail_batch
from tasks.collect.pacing import paced
from tasks.council.base import Name, Text
from tasks.council.council import Deadline, Grace, Members, Rounds
from tasks.council.exceptions import InvalidRequest
from tasks.council.form import AnswerForm
from tasks.council.models import Budget
from tasks.council.stages import Strategy


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="batch",
    task_runner=BlockTaskRunner(),
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
    validate_parameters=False,  # BatchRequest and the files' readers do, and name the field
)
async def batch(
    input_file: str | None = None,
    output_file: str | None = None,
    council: Name | None = None,
    strategy: Strategy | None = None,
    task_column: str | None = None,
    task_template: str | None = None,
    messages_column: str | None = None,
    id_column: str | None = None,
    context_columns: list[str] | None = None,
    rubric: Text | None = None,
    requirements: list[Text] | None = None,
    answer_format: AnswerForm | None = None,
    rounds: Rounds | None = None,
    members: Members | None = None,
    quorum: Members | None = None,
    grace_s: Grace | None = None,
    deadline_s: Deadline | None = None,
    budget: Budget | None = None,
    window: int | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    input_format: str | None = None,
    output_format: Literal["parquet", "jsonl", "csv", "openai"] | None = None,
    order: Literal["completion", "input"] = "completion",
    coerce: bool = False,
    keep_duplicates: bool = False,
    stop_at_bad_rows: bool = False,
    dedupe: bool = False,
    resume: bool = False,
    replace: bool = False,
    retry_failed: bool = False,
    batch_id: Name | None = None,
) -> State[Any]:
    """Let a council decide every row of a file.

    Args:
        input_file: A file in a folder, or below a URL, that the worker's CONCLAVE_BATCHES names.
        output_file: Where the decisions go, there, too: .parquet, .jsonl or .csv.
        council: Name of a council; dev where left out.
        strategy: propose, rank, synthesize or escalate; the council's own where left out.
        task_column: The column of the task; task where left out.
        task_template: The task of several columns, such as {{title}}: {{body}}.
        messages_column: The column of a chat's messages, in place of a task.
        id_column: The column of its id; id where there is one, else the row's number.
        context_columns: Columns with facts that members should know.
        rubric: How proposals are judged.
        requirements: What a proposal has to meet, one thing in each line of the list.
        answer_format: Form of a closed answer, for example {"type": "choice", "options": ["yes", "no"]}.
        rounds: How often each author revises its proposal, 0 to 3; the council's own where left out.
        members: The council's first N members, or more of them in the same roles.
        quorum: Answers that decide; floor(n/2) + 1 where left out.
        grace_s: Seconds to wait after the quorum; until the deadline where left out.
        deadline_s: Seconds for each row; the council's own where left out.
        budget: The most that it may use: `max_calls`, `max_tokens`, `max_s`. Used up, no further row begins.
        window: Calls in flight at each model server at the beginning; 256 where left out.
        encoding: What a text file is in, such as cp1252; UTF-8, or by its byte order mark.
        delimiter: What separates cells of CSV; comma, semicolon and tab are found.
        sheet: The sheet of a spreadsheet; the first visible one.
        input_format: What the input is, such as csv, whatever its name ends in.
        output_format: What the output is, whatever its name ends in.
        order: Of the output's rows: as they were decided, or as in the input.
        coerce: Take a number or a truth value as a task's text.
        keep_duplicates: Take two rows with one id.
        stop_at_bad_rows: Ask nothing where a row cannot be asked.
        dedupe: Ask rows that are equal but for their id once.
        resume: Go on with an output that is not finished.
        replace: Write another output in the place of one.
        retry_failed: With resume, ask rows again that failed.
        batch_id: A batch whose rows stand on the record, in place of files. The same id again goes on.
    """
    given, run = dict(locals()), str(flow_run.id)
    async with connections():
        record = await open_record()
        if batch_id is not None:
            return batch_state(await decided(record, check_batch_id(batch_id), run))
        files = FileRun(record, file_batch(given), run, lambda one: decided(record, one, run))
        return await file_state(run, await files.decided())


async def decided(record: Record, batch_id: str, run: str) -> Body:
    """Decide the rows of a batch that stands on the record, as far as they are not; its body at its end."""
    try:
        begun = await begin_batch(record, batch_id, run)
        request = begun.batch.request
        async with paced(begun.servers, request.budget, request.window, begun.elapsed_s) as admission:
            running = BatchRun(begun.batch, record, begun.council, admission, deliberated, run, flow_run.ui_url)
            async with shown(running):
                await running.decide_all()
    except InvalidRequest as error:  # another try would meet it again
        await fail_batch(record, run, batch_id, str(error))
        raise
    return await end_batch(record, running)
