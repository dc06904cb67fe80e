"""The flow `housekeeping`: what nobody runs is resumed or ended, and what is old is let go.

A table of contents; the steps are in `tasks/operate/` (`orphans.py` and `retention.py`). Two at once are harmless.
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.settings.context import get_current_settings
from pydantic import Field

from blocks.connections import connections
from tasks.operate.orphans import find_orphans, handle_orphans, housekeeping_state, show_done
from tasks.operate.retention import apply_retention, let_go_of_artifacts, let_go_of_statuses, seconds_of

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Days = Annotated[float, Field(ge=1, le=36_500)]


# As in `deliberate`: nothing is persisted, and the server is not asked where.
@flow(
    name="housekeeping",
    retries=0,
    persist_result=False,
    result_storage=get_current_settings().results.local_storage_path,
)
async def housekeeping(
    cleanup_s: Seconds | None = None,
    timeout_s: Seconds | None = None,
    artifact_days: Days = 30.0,
    shorten_retention: bool = False,
) -> State[Any]:
    """Keep the house.

    Args:
        cleanup_s: Seconds that a finished status is kept; DELIBERATION_CLEANUP, else 3600, where left out.
        timeout_s: Seconds that what nobody runs is resumed for; DELIBERATION_TIMEOUT, else 300, where left out.
        artifact_days: Days that reports, rankings and progress of runs that have ended stay in Prefect.
        shorten_retention: Also give streams a shorter retention than they have, where the block says so: this deletes.
    """
    keep_s = cleanup_s or seconds_of("DELIBERATION_CLEANUP", 3600.0)
    patience_s = timeout_s or seconds_of("DELIBERATION_TIMEOUT", 300.0)
    async with connections():
        done = await handle_orphans(await find_orphans(), patience_s)
        statuses = await let_go_of_statuses(keep_s)
        streams = await apply_retention(shorten_retention)
        artifacts = await let_go_of_artifacts(artifact_days)
        await show_done(done, statuses, artifacts, streams)
        return housekeeping_state(done, statuses, artifacts)
