"""A worker's connection to Ray: made before any flow needs it, and made anew when the cluster was lost.

A flow that called `ray.init` itself would also call `ray.shutdown` at its end, under all others. And a process stays
with the cluster that it is connected to, also when another one has taken its address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

import ray

from blocks.documents import DEFAULT, fresh
from blocks.exceptions import AgentsUnavailable, BlockMissing, BlockUnusable, PrefectRefused, PrefectUnavailable
from blocks.ray_agents import RayAgents
from blocks.warm.pool import connected
from blocks.warm.runner import WarmRayTaskRunner

AGAIN_S = 2.0
LOOK_S = 5.0
"""How often a worker looks whether its cluster still lives."""

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Cluster:
    """Open while the process is connected to a cluster that lives."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._open = asyncio.Event()
        self.trouble: str | None = "not connected to Ray yet"

    async def ready(self) -> None:
        """Wait until flows can be run."""
        await self._open.wait()

    async def suspect(self) -> None:
        """Look whether the cluster is gone, as it may be where a flow had to end without an answer from it."""
        if self._open.is_set() and not await asyncio.to_thread(connected):
            self.trouble = "the Ray cluster is gone"
            self._log.warning("%s: connecting anew once nothing runs on it any more", self.trouble)
            self._open.clear()

    async def keep(self, idle: asyncio.Condition, in_work: Collection[Any]) -> None:
        """Connect, and connect anew once nothing runs any more on a cluster that was lost; never ends."""
        while True:
            await self._connect()
            while self._open.is_set():  # also without a flow: a process that stays with a lost one calls it without end
                await asyncio.sleep(LOOK_S)
                await self.suspect()
            async with idle:  # its flows end by themselves, each with AgentsUnavailable
                await idle.wait_for(lambda: not in_work)
            await asyncio.to_thread(ray.shutdown)

    async def _connect(self) -> None:
        told = None
        while True:
            try:
                agents = await fresh(RayAgents, DEFAULT)
                runner = agents.task_runner()
                if isinstance(runner, WarmRayTaskRunner):
                    await asyncio.to_thread(runner.warm)
                break
            except (AgentsUnavailable, BlockMissing, BlockUnusable, PrefectRefused, PrefectUnavailable) as error:
                self.trouble = str(error)
                if told != self.trouble:
                    self._log.warning("waiting: %s", error)
                told = self.trouble
            await asyncio.sleep(AGAIN_S)
        self.trouble = None
        self._open.set()
