"""How far a batch is, shown in Prefect while it runs: a progress bar with the rate and the time left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from blocks.background import background
from tasks.artifacts.keys import artifact_key
from tasks.batch.running import BatchRun
from tasks.council.engines import SIMULATOR

EVERY_S = 2.0
"""A batch that is shorter shows what it came to alone."""


@asynccontextmanager
async def shown(run: BatchRun) -> AsyncGenerator[None, None]:
    """Show how far a batch is while the block runs, and at its end; a failure to show it fails nothing."""
    bar = _Bar(run)
    async with background(bar.keep()):
        yield
    if bar.id is not None:
        await bar.show()


@dataclass
class _Bar:
    """The bar of one run of a batch. Times are seconds of the loop's clock."""

    run: BatchRun
    id: UUID | None = None
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def keep(self) -> None:
        """Move it now and then; never ends."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.show()

    async def show(self) -> None:
        """Move it to where the batch is, or make it at first."""
        rows, decided = int(self.run.batch.body["rows"]), self.run.counts["decided"]
        percent, told = min(100.0, 100 * decided / max(1, rows)), self._told(decided, rows)
        try:
            if self.id is None:
                key = artifact_key("progress", self.run.batch.id)
                self.id = await acreate_progress_artifact(percent, key=key, description=told)
            else:
                await aupdate_progress_artifact(self.id, percent, told)
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().debug("progress could not be shown: %s", error)

    def _told(self, decided: int, rows: int) -> str:
        rate = (decided - self.run.stood) / (asyncio.get_running_loop().time() - self.began)
        simulated = "simulated: " if self.run.engine == SIMULATOR else ""
        told = f"{simulated}{decided:,} of {rows:,} rows of council {self.run.council.name}, {rate:,.1f} a second"
        return f"{told}, {(rows - decided) / rate:,.0f} s left" if rate > 0 else told
