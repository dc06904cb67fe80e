"""A stack with its worker, for one measurement.

Imports nothing of Prefect's, which reads its settings at import: the stack has to be up, and in the environment, first.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from deployments.bench.program import EXTERNAL, SLOTS
from deployments.settings import load_settings
from deployments.stack import StackStatus, UpOptions, down, environment, up

Say = Callable[[str], None]

MEMBERS = 3
"""Of the councils that are measured."""


@contextmanager
def bench_stack(
    latency_s: float,
    say: Say,
    database: str | None = None,
    worker: bool = True,
    llm_url: str | None = None,
    model: str | None = None,
) -> Generator[StackStatus, None, None]:
    """A stack of its own, provisioned, with its worker or without; its variables are set. Raises StackError.

    Its model server is the simulator, or one that is up at `llm_url`.
    """
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as home:
        for name in EXTERNAL:
            os.environ.pop(name, None)
        os.environ["CONCLAVE_HOME"] = home
        if database is not None:
            os.environ["CONCLAVE_PREFECT_DATABASE"] = database
        settings = load_settings()
        simulator = ("--latency", str(latency_s), "--slots", str(SLOTS))
        asked = UpOptions(simulate=True, simulator_args=simulator, worker=worker)
        if llm_url is not None:
            asked = UpOptions(llm_url=llm_url, model=model, worker=worker)

        def provision(found: StackStatus) -> None:
            os.environ.update(environment(found))
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            os.environ.setdefault("DO_NOT_TRACK", "1")
            asyncio.run(_provision(found, settings, say))

        try:
            yield up(asked, say, settings, provision)
        finally:
            down(settings, say)


async def _provision(found: StackStatus, settings: Any, say: Say) -> None:
    from blocks.connections import connections
    from blocks.prefect_api import prefect_clients
    from deployments.provisioning.blocks import provision

    async with prefect_clients(), connections():
        await provision(found, settings, say)
