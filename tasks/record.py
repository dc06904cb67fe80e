"""Artifacts: what a person reads of a deliberation in Prefect's UI."""

from __future__ import annotations

from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.artifact_keys import artifact_key
from tasks.council.models import Deliberation
from tasks.council.report import report, table
from tasks.outcome import Outcome
from tasks.progress import move_bar


@task(name="record", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def record_artifacts(plan: Deliberation, outcome: Outcome) -> None:
    """Write the report and the ranking, and the last word on the progress."""
    simulated = any(result.engine == "simulator" for result in outcome.results)
    what = f"council {plan.council.name}" + (", simulated" if simulated else "")
    await acreate_markdown_artifact(
        report(plan, outcome.results, outcome.lines, outcome.usage),
        key=artifact_key("report", plan.id),
        description=f"Report of {what}",
    )
    await acreate_table_artifact(
        ranking(outcome), key=artifact_key("ranking", plan.id), description=f"Ranking of {what}"
    )
    await move_bar(plan, outcome)


def ranking(outcome: Outcome) -> list[dict[Any, Any]]:
    """The ranking as table rows, best first within each item, members without a proposal last."""
    rows = pd.DataFrame(table(outcome.results))
    if rows.empty:
        return []
    ordered = rows.sort_values(["item", "rank"], na_position="last", kind="stable").astype(object)
    return [dict(row) for row in ordered.where(ordered.notna(), None).to_dict("records")]
