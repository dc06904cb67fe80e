"""What the measurements of the worker share: the doors into a stack, and who hears its decisions."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import nats
from nats.aio.client import Client

from blocks.background import background
from deployments.bench.program import BenchError
from deployments.bench.workload import REQUIREMENTS, TASK, ModelServer
from deployments.stack import StackStatus, authorization, environment

PATIENCE_S = 300.0
SCHEDULED_S = 1.5
"""How far ahead a scheduled run is put."""


@dataclass(frozen=True)
class Run:
    """A deliberation that came through a door: its id, and when it was asked for (epoch seconds)."""

    id: str
    asked_at: float


class Scene:
    """The doors of a stack, and who hears its decisions."""

    def __init__(self, found: StackStatus, http: aiohttp.ClientSession, client: Client) -> None:
        self.found, self.server = (
            found,
            ModelServer(http, found.llm or "", found.model or "", authorization(found, "llm")),
        )
        self._http, self._client = http, client
        self._key = authorization(found, "prefect")
        self._deployment: str | None = None
        self.parameters: dict[str, Any] = {
            "task": TASK,
            "requirements": list(REQUIREMENTS),
            "council": "dev",
            "strategy": "propose",
        }

    async def api(self) -> Run:
        """As somebody else's program does: from the call on."""
        called = time.time()
        url, token = os.environ["CONCLAVE_URL"], os.environ["CONCLAVE_TOKEN"]
        headers = {"Authorization": f"Bearer {token}"}
        async with self._http.post(f"{url}/v1/deliberations", json=self.parameters, headers=headers) as answer:
            if answer.status != 202:
                raise BenchError(f"the gateway: {answer.status} {await answer.text()}")
            return Run((await answer.json())["id"], called)

    async def command(self) -> Run:
        """As `conclave deliberate` does: from when it is typed on."""
        one = str(uuid.uuid4())
        requirements = [f"--requirement={requirement}" for requirement in REQUIREMENTS]
        options = ("--council=dev", "--strategy=propose", f"--id={one}", *requirements)
        called = time.time()
        await _ended(Path(sys.executable).with_name("conclave"), "deliberate", TASK, *options)
        return Run(one, called)

    async def ui(self) -> Run:
        """As the form in Prefect's UI does: from the call on."""
        called = time.time()
        return Run(await self._create({}), called)

    async def schedule(self) -> Run:
        """As a schedule does: from the time on that the run is scheduled for."""
        due = datetime.now(UTC) + timedelta(seconds=SCHEDULED_S)
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        return Run(await self._create({"state": state}), due.timestamp())

    async def cli(self) -> Run:
        """As `prefect deployment run` does: from when Prefect has the run, so without the command's own imports."""
        given = [f"--param={name}={json.dumps(value)}" for name, value in self.parameters.items()]
        mark = uuid.uuid4().hex
        command = (
            sys.executable,
            "-m",
            "prefect",
            "deployment",
            "run",
            "deliberate/deliberate",
            f"--tag={mark}",
            *given,
        )
        async with background(_ended(*command)) as (ending,), asyncio.timeout(PATIENCE_S):
            wanted = {"flow_runs": {"tags": {"all_": [mark]}}}
            while not (runs := await self._ask("flow_runs/filter", wanted)):  # noqa: ASYNC110  # Prefect is asked
                await asyncio.sleep(0.02)
            await ending
        return Run(runs[0]["id"], datetime.fromisoformat(runs[0]["created"]).timestamp())

    @asynccontextmanager
    async def decisions(self) -> AsyncGenerator[Callable[[str], Any], None]:
        """`await decided(id)`: when a decision arrived, for all that are asked for inside the block."""
        arrived: dict[str, asyncio.Future[float]] = {}

        def of(one: str) -> asyncio.Future[float]:
            return arrived.setdefault(one, asyncio.get_running_loop().create_future())

        async def hear(message: Any) -> None:
            future = of(message.subject.split(".")[1])
            if not future.done():
                future.set_result(time.time())

        subscription = await self._client.subscribe("decisions.*.*", cb=hear)
        await self._client.flush()
        await self._client.flush()  # the first PING of nats-py 2.16 overtakes what is still to be written
        try:
            yield lambda one: asyncio.wait_for(asyncio.shield(of(one)), PATIENCE_S)
        finally:
            await subscription.unsubscribe()

    async def state(self, one: str) -> dict[str, Any]:
        """The state of a flow run."""
        async with self._http.get(f"{self.found.prefect}/flow_runs/{one}", headers=self._key) as answer:
            found: dict[str, Any] = (await answer.json()).get("state") or {}
            return found

    async def health(self) -> dict[str, Any]:
        """What the worker tells."""
        async with self._http.get(f"{self.found.parts['worker'].url}/healthz") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def running_calls(self) -> int:
        """Requests that the model server is answering now, as its metrics say."""
        async with self._http.get(f"{self.found.llm}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith("vllm:num_requests_running"):
                    return int(float(line.rpartition(" ")[2]))
        raise BenchError("the model server does not say how many requests it is answering")

    async def _create(self, body: dict[str, Any]) -> str:
        if self._deployment is None:
            path = f"{self.found.prefect}/deployments/name/deliberate/deliberate"
            async with self._http.get(path, headers=self._key) as answer:
                self._deployment = (await answer.json())["id"]
        made = await self._ask(
            f"deployments/{self._deployment}/create_flow_run", {**body, "parameters": self.parameters}
        )
        return str(made["id"])

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """POST, again where SQLite was locked, as Prefect's own client does."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with self._http.post(f"{self.found.prefect}/{path}", json=body, headers=self._key) as answer:
                    if answer.status < 300:
                        return await answer.json()
                    if answer.status != 503:
                        raise BenchError(f"{path}: {answer.status} {await answer.text()}")
                await asyncio.sleep(0.2)


async def _ended(*command: str | Path) -> None:
    """Run a command, whatever it says, to its end. Raises TimeoutError."""
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=null, stdout=null, stderr=null)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def scene(found: StackStatus) -> AsyncGenerator[Scene, None]:
    """The doors of the stack, with their connections."""
    async with ModelServer.session() as http:
        client = await nats.connect(environment(found)["NATS_URL"])
        try:
            yield Scene(found, http, client)
        finally:
            await client.close()
