"""`deliberate` in a pool of one of Prefect's own types: its runs, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conftest import until

TASK = "Write a function to merge sorted arrays"
ROOT = Path(__file__).parents[2]
SLOW_START_S = 120.0
"""A process or a pod that starts beside other work takes its time."""


@asynccontextmanager
async def stock_worker(pool: str, kind: str, environ: dict[str, str]) -> AsyncGenerator[None, None]:
    """Prefect's own command, as a user types it, with these variables on top of ours.

    It ends by a SIGINT to itself, which is ignored in what a script has started in the background.
    """
    heeding = ("env", "--default-signal=INT")
    command = (*heeding, sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind)
    quiet = asyncio.subprocess.DEVNULL
    ours = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, env=ours | environ, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


async def deployed(pool: str, kind: str, template: dict[str, Any] | None = None) -> Any:
    """A pool of that type with `deliberate` deployed into it as it is into the warm worker's."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async with get_client() as client:
        created = WorkPoolCreate(name=pool, type=kind, **({"base_job_template": template} if template else {}))
        await client.create_work_pool(created)
        warm = await client.read_deployment_by_name("deliberate/deliberate")
        return await client.create_deployment(
            flow_id=warm.flow_id,
            name=pool,
            work_pool_name=pool,
            entrypoint=warm.entrypoint,
            path=warm.path,
            pull_steps=warm.pull_steps,
        )


async def ask(deployment: Any, council: str) -> str:
    """Ask for a run; its id, which is the deliberation's, too."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        parameters = {"task": TASK, "council": council}
        return str((await client.create_flow_run_from_deployment(deployment, parameters=parameters)).id)


async def ended(run: str) -> Any:
    """The flow run, once Prefect shows it as ended."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:

        async def final() -> Any:
            found = await client.read_flow_run(run)
            return found if found.state.is_final() else None

        return await until(final, SLOW_START_S)


async def answered(recorded: Any, run: str, members: int) -> None:
    """Wait until that many members have answered."""

    async def so_many() -> bool:
        return len(await recorded.answers(run)) == members

    await until(so_many, SLOW_START_S)


async def check_cancel(deployment: Any, council: str, recorded: Any, simulator: Any) -> None:
    """A run of three is cancelled in Prefect while one is asked: its call is closed, and the record says so."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    await simulator.fault("hang", match=":propose-0:m3")
    run = await ask(deployment, council)
    await answered(recorded, run, 2)
    async with get_client() as client:
        await client.set_flow_run_state(run, Cancelling())
    found = await ended(run)
    finished = await recorded.events(f"deliberations.{run}.finished")
    assert found.state.name == "Cancelled"
    assert [(body["status"], body["engine"]) for bodies in finished.values() for body in bodies] == [
        ("CANCELLED", "simulator")
    ]
    assert [call["aborted"] for call in await simulator.requests(run) if call["request_id"].endswith("m3")] == [True]
