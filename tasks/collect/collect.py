"""The collection task: read the record, decide every item, publish the decisions."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.documents import open_record
from blocks.record.events import Record
from tasks.artifacts.progress import progress
from tasks.collect.collector import Collector
from tasks.council.finished import Finished
from tasks.council.models import Deliberation, Status
from tasks.council.outcome import Outcome
from tasks.council.progress.completion import deliberation_status
from tasks.deliberations.finish import write_end
from tasks.deliberations.plan import Session


@task(retries=0, cache_policy=NO_CACHE, persist_result=False)
async def collect(session: Session, collector: Collector) -> Outcome:
    """Decide every item from the record, then say on the record that the deliberation has ended."""
    record, plan = await open_record(), session.plan
    async with nullcontext() if collector.is_of_batch else progress(record, plan, collector.outcome, session.engine):
        outcome = await collector.run()
    duration_ms = int((asyncio.get_running_loop().time() - session.started) * 1000)
    await finish(record, session, outcome, duration_ms)
    return outcome


async def finish(record: Record, session: Session, outcome: Outcome, duration_ms: int) -> None:
    """Say what the deliberation came to."""
    status = overall_status(session.plan, outcome)
    await write_end(record, finished_of(session.plan, outcome, session.engine, status, duration_ms), session.fence)


def overall_status(plan: Deliberation, outcome: Outcome) -> Status:
    """Status of the whole deliberation."""
    if len(outcome.lines) < len(plan.agenda):
        return Status.IN_PROGRESS
    return deliberation_status(line.status for line in outcome.lines)


def finished_of(plan: Deliberation, outcome: Outcome, engine: str, status: Status, duration_ms: int) -> Finished:
    """The end of a deliberation that was run."""
    last = outcome.results[-1] if outcome.results else None
    single = last if len(plan.agenda) == 1 else None
    members = single.total_agents if single else len(plan.council.members)
    received = single.received_count if single else members - len(outcome.failed_agents)
    return Finished(
        task_id=plan.id,
        status=status,
        degraded=any(line.degraded for line in outcome.lines),
        engine=single.engine if single and single.engine != "unknown" else engine,
        counts=outcome.counts(len(plan.agenda)),
        winner_id=single.winner_id if single else None,
        total_agents=members,
        successful_responses=received,
        failed_responses=members - received,
        failed_agents=tuple(sorted(outcome.failed_agents)),
        error=single.error_message if single else None,
        duration_ms=duration_ms,
        usage=outcome.usage,
        completed_at=datetime.now(UTC),
    )
