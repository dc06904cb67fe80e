"""Real servers for the tests: one local stack for the session, with the simulator as the model server.

`make acceptance` may name another model server, in ACCEPTANCE_LLM_URL and ACCEPTANCE_LLM_MODEL.

Properties run the same cases each time (profile `seeded`), so that a failure is a change of ours; `make fuzz` looks for
new ones (profile `fuzz`, FUZZ_EXAMPLES for each property). Where a property takes another number than the profile's, it
says so by `cases`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from nats.js.errors import NotFoundError

from tests.distribution import note_stack_files, scheduler
from tests.fakes.nats_flush import flushed

LATENCY_S = 0.2

SLOW = (HealthCheck.too_slow,)
"""How fast cases are made says something of the machine, and nothing of the code."""
settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES") or 10_000),
    deadline=None,
    print_blob=True,
    suppress_health_check=SLOW,
)
settings.load_profile("seeded")


def cases(seeded: int, each: int = 1) -> int:
    """How many cases a property takes: so many, or its share of FUZZ_EXAMPLES where a case stands for `each`."""
    return max(seeded, int(os.environ.get("FUZZ_EXAMPLES") or 0) // each)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs no server as `unit`, and run whatever needs the stack first.

    Prefect reads its settings when it is imported, so a process that has imported it without a stack can have none.
    """
    with_stack = {item.path for item in items if "stack" in _fixtures(item)}
    for item in items:
        if item.path in with_stack:
            if item.get_closest_marker("stack") is None and "stack" not in _fixtures(item):
                _fixtures(item).insert(0, "stack")
        elif item.get_closest_marker("servers") is None and item.get_closest_marker("stack") is None:
            item.add_marker("unit")
    items.sort(key=lambda item: (item.path not in with_stack, _turn(item)))
    note_stack_files(config, with_stack)


def pytest_collection_finish() -> None:
    """What has been imported and collected stays until the end: the garbage collector need not visit it again."""
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups with a stack and one without; see `distribution.py`."""
    return scheduler(config, log)


LONGEST = (
    "test_command_line.py",
    "test_worker.py",
    "test_housekeeping.py",
    "test_warm_runner.py",
    "test_stalls.py",
    "test_bench.py",
    "test_kubernetes_worker.py",
    "test_faults.py",
    "test_council.py",
    "test_ownership.py",
    "test_worker_failures.py",
    "test_question_files.py",
    "test_question_sets.py",
    "test_worth.py",
    "test_tally_rules.py",
    "test_queue.py",
    "test_events.py",
    "test_imports.py",
    "test_stack.py",
    "test_collector_states.py",
)
"""Files that take longest, which come first, so that none is left to one process at the end."""


def _turn(item: pytest.Item) -> int:
    return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(autouse=True)
def _no_server_in_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is marked as `unit` opens no port to listen on."""
    if request.node.get_closest_marker("unit") is not None:

        def listen(*_arguments: Any) -> None:
            raise AssertionError("a test that starts a server is marked so: pytest.mark.servers")

        monkeypatch.setattr(socket.socket, "listen", listen)


_stacks: list[Any] = []
"""The session's stack, once it is up."""


