"""Artifacts: what a person reads of a deliberation in Prefect's UI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.documents import open_record
from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.events import Record
from tasks.artifacts.keys import artifact_key
from tasks.artifacts.plot import cells, tally_picture
from tasks.artifacts.progress import move_bar
from tasks.council.answer import Answer
from tasks.council.decisions import ItemResult
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, MemberStatus
from tasks.council.outcome import Outcome
from tasks.council.report.appendix import MAX_BALLOTS, Trail
from tasks.council.report.report import ranking, report
from tasks.council.stages import REVIEW, kind_of
from tasks.council.voting.ballots import Review

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

READ_S = 20.0
"""How long the ballots of a report may take to be read."""
MAX_CELLS = 1000
"""Ranks that the pictures of one report show together; drawing takes about two milliseconds each."""


@task(name="record", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def record_artifacts(plan: Deliberation, outcome: Outcome) -> None:
    """Write the report and the ranking, and the last word on the progress."""
    simulated = any(result.engine == SIMULATOR for result in outcome.results)
    what = f"council {plan.council.name}" + (", simulated" if simulated else "")
    trails = await trails_of(plan, outcome.results)
    await acreate_markdown_artifact(
        report(plan, outcome.results, outcome.lines, outcome.usage, trails),
        key=artifact_key("report", plan.id),
        description=f"Report of {what}",
    )
    await acreate_table_artifact(
        ranking_rows(outcome), key=artifact_key("ranking", plan.id), description=f"Ranking of {what}"
    )
    await move_bar(plan, outcome)


def ranking_rows(outcome: Outcome) -> list[dict[Any, Any]]:
    """The ranking as table rows, best first within each item, members without a proposal last."""
    return sorted(ranking(outcome.results), key=_by_rank)


def _by_rank(row: dict[str, Any]) -> tuple[str, bool, int]:
    return row["item"], row["rank"] is None, row["rank"] or 0


async def trails_of(plan: Deliberation, results: Sequence[ItemResult]) -> dict[str, Trail]:
    """Ballots and pictures of tallies, by item. What cannot be had is left out, and the log says why."""
    pictures = await asyncio.to_thread(_pictures, results, get_run_logger())
    ballots: dict[str, dict[str, tuple[Review, ...]]] = {}
    unread = None
    try:
        async with asyncio.timeout(READ_S):
            for result in results:
                ballots[result.item] = await _ballots(plan, result)
    except (RecordError, TimeoutError, ValueError) as error:
        unread = str(error) or f"JetStream did not answer within {READ_S:g} s"
        get_run_logger().warning("the report goes without ballots: %s", unread)
    trails = {}
    for item in (result.item for result in results):
        missing = None if item in ballots else unread
        trails[item] = Trail(ballots.get(item, {}), pictures.get(item), missing)
    return trails


async def _ballots(plan: Deliberation, result: ItemResult) -> dict[str, tuple[Review, ...]]:
    """The valid ballots of an item as they stand on the record, by stage, the first that a report shows."""
    record = await open_record()
    ballots = {}
    for stage in plan.stages:
        if kind_of(stage) == REVIEW and (voters := _voters(result, stage)):
            listed = [subjects.answer(plan.id, result.item, stage, voter) for voter in voters[:MAX_BALLOTS]]
            ballots[stage] = await _read_ballots(record, listed)
    return ballots


def _voters(result: ItemResult, stage: str) -> list[str]:
    """Who gave a valid ballot in a review."""
    outcomes = ((member.agent_id, member.stages.get(stage)) for member in result.members)
    return [agent_id for agent_id, outcome in outcomes if outcome and outcome.status is MemberStatus.OK]


async def _read_ballots(record: Record, listed: Sequence[str]) -> tuple[Review, ...]:
    """The ballots in the answers on these subjects, all asked for at once."""
    events = await asyncio.gather(*map(record.last, listed))
    answers = (Answer.from_record(event.body) for event in events if event)
    return tuple(answer.ballot for answer in answers if answer.ballot)


def _pictures(results: Sequence[ItemResult], log: Log) -> dict[str, str]:
    """The tallies' pictures by item, as many as are worth the time."""
    pictures: dict[str, str] = {}
    left = MAX_CELLS
    for result in results:
        if result.ballots is None or not result.ballots.tally.ballots:
            continue
        left -= cells(result.ballots.tally)
        if left < 0:
            break
        try:
            pictures[result.item] = tally_picture(result.ballots.tally)
        except Exception as error:  # noqa: BLE001  # whatever fails in there, a table can stand in for the picture
            log.warning("the report goes without a picture of the tally: %s: %s", type(error).__name__, error)
            break
    return pictures
