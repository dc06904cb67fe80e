"""The work pools of the warm worker's type."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterType

TYPE = "conclave"
"""Of the warm worker and its pools: prefect worker start --type conclave."""
MOST = 200


async def of_our_type() -> set[str]:
    """Names of the pools of the warm worker's type, whoever's they are."""
    wanted = WorkPoolFilter(type=WorkPoolFilterType(any_=[TYPE]))
    async with get_client() as client:
        return {pool.name for pool in await client.read_work_pools(work_pool_filter=wanted, limit=MOST)}