@pytest.fixture(scope="session")
def importable_prefect(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prefect can be imported: it has the stack's settings where one is up, else such as reach no server."""
    if not _stacks and "prefect" not in sys.modules:
        nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
        os.environ.update(nobody, PREFECT_HOME=str(tmp_path_factory.mktemp("prefect")))


@pytest.fixture(scope="session")
def stack() -> Generator[Any, None, None]:
    """NATS, Prefect, Ray and the simulator, on loopback, in a home of their own; its variables are set."""
    assert "prefect" not in sys.modules, "a test imports Prefect before there is a stack: it reads its settings then"
    with tempfile.TemporaryDirectory(prefix="conclave-test-") as home:
        for name in ("NATS_URL", "RAY_ADDRESS", "PREFECT_API_URL", "VLLM_URL", "VLLM_MODEL"):
            os.environ.pop(name, None)
        os.environ["CONCLAVE_HOME"] = str(Path(home) / "home")
        from deployments.settings import load_settings
        from deployments.stack import UpOptions, down, environment, up

        settings, live = load_settings(), os.environ.get("ACCEPTANCE_LLM_URL")
        simulated = UpOptions(simulate=True, simulator_args=("--latency", str(LATENCY_S)), worker=False)
        given = UpOptions(llm_url=live, model=os.environ.get("ACCEPTANCE_LLM_MODEL") or None, worker=False)
        found = up(given if live else simulated, print, settings)
        try:
            os.environ.update(environment(found))
            _stacks.append(found)
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            yield found
        finally:
            import ray

            ray.shutdown()
            down(settings, print)


@pytest_asyncio.fixture(scope="session")
async def connected(stack: Any) -> AsyncGenerator[Any, None]:
    """The stack furnished with blocks and agent hosts, and this loop's connections open: gives the record."""
    from blocks.connections import connections
    from blocks.documents import open_record
    from blocks.prefect_api import prefect_clients
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    async with prefect_clients(), connections():
        agents = await provision(stack, load_settings(), print)
        agents.task_runner().warm()
        yield await open_record()


@pytest.fixture
def record(connected: Any) -> Any:
    """The record of the session's stack."""
    return connected


class Simulator:
    """The stack's simulator, for its faults and its books."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def fault(self, kind: str, **rule: Any) -> None:
        """Order a fault; `match` is a regular expression on the X-Request-Id."""
        async with self._session.post(f"{self.url}/sim/faults", json={"kind": kind, **rule}) as answer:
            assert answer.status < 300, await answer.text()

    async def calls(self, deliberation_id: str) -> dict[str, int]:
        """How often each call of a deliberation was made, by X-Request-Id."""
        async with self._session.get(f"{self.url}/sim/calls") as answer:
            calls: dict[str, int] = (await answer.json())["calls"]
        return {call: count for call, count in calls.items() if call.startswith(f"{deliberation_id}:")}

    async def calls_of(self, prefix: str) -> list[str]:
        """Ids of calls that begin so."""
        async with self._session.get(f"{self.url}/sim/calls") as answer:
            return [call for call in (await answer.json())["calls"] if call.startswith(prefix)]

    async def requests(self, deliberation_id: str) -> list[dict[str, Any]]:
        """The book's lines on a deliberation."""
        async with self._session.get(f"{self.url}/sim/calls") as answer:
            lines: list[dict[str, Any]] = (await answer.json())["requests"]
        return [line for line in lines if str(line["request_id"]).startswith(f"{deliberation_id}:")]

    async def lines(self, text: str) -> list[dict[str, Any]]:
        """The book's lines whose X-Request-Id has this text, in the order in which they came."""
        async with self._session.get(f"{self.url}/sim/calls") as answer:
            lines: list[dict[str, Any]] = (await answer.json())["requests"]
        return [line for line in lines if text in str(line["request_id"])]

    async def pace(self, **pace: Any) -> None:
        """Change `slots` and `latency_s`, until the test ends."""
        async with self._session.put(f"{self.url}/sim/pace", json=pace) as answer:
            assert answer.status < 300, await answer.text()

    async def play(self, **players: Any) -> None:
        """Let members be right and judge with given probabilities: `players` and `key`, until the test ends."""
        async with self._session.put(f"{self.url}/sim/players", json=players) as answer:
            assert answer.status < 300, await answer.text()

    async def heal(self) -> None:
        """Forget all faults and players, and what was changed of the pace."""
        for what in ("faults", "players", "pace"):
            await self._session.delete(f"{self.url}/sim/{what}")


@pytest_asyncio.fixture
async def simulator(stack: Any) -> AsyncGenerator[Simulator, None]:
    """The simulator without faults and players, before and after."""
    from deployments.stack import authorization

    # No connection is kept: one that the simulator closes just then would fail a request of the test's own.
    once = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=authorization(stack, "llm"), connector=once) as session:
        found = Simulator(stack.llm, session)
        await found.heal()
        yield found
        await found.heal()


@pytest.fixture
def new_id() -> str:
    """An id for a deliberation."""
    return f"t-{uuid.uuid4()}"


@pytest_asyncio.fixture
async def make_council(connected: Any) -> Callable[..., Awaitable[str]]:
    """Save a council of N members under a name of its own: `name = await make_council(3, quorum=2)`; checks decide."""
    from blocks.council import Council

    async def make(size: int = 3, server: str = "default", **rules: Any) -> str:
        name = f"c-{uuid.uuid4().hex[:8]}"
        members = [
            {"agent_id": f"m{i}", "role": "DEV", "server": server, "diversity": i > 1} for i in range(1, size + 1)
        ]
        await Council(members=members, **{"strategy": "propose", **rules}).save(name)
        return name

    return make


@pytest.fixture
def deliberate(connected: Any, new_id: str) -> Callable[..., Awaitable[tuple[Any, dict[str, Any]]]]:
    """Run the flow in this process: `state, result = await deliberate(task=..., council=...)`."""
    from flows.deliberate import deliberate as flow
    from tasks.deliberations.result import result_of

    async def run(**fields: Any) -> tuple[Any, dict[str, Any]]:
        deliberation_id = fields.setdefault("deliberation_id", new_id)
        runner = fields.pop("task_runner", None)
        chosen = flow.with_options(task_runner=runner) if runner else flow
        state = await chosen(**fields, return_state=True)
        return state, await result_of(connected, deliberation_id) or {}

    return run


@pytest.fixture
def kill(connected: Any) -> Callable[[asyncio.subprocess.Process, str], Awaitable[None]]:
    """`await kill(process, id)`: SIGKILL; its lease is forgotten at once, and not seconds after the last renewal."""

    async def killed(process: asyncio.subprocess.Process, deliberation_id: str) -> None:
        process.kill()
        await process.wait()
        await connected.leases.bucket.delete(deliberation_id)

    return killed


