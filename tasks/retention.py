"""Letting go of what is older than its retention: finished status keys, streams, and Prefect's artifacts."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterEndTime
from prefect.exceptions import ObjectNotFound

from blocks.jetstream import JetStream
from blocks.loading import fresh, open_record
from blocks.record import STATUS_BUCKET, Body
from tasks.council.models import InvalidRequest, Status

MAX_KEYS = 50_000
"""Keys that one run looks at; the oldest come first."""
MAX_ARTIFACTS = 2_000
"""Artifacts that one run deletes."""
PAGE = 200
FLOWS = ["deliberate", "evaluate", "diagnostics", "housekeeping"]


def seconds_of(variable: str, default: float) -> float:
    """A number of seconds from the environment. Raises InvalidRequest that names the variable."""
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidRequest(variable, f"{text!r} is no number of seconds above 0, such as {default:g}")
    return seconds


@task(name="let go of statuses", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def let_go_of_statuses(cleanup_s: float) -> int:
    """Remove the keys of what ended longer ago than `cleanup_s`; results stay on the streams. Raises RecordError."""
    record, before = await open_record(), datetime.now(UTC) - timedelta(seconds=cleanup_s)
    gone = after = 0
    for _ in range(MAX_KEYS):
        event = await record.next(f"$KV.{STATUS_BUCKET}.>", after)
        if event is None:
            break
        after = event.sequence
        if _ended_before(event.body, before):
            await record.purge_status(event)
            gone += 1
    return gone


def _ended_before(status: Body, before: datetime) -> bool:
    if status.get("status") not in set(Status) or not Status(status["status"]).final or not status.get("completed_at"):
        return False
    return datetime.fromisoformat(status["completed_at"]) < before


@task(name="apply retention", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def apply_retention() -> list[str]:
    """Give the streams the retention that the JetStream block says now. Raises RecordError."""
    return await (await fresh(JetStream)).apply_retention()


@task(name="let go of artifacts", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def let_go_of_artifacts(days: float) -> int:
    """Delete what Prefect shows of runs that ended more than so many days ago.

    One after another: on SQLite many at once wait for one another's lock, and hold up the runs that start.
    """
    flows = FlowFilter(name=FlowFilterName(any_=FLOWS))
    before = datetime.now(UTC) - timedelta(days=days)
    runs = FlowRunFilter(end_time=FlowRunFilterEndTime(before_=before))
    gone = 0
    async with get_client() as client:
        ours = {flow.id for flow in await client.read_flows(flow_filter=flows, limit=len(FLOWS))}
        offset = 0
        while gone < MAX_ARTIFACTS:
            found = await client.read_flow_runs(flow_filter=flows, flow_run_filter=runs, limit=PAGE, offset=offset)
            ids = [run.id for run in found if run.flow_id in ours]
            if not ids:
                break
            offset += PAGE
            old = FlowRunFilter.model_validate({"id": {"any_": ids}})
            while artifacts := await client.read_artifacts(flow_run_filter=old, limit=PAGE):
                for artifact in artifacts:
                    with suppress(ObjectNotFound):  # somebody else deletes, too
                        await client.delete_artifact(artifact.id)
                gone += len(artifacts)
    return gone
