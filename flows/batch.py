"""The flow `batch`: rows of a file, each decided by a council, thousands of them under one pace and one budget.

A table of contents: the rows stand on the record in agendas, each agenda is a deliberation of its own, and whatever is
decided stands there, too, so that the same batch again repeats no finished call.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings.context import get_current_settings

from blocks.connections import connections
from blocks.documents import open_record
from blocks.task_runner import BlockTaskRunner
from flows.deliberate import deliberated
from tasks.batch.ending import batch_state, begin_batch, end_batch
from tasks.batch.pacing import paced
from tasks.batch.running import BatchRun
from tasks.council.base import Name


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="batch",
    task_runner=BlockTaskRunner(),
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
)
async def batch(batch_id: Name) -> State[Any]:
    """Let a council decide every row of a batch.

    Args:
        batch_id: The batch, whose rows stand on the record. The same id again goes on.
    """
    async with connections():
        record = await open_record()
        begun = await begin_batch(record, batch_id, str(flow_run.id))
        async with paced(begun.servers, begun.batch.request.budget, begun.batch.request.window) as admission:
            run = BatchRun(
                begun.batch, record, begun.council, admission, deliberated, str(flow_run.id), flow_run.ui_url
            )
            await run.decide_all()
        ended = await end_batch(record, run)
        return batch_state(ended)
