"""Whose a flow run is in a Prefect that others use, too, and which flow run a deliberation runs under.

A run is ours by its installation's tag, or because our record names it. Everything else is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_logger

from blocks.exceptions import RecordError, RecordUnavailable
from blocks.names import is_tag, tag_of
from blocks.record import subjects
from blocks.record.events import Record
from blocks.record.installation import pools
from tasks.council.plain import error_line
from tasks.deliberations.read import status_of
from tasks.deliberations.submit import id_of, queued_request

FLOWS = ("deliberate", "batch", "evaluate", "diagnostics", "housekeeping", "roundtrip")
PAGE = 200
MAX_RUNS = 10_000


def ours_by_tag(record: Record, run: FlowRun) -> bool | None:
    """Whether the tags of a run say that it is ours; None where they say nothing about whose it is."""
    if tag_of(record.installation) in run.tags:
        return True
    return False if any(map(is_tag, run.tags)) else None


async def may_run(record: Record, run: FlowRun, deliberation_id: str) -> bool:
    """Whether a message in the queue may name a flow run: by its tag, or since the record or its work pool is ours.

    The message itself is no reason. Raises RecordError.
    """
    tagged_ours = ours_by_tag(record, run)
    if tagged_ours is not None:
        return tagged_ours
    if str(run.id) in await _named(record, deliberation_id):
        return True
    return run.work_pool_name in await pools(record)


async def runs_under(record: Record, deliberation_id: str, run: FlowRun) -> bool:
    """Whether a deliberation runs under a flow run, or under a part of it, or was accepted for it.

    Another run of the same id waits for that one, and its end is nobody else's. Raises RecordError.
    """
    named = await _own_runs(record, deliberation_id) or await _named(record, deliberation_id)
    return str(run.id) in named or await _has_part(run, named)


async def is_second_run(record: Record, deliberation_id: str, run: str | None) -> bool:
    """Whether a deliberation runs under another flow run, or was accepted for another or for none. Raises RecordError.

    This asks the record alone: the flow run need not exist any more.
    """
    own, status = await _own_runs(record, deliberation_id), await status_of(record, deliberation_id) or {}
    return run is not None and run not in own and (bool(own) or "run" in status)


async def ours_in_prefect(record: Record, states: Collection[StateType]) -> AsyncIterator[FlowRun]:
    """Flow runs of ours in these states, in whatever pool: tagged ones first. Raises RecordError."""
    async for run in listed(tagged(record, states)):
        yield run
    async for run in listed(in_states(states), flows=of_our_names()):
        if await untagged_is_ours(record, run):
            yield run


async def untagged_is_ours(record: Record, run: FlowRun) -> bool:
    """Whether a run is without a tag that says whose it is, and ours since the record or the queue names it.

    What cannot be told of one run, which is said, keeps nobody from the others. Raises RecordError.
    """
    if ours_by_tag(record, run) is not None:
        return False
    try:
        return await _is_named(record, run)
    except RecordUnavailable:
        raise
    except (ValueError, TypeError, KeyError, RecordError) as error:
        get_logger("conclave.ownership").warning("flow run %s is left alone: %s", run.id, error_line(error))
        return False


def in_states(states: Collection[StateType]) -> FlowRunFilter:
    """The filter for flow runs in these states, whoever's they are."""
    return FlowRunFilter.model_validate({"state": {"type": {"any_": list(states)}}})


def tagged(record: Record, states: Collection[StateType]) -> FlowRunFilter:
    """The filter for flow runs in these states that carry our tag."""
    wanted = {"state": {"type": {"any_": list(states)}}, "tags": {"all_": [tag_of(record.installation)]}}
    return FlowRunFilter.model_validate(wanted)


def of_our_names() -> FlowFilter:
    """The filter for flows of our names, whoever's they are."""
    return FlowFilter(name=FlowFilterName(any_=list(FLOWS)))


async def listed(
    runs: FlowRunFilter, flows: FlowFilter | None = None, work_pools: WorkPoolFilter | None = None
) -> AsyncIterator[FlowRun]:
    """Flow runs that the filters let through, page by page, the first `MAX_RUNS` of them."""
    async with get_client() as client:
        for offset in range(0, MAX_RUNS, PAGE):
            found = await client.read_flow_runs(
                flow_filter=flows, flow_run_filter=runs, work_pool_filter=work_pools, limit=PAGE, offset=offset
            )
            for run in found:
                yield run
            if len(found) < PAGE:
                return


async def _own_runs(record: Record, deliberation_id: str) -> set[str]:
    """The flow runs that a deliberation was accepted for or ran under last."""
    status = await status_of(record, deliberation_id) or {}
    runs = (status.get("run"), await begun_under(record, deliberation_id))
    return {one for one in runs if isinstance(one, str)}


async def _is_named(record: Record, run: FlowRun) -> bool:
    """Whether the record names a run for its deliberation, or a request in the queue is for it."""
    own, one = str(run.id), id_of(run.parameters, str(run.id))
    if own in await _named(record, one):
        return True
    requests = [await queued_request(record, waiting) for waiting in {own, one}]
    return own in {request.run for request in requests if request is not None}


async def _named(record: Record, deliberation_id: str) -> set[str]:
    """The flow runs that the record names for a deliberation."""
    status = await status_of(record, deliberation_id)
    if status is None:
        return set()
    url = status.get("flow_run_url")
    shown = url.rpartition("/")[2] if isinstance(url, str) else None
    named = {status.get("run"), shown, await begun_under(record, deliberation_id), deliberation_id}
    return {one for one in named if isinstance(one, str) and one}


async def begun_under(record: Record, deliberation_id: str) -> str | None:
    """The flow run that a deliberation ran under last, None where the record names none. Raises RecordError."""
    epoch = await record.last(subjects.epoch(deliberation_id), direct=False)
    run = epoch.body.get("run") if epoch else None
    return run if isinstance(run, str) else None


async def _has_part(run: FlowRun, named: set[str]) -> bool:
    """Whether one of the named flow runs was begun by this one, as an evaluation begins a deliberation."""
    ids = [UUID(one) for one in named if _is_uuid(one)]
    if not ids:
        return False
    parts = FlowRunFilter.model_validate({"id": {"any_": ids}, "parent_flow_run_id": {"any_": [run.id]}})
    async with get_client() as client:
        return bool(await client.read_flow_runs(flow_run_filter=parts, limit=1))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
