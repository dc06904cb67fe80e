"""Letting go of what is older than its retention: finished status keys, streams, and Prefect's artifacts.

Ages of keys are measured by one clock, the NATS server's. Artifacts are ours through their run.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from blocks.documents import fresh, open_record
from blocks.jetstream import JetStream
from blocks.names import tag_of
from blocks.ownership import check_same
from blocks.record import subjects
from blocks.record.envelope import Event
from blocks.record.events import Record
from blocks.record.installation import server_time
from blocks.record.server import Retention
from tasks.council.exceptions import InvalidRequest
from tasks.deliberations.ownership import of_our_names, untagged_is_ours
from tasks.deliberations.read import has_ended
from tasks.operate.cursors import note_cursor, read_cursor

MAX_KEYS = 50_000
"""Keys that one run looks at; the oldest come first."""
MAX_ARTIFACTS = 2_000
"""Artifacts that one run deletes."""
MAX_RUNS = 2_000
"""Flow runs without our tag that one run looks at; the next one goes on."""
CURSOR = "retention.cursor"
PAGE = 200


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
    record = await open_record()
    before = await server_time(record) - timedelta(seconds=cleanup_s)
    gone = after = 0
    for _ in range(MAX_KEYS):
        event = await record.next(subjects.status(">"), after, lenient=True)
        if event is None:
            break
        after = event.sequence
        if _ended_before(event, before):
            await record.statuses.purge(event)
            gone += 1
    return gone


def _ended_before(key: Event, before: datetime) -> bool:
    """Whether a key has a final status, and was last written before that time of the server."""
    return has_ended(key.body) and key.time is not None and key.time < before


@task(name="apply retention", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def apply_retention(shorten: bool) -> Retention:
    """Give the streams the retention that the JetStream block says now; a shorter one only if told to.

    Raises RecordError, and OtherInstallation where the block points at another record than this process's.
    """
    record, block = await open_record(), await fresh(JetStream)
    await check_same(await block.record(), record.installation)
    applied = await block.apply_retention(shorten)
    if applied.longer:
        get_run_logger().warning("%s keep longer than the block says: shorten_retention deletes", applied.longer)
    return applied


@task(name="let go of artifacts", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def let_go_of_artifacts(days: float) -> int:
    """Delete what Prefect shows of runs that ended more than so many days ago.

    One after another: on SQLite many at once wait for one another's lock, and hold up the runs that start.
    """
    record = await open_record()
    before = {"before_": (datetime.now(UTC) - timedelta(days=days)).isoformat()}
    async with get_client() as client:
        tagged = FlowRunFilter.model_validate({"end_time": before, "tags": {"all_": [tag_of(record.installation)]}})
        gone = await _delete_artifacts(client, tagged)
        async for runs in _untagged(client, record, FlowRunFilter.model_validate({"end_time": before})):
            gone += await _delete_artifacts(client, runs)
    return gone


async def _untagged(client: PrefectClient, record: Record, ended: FlowRunFilter) -> AsyncIterator[FlowRunFilter]:
    """Runs without our tag that our record names, page by page, from where the last look ended."""
    offset = await read_cursor(record, CURSOR)
    for _ in range(0, MAX_RUNS, PAGE):
        flows = of_our_names()
        found = await client.read_flow_runs(flow_filter=flows, flow_run_filter=ended, limit=PAGE, offset=offset)
        if ids := [run.id for run in found if await untagged_is_ours(record, run)]:
            yield FlowRunFilter.model_validate({"id": {"any_": ids}})
        offset += PAGE
        if len(found) < PAGE:  # these were the last ones: the next look begins anew
            offset = 0
            break
    await note_cursor(record, CURSOR, offset)


async def _delete_artifacts(client: PrefectClient, runs: FlowRunFilter) -> int:
    gone = 0
    while gone < MAX_ARTIFACTS and (artifacts := await client.read_artifacts(flow_run_filter=runs, limit=PAGE)):
        for artifact in artifacts:
            with suppress(ObjectNotFound):  # somebody else deletes, too
                await client.delete_artifact(artifact.id)
        gone += len(artifacts)
    return gone