class Recorded:
    """What stands on the record, read by a plain NATS client, subject by subject."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def events(self, pattern: str) -> dict[str, list[Any]]:
        """Bodies by subject, in the order they were written."""
        found: dict[str, list[Any]] = {}
        for message in await self.messages(pattern):
            found.setdefault(message.subject, []).append(json.loads(message.data))
        return found

    async def messages(self, pattern: str) -> list[Any]:
        """Stored messages."""
        stream = "CONCLAVE_ANSWERS" if pattern.startswith(("answers", "attempts")) else "CONCLAVE_DECISIONS"
        jetstream, found, after = self.client.jetstream(), [], 0
        with suppress(NotFoundError):
            while True:
                found.append(await jetstream.get_msg(stream, seq=after + 1, subject=pattern, direct=True, next=True))
                after = found[-1].seq
        return found

    async def answers(self, deliberation_id: str) -> dict[str, Any]:
        """The one final answer of each member and item, as `item.member`; fails where there are two."""
        found = await self.events(f"answers.{deliberation_id}.>")
        assert {len(bodies) for bodies in found.values()} <= {1}
        return {f"{bodies[0]['item']}.{bodies[0]['agent_id']}": bodies[0] for bodies in found.values()}

    @asynccontextmanager
    async def heard(self, *subjects: str) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """What passes on core NATS meanwhile, as (subject, body)."""
        passed: list[tuple[str, Any]] = []

        async def note(message: Any) -> None:
            passed.append((message.subject, json.loads(message.data)))

        subscriptions = [await self.client.subscribe(subject, cb=note) for subject in subjects]
        await flushed(self.client)
        try:
            yield passed
            await flushed(self.client)
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()


@pytest_asyncio.fixture
async def recorded(stack: Any) -> AsyncGenerator[Recorded, None]:
    """The record, seen by a client that knows nothing of Conclave."""
    client = await nats.connect(os.environ["NATS_URL"])
    yield Recorded(client)
    await client.close()


async def until(found: Callable[[], Awaitable[Any]], patience_s: float = 60.0) -> Any:
    """The first true value that `found` gives."""
    async with asyncio.timeout(patience_s):
        while not (value := await found()):
            await asyncio.sleep(0.05)
        return value


HELD_BACK_S = 2.0
"""Twice the time that a host holds back what it tells Prefect (`blocks/warm/reporting.py`, LATEST_S)."""


class Shown:
    """What Prefect shows, asked of its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def found(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """What the API lists: flow runs, task runs, artifacts."""
        async with self._session.post(f"{self.url}/{what}/filter", json=filters) as answer:
            found: list[dict[str, Any]] = await answer.json()
            assert answer.status == 200, found
            return found

    async def artifact(self, kind: str, deliberation_id: str) -> dict[str, Any]:
        """The newest artifact of that kind."""
        wanted = {"key": {"any_": [f"{kind}-{deliberation_id}"]}}
        return (await self.found("artifacts", artifacts=wanted, sort="CREATED_DESC"))[0]

    async def report(self, deliberation_id: str) -> str:
        """The report's Markdown."""
        return str((await self.artifact("report", deliberation_id))["data"])

    async def task_runs(self, flow_run: Any) -> list[dict[str, Any]]:
        """The task runs of a flow run that has ended, once what its hosts hold back of them has had its time."""
        await asyncio.sleep(HELD_BACK_S)
        return await self.found("task_runs", flow_runs={"id": {"any_": [str(flow_run)]}})

    async def agent_runs(self, state: Any, count: int = 3) -> dict[str, str]:
        """State names of the flow run's agent tasks, so many, once every one of them has ended."""
        wanted = {"id": {"any_": [str(state.state_details.flow_run_id)]}}

        async def ended() -> dict[str, str]:
            runs = await self.found("task_runs", flow_runs=wanted)
            named = {run["name"]: run["state"] for run in runs if run["name"].startswith("propose-0 ")}
            agents = {name.removeprefix("propose-0 "): state for name, state in named.items()}
            ends = ("COMPLETED", "FAILED", "CANCELLED")  # a run whose first event is not in yet has no state
            over = len(agents) == count and all(one is not None and one["type"] in ends for one in agents.values())
            return {name: one["name"] for name, one in agents.items()} if over else {}

        found: dict[str, str] = await until(ended)
        return found


@pytest_asyncio.fixture
async def shown(stack: Any) -> AsyncGenerator[Shown, None]:
    """The Prefect side of a deliberation."""
    from deployments.stack import authorization

    async with aiohttp.ClientSession(headers=authorization(stack, "prefect")) as session:
        yield Shown(stack.prefect, session)


@pytest.fixture(name="until")
def until_() -> Any:
    """`value = await until(found)`: the first true value of an async function."""
    return until
