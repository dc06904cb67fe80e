"""A stack of these tests' own, that they may break, and `conclave` run against it as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import nats
import pytest
import pytest_asyncio
from nats.js.errors import NotFoundError

from deployments.settings import Settings, load_settings
from deployments.stack import StackStatus, authorization, down, environment, status
from deployments.stack.paths import StackPaths
from deployments.stack.ports import free_port
from deployments.stack.supervision import Supervisor
from tests.fakes.nats_flush import flushed

ROOT = Path(__file__).parents[2]
CONCLAVE = Path(sys.executable).with_name("conclave")
TASK = "Write a function to merge sorted arrays"
PATIENCE_S = 120.0
OURS = ("CONCLAVE_", "NATS_", "PREFECT_", "RAY_", "VLLM_")


def in_the_foreground() -> None:
    """SIGINT as a terminal's programs have it, also where these tests run in a script's background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_the_background() -> None:
    """SIGINT as a script's shell has it for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def until(found: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
    """The first true value that `found` gives."""
    async with asyncio.timeout(patience_s):
        while not (value := await found()):
            await asyncio.sleep(0.1)
        return value


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Command:
    """A `conclave` that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def end(self) -> Ended:
        """Wait for it to end by itself."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), err.decode())


class Stack:
    """One stack by its home: its commands, its parts to break, its simulator's book."""

    def __init__(self, home: Path, http: aiohttp.ClientSession | None = None) -> None:
        self.settings: Settings = load_settings({"CONCLAVE_HOME": str(home)})
        self.supervisor = Supervisor(StackPaths.of(self.settings.home).socket)
        self._http = http

    @property
    def environ(self) -> dict[str, str]:
        """A user's shell, in which no variable points at another stack."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        own = {"CONCLAVE_HOME": str(self.settings.home), "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
        return kept | own

    def up(self, *options: str) -> Ended:
        """`conclave up`, with the simulator."""
        command = [str(CONCLAVE), "up", "--detach", "--simulate", *options]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=240)
        return Ended(done.returncode, done.stdout, done.stderr)

    def down(self) -> None:
        """End it, whatever state it is in."""
        down(self.settings, lambda _line: None)

    @property
    def status(self) -> StackStatus:
        """The stack as it is now; no part is asked."""
        return status(self.settings, ask=False)

    async def start(self, *arguments: str) -> Command:
        """Begin a command."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            CONCLAVE, *arguments, stdout=pipe, stderr=pipe, env=self.environ, preexec_fn=in_the_foreground
        )
        return Command(process)

    async def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        return await (await self.start(*arguments)).end()

    # --- parts ------------------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """The part's process id, 0 while it has none."""
        return self.supervisor.parts()[part].pid or 0

    def kill(self, part: str) -> None:
        """SIGKILL to every process of a part."""
        os.killpg(os.getpgid(self.pid(part)), signal.SIGKILL)

    @asynccontextmanager
    async def away(self, part: str) -> AsyncGenerator[None, None]:
        """The part is stopped while the block runs, and started again at its end."""
        await asyncio.to_thread(self._stop, part)
        try:
            yield
        finally:
            await asyncio.to_thread(self.supervisor.start, part)

    def _stop(self, part: str) -> None:
        socket = StackPaths.of(self.settings.home).socket
        control = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}"]
        subprocess.run([*control, "stop", part], check=True, capture_output=True, timeout=60)

    async def answers(self, part: str) -> None:
        """Wait until a part answers."""

        async def answering() -> bool:
            told = await asyncio.to_thread(status, self.settings)
            return told.parts[part].answers is True

        await until(answering)

    # --- simulator --------------------------------------------------------------------------------

    async def fault(self, kind: str, **rule: Any) -> None:
        """Order a fault; `match` is a regular expression on the X-Request-Id."""
        async with self._session.post(
            f"{self.status.llm}/sim/faults", json={"kind": kind, **rule}, headers=authorization(self.status, "llm")
        ) as answer:
            assert answer.status < 300, await answer.text()

    async def heal(self) -> None:
        """Forget all faults."""
        await self._session.delete(f"{self.status.llm}/sim/faults", headers=authorization(self.status, "llm"))

    async def requests(self, deliberation_id: str) -> list[dict[str, Any]]:
        """The book's lines on a deliberation."""
        key = authorization(self.status, "llm")
        async with self._session.get(f"{self.status.llm}/sim/calls", headers=key) as answer:
            lines: list[dict[str, Any]] = (await answer.json())["requests"]
        return [line for line in lines if str(line["request_id"]).startswith(f"{deliberation_id}:")]

    async def calls(self, deliberation_id: str) -> dict[str, int]:
        """How often each call was made, by `stage:member`."""
        asked = [str(line["request_id"]).split(":", 2)[2] for line in await self.requests(deliberation_id)]
        return {call: asked.count(call) for call in sorted(asked)}

    async def asked(self, deliberation_id: str) -> None:
        """Wait until all three members are being asked."""

        async def all_in() -> bool:
            return sum(call.startswith("propose-0:") for call in await self.calls(deliberation_id)) == 3

        await until(all_in)

    # --- record -----------------------------------------------------------------------------------

    async def finals(self, deliberation_id: str) -> dict[str, int]:
        """How many final events stand on the record: decisions, and ends."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        counts: dict[str, int] = {}
        try:
            for subject in (f"decisions.{deliberation_id}.*", f"deliberations.{deliberation_id}.finished"):
                info = await client.jetstream().stream_info("CONCLAVE_DECISIONS", subjects_filter=subject)
                counts |= info.state.subjects or {}
            return counts
        finally:
            await client.close()

    async def finished(self, deliberation_id: str) -> dict[str, Any]:
        """Body of its final event, once there is one."""
        client = await nats.connect(environment(self.status)["NATS_URL"])

        async def found() -> dict[str, Any] | None:
            try:
                subject = f"deliberations.{deliberation_id}.finished"
                message = await client.jetstream().get_last_msg("CONCLAVE_DECISIONS", subject)
            except NotFoundError:
                return None
            body: dict[str, Any] = json.loads(message.data or b"{}")
            return body

        try:
            body: dict[str, Any] = await until(found)
            return body
        finally:
            await client.close()

    async def noted(self, deliberation_id: str) -> dict[str, Any]:
        """What stands under its key."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        try:
            bucket = await client.jetstream().key_value("conclave-deliberations")
            body: dict[str, Any] = json.loads((await bucket.get(deliberation_id)).value or b"{}")
            return body
        finally:
            await client.close()

    async def queue(self) -> list[str]:
        """Subjects of the requests that wait or are worked on."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        try:
            info = await client.jetstream().stream_info("CONCLAVE_REQUESTS", subjects_filter="requests.>")
            return sorted(info.state.subjects or {})
        finally:
            await client.close()

    async def put(self, subject: str, data: bytes) -> None:
        """Publish something as it is."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        try:
            await client.jetstream().publish(subject, data)
        finally:
            await client.close()

    async def answered(self, deliberation_id: str) -> list[str]:
        """The members whose answers stand on the record, once there is one."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        subjects = f"answers.{deliberation_id}.>"

        async def some() -> list[str]:
            state = (await client.jetstream().stream_info("CONCLAVE_ANSWERS", subjects_filter=subjects)).state
            return sorted(subject.rpartition(".")[2] for subject in state.subjects or {})

        try:
            found: list[str] = await until(some)
            return found
        finally:
            await client.close()

    @asynccontextmanager
    async def heard(self, *subjects: str) -> AsyncGenerator[list[tuple[float, str, Any]], None]:
        """What is written on these subjects meanwhile, as (time, subject, body)."""
        client = await nats.connect(environment(self.status)["NATS_URL"])
        passed: list[tuple[float, str, Any]] = []

        async def note(message: Any) -> None:
            passed.append((time.time(), message.subject, json.loads(message.data)))

        try:
            for subject in subjects:
                await client.subscribe(subject, cb=note)
            await flushed(client)
            yield passed
        finally:
            await client.close()

    # --- Prefect ----------------------------------------------------------------------------------

    async def prefect(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """What Prefect's API lists: flow runs, task runs, artifacts."""
        key = authorization(self.status, "prefect")
        async with self._session.post(f"{self.status.prefect}/{what}/filter", json=filters, headers=key) as answer:
            found: list[dict[str, Any]] = await answer.json()
            assert answer.status == 200, found
            return found

    async def deploy_run(self, name: str = "deliberate", **parameters: Any) -> str:
        """Start a deployment as Prefect's UI does; the flow run's id."""
        deployment = await self._ask("GET", f"deployments/name/{name}/{name}")
        path = f"deployments/{deployment['id']}/create_flow_run"
        return str((await self._ask("POST", path, json={"parameters": parameters}))["id"])

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Ask Prefect's API, again where SQLite was locked, as Prefect's own client does."""

        async def asked() -> dict[str, Any] | None:
            url, key = f"{self.status.prefect}/{path}", authorization(self.status, "prefect")
            async with self._session.request(method, url, headers=key, **content) as answer:
                if answer.status == 503:
                    return None
                assert answer.status < 300, await answer.text()
                body: dict[str, Any] = await answer.json()
                return body

        found: dict[str, Any] = await until(asked)
        return found

    async def deploy_runs(self, count: int, **parameters: Any) -> list[str]:
        """So many runs of `deliberate`."""
        return [await self.deploy_run(task=TASK, **parameters) for _ in range(count)]

    async def ask_prefect_to_cancel(self, flow_run_id: str) -> None:
        """What the button in Prefect's UI does."""
        await self._ask("POST", f"flow_runs/{flow_run_id}/set_state", json={"state": {"type": "CANCELLING"}})

    async def state(self, flow_run_id: str) -> dict[str, Any]:
        """The state of a flow run."""
        found: dict[str, Any] = (await self._ask("GET", f"flow_runs/{flow_run_id}"))["state"]
        return found

    async def final(self, flow_run_id: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The final state of a flow run."""

        async def ended() -> dict[str, Any] | None:
            try:
                state = await self.state(flow_run_id)
            except (aiohttp.ClientError, AssertionError):  # Prefect is away, or restarts
                return None
            return state if state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED") else None

        found: dict[str, Any] = await until(ended, patience_s)
        return found

    # --- worker -----------------------------------------------------------------------------------

    async def health(self) -> dict[str, Any]:
        """What the stack's worker tells."""
        async with self._session.get(f"{self.status.parts['worker'].url}/healthz") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    @asynccontextmanager
    async def worker(
        self, started: Callable[[], Any] = in_the_foreground, **environ: str
    ) -> AsyncGenerator[asyncio.subprocess.Process, None]:
        """Another worker, as its own process; ready, and ended by SIGKILL if it still runs."""
        address = f"127.0.0.1:{free_port(18090)}"
        given = {**self.environ, **environment(self.status), "CONCLAVE_WORKER_HEALTH": address, **environ}
        command = ("-P", "-m", "prefect", "worker", "start", "--pool", "conclave", "--type", "conclave")
        log = (self.settings.home / f"worker-{uuid.uuid4().hex[:6]}.log").open("w")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=given, stdout=log, stderr=log, preexec_fn=started
        )

        async def ready() -> bool:
            try:
                async with self._session.get(f"http://{address}/healthz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        try:
            await until(ready)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            log.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http


def flow_run(result: dict[str, Any]) -> dict[str, Any]:
    """A filter for the flow run that a result links to."""
    return {"id": {"any_": [result["links"]["prefect_run"].rpartition("/")[2]]}}


def result_of(ended: Ended) -> dict[str, Any]:
    """The JSON document that a command has printed."""
    assert ended.out, ended
    result: dict[str, Any] = json.loads(ended.out)
    return result


@contextmanager
def home_of_a_stack(nats: Path | None = None) -> Generator[Path, None, None]:
    """The home of a stack that is up, with members that answer in 0.1 s; `nats` is where NATS keeps its files."""
    with tempfile.TemporaryDirectory(prefix="conclave-faults-") as folder:
        stack = Stack(Path(folder) / "home")
        if nats is not None:
            stack.settings.home.mkdir()
            (stack.settings.home / "nats").symlink_to(nats)
        try:
            ended = stack.up("--simulator", "--latency 0.1")
            assert ended.code == 0, ended.err
            yield stack.settings.home
        finally:
            stack.down()


@pytest.fixture(scope="package")
def home() -> Generator[Path, None, None]:
    """The home of the stack to break."""
    with home_of_a_stack() as home:
        yield home


@pytest_asyncio.fixture
async def broken(home: Path) -> AsyncGenerator[Stack, None]:
    """The stack to break: every part answers before the test, and is waited for after it."""
    async with aiohttp.ClientSession() as session:
        stack = Stack(home, session)
        yield stack
        await stack.heal()
        for part in ("nats", "prefect", "ray", "worker"):
            await stack.answers(part)


@pytest.fixture
def new_id() -> str:
    """An id for a deliberation."""
    return f"f-{uuid.uuid4()}"
