"""Batches on real servers: through the gateway, as a flow over files, and by a schedule."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from tests.conftest import until
from tests.deployments.commands import end as ended_of
from tests.deployments.commands import start as started
from tests.deployments.warm_worker import Worker, working

MEMBERS = 3


@pytest_asyncio.fixture(scope="module")
async def worker(connected: Any) -> AsyncGenerator[Worker, None]:
    """A worker for all tests here; its lane `batch` has one place, and what hangs is cut off soon after a cancel."""
    from deployments.worker import failures, runs, service
    from tasks.batch import running

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service, "TAKE_S", 0.2)
        patched.setattr(running, "DRAIN_S", 1.0)
        for module in (failures, runs):
            patched.setattr(module, "LEASE_S", 0.5)
        async with working(connected) as found:
            yield found


@pytest_asyncio.fixture
async def council(make_council: Any, record: Any, client: Any) -> str:
    """A council of three, which the gateway knows."""
    return await _known(record, client, await make_council(MEMBERS))


@pytest.fixture
def key() -> str:
    """What begins the ids of a test's rows, by which its calls are found."""
    return f"k{uuid.uuid4().hex[:8]}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the worker's operator named."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("CONCLAVE_BATCHES", str(folder))
    return folder


@pytest.fixture
def file_of(place: Path, key: str) -> Callable[..., Path]:
    """Write a CSV of so many rows: `path = file_of(5)`."""

    def write(count: int, name: str = "rows.csv", first: int = 1) -> Path:
        path = place / name
        lines = [f"{key}-{number},Name service {number}" for number in range(first, first + count)]
        path.write_text("\n".join(["id,task", *lines]) + "\n")
        return path

    return write


@pytest.fixture
def client(stack: Any) -> Any:
    """A client of the gateway."""
    from deployments.client import Client

    return Client(stack.gateway, os.environ["CONCLAVE_TOKEN"])


async def _known(record: Any, client: Any, council: str) -> str:
    """A council, once the gateway's copy of the mirror has it."""
    from tasks.operate.mirror import mirror_councils

    async def known() -> bool:
        return council in await asyncio.to_thread(client.councils)

    await mirror_councils(record)
    await until(known)
    return council


@pytest_asyncio.fixture
async def send(worker: Worker, client: Any) -> AsyncGenerator[Callable[..., Awaitable[None]], None]:
    """Send a batch of so many rows and start it, as any client does; none is at work after the test."""
    sent: list[str] = []

    async def begin(batch_id: str, key: str, count: int, council: str, **asked: Any) -> None:
        rows = [
            {
                "id": f"row {number}",
                "row": number,
                "line": number,
                "key": f"{number:032x}",
                "item": {"id": f"{key}-{number}", "task": f"Name service {number}"},
            }
            for number in range(1, count + 1)
        ]
        await asyncio.to_thread(client.send_rows, batch_id, 1, {"rows": rows})
        await asyncio.to_thread(lambda: client.start_batch(batch_id, agendas=1, council=council, **asked))
        sent.append(batch_id)

    yield begin
    for batch_id in sent:
        await asyncio.to_thread(client.cancel_batch, batch_id)
        await _ended(client, batch_id)


async def _item(stack: Any, deliberation_id: str, item: str) -> dict[str, Any]:
    """What the gateway tells of one item."""
    headers = {"Authorization": f"Bearer {os.environ['CONCLAVE_TOKEN']}"}
    url = f"{stack.gateway}/v1/deliberations/{deliberation_id}/items/{item}"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def _ended(client: Any, batch_id: str) -> dict[str, Any]:
    """The batch at its end."""

    async def ended() -> Any:
        batch = await asyncio.to_thread(client.batch, batch_id)
        return batch if batch["status"] in ("COMPLETED", "FAILED", "CANCELLED") else None

    found: dict[str, Any] = await until(ended)
    return found


async def _run_of(shown: Any, batch_id: str) -> dict[str, Any]:
    """The flow run of a batch that came through the gateway, once it has ended."""

    async def final() -> Any:
        runs = await shown.found("flow_runs", flow_runs={"idempotency_key": {"any_": [batch_id]}})
        return next((run for run in runs if run["state"]["type"] not in ("PENDING", "RUNNING", "CANCELLING")), None)

    found: dict[str, Any] = await until(final)
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _statuses(path: Path) -> Counter[str]:
    return Counter(row["status"] for row in _rows(path))


async def _asked(simulator: Any, key: str) -> Counter[str]:
    """How often each item, stage and member was asked."""
    return Counter(str(line["request_id"]).split(":", 1)[1] for line in await simulator.lines(f":{key}"))


async def _command(*arguments: str | Path) -> Result:
    """The verb to its end, in this process: a new one would import for seconds."""
    from deployments.cli import app

    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["batch", *map(str, arguments)]))


# --- through the gateway --------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "stages"), [("propose", 1), ("rank", 2)])
async def test_the_command_has_a_row_out_for_each_row_in(
    worker: Worker, council: str, simulator: Any, shown: Any, place: Path, key: str, strategy: str, stages: int
) -> None:
    """Good ones decided, each member asked once a stage; a bad one told; the id as it was read."""
    source, output = place / "rows.csv", place / "out.parquet"
    source.write_text(f"id,task\n{key}-1,Choose a queue\n{key} 2,\n{key}-3,Name it\n")
    asked = ("--council", council, "--strategy", strategy, "--output-order", "input", "--json")
    ended = await _command(source, output, *asked)
    assert ended.exit_code == 3, ended.output
    told = json.loads(ended.stdout)
    assert (told["summary"]["decided"], told["summary"]["rows"], told["error"]) == (2, 3, None)
    rows = _rows(output)
    assert [(row["id"], row["status"], row["strategy"]) for row in rows] == [
        (f"{key}-1", "COMPLETED", strategy),
        (f"{key} 2", "INVALID", None),
        (f"{key}-3", "COMPLETED", strategy),
    ]
    calls = await _asked(simulator, key)
    assert len(calls) == 2 * MEMBERS * stages
    assert set(calls.values()) == {1}
    run = await _run_of(shown, told["id"])
    assert (run["state"]["name"], run["state"]["message"].startswith("simulated, ")) == ("Completed", True)
    assert f"| COMPLETED | {2} |" in (await shown.artifact("batch", told["id"]))["data"]
    assert not (place / "out.parquet.parts").is_dir()


async def test_an_item_s_status_is_known_while_the_batch_runs_and_a_cancel_ends_it(
    worker: Worker, council: str, stack: Any, client: Any, send: Any, simulator: Any, shown: Any, key: str, new_id: str
) -> None:
    """What is decided is told at once, what hangs is IN_PROGRESS; a cancel by the API ends the rest, and Prefect shows
    both: the bar meanwhile, Cancelled at the end."""
    await simulator.fault("hang", match=f":{key}-3:")
    batch_id = new_id[:40]
    await send(batch_id, key, 4, council)

    async def three_decided() -> Any:
        return ((await asyncio.to_thread(client.batch, batch_id)).get("counts") or {}).get("decided") == 3

    async def bar() -> Any:
        found = await shown.found("artifacts", artifacts={"key": {"any_": [f"progress-{batch_id}"]}})
        return next((one for one in found if float(one["data"]) == 75), None)

    await until(three_decided)
    items = [await _item(stack, f"{batch_id}-0001", f"{key}-{number}") for number in (1, 3)]
    assert [item["status"] for item in items] == ["COMPLETED", "IN_PROGRESS"]
    told = await until(bar)
    assert told["description"].startswith(f"simulated: 3 of 4 rows of council {council}, ")
    await asyncio.to_thread(client.cancel_batch, batch_id)
    ended = await _ended(client, batch_id)
    assert (ended["status"], ended["error"]) == ("CANCELLED", "cancelled")
    assert {name: ended["counts"].get(name) for name in ("COMPLETED", "CANCELLED")} == {"COMPLETED": 3, "CANCELLED": 1}
    lines = await asyncio.to_thread(lambda: [row for row in client.batch_results(batch_id) if row])
    assert Counter(line["result"]["status"] for line in lines) == {"COMPLETED": 3, "CANCELLED": 1}
    assert (await _run_of(shown, batch_id))["state"]["name"] == "Cancelled"


async def test_a_cancel_in_prefect_s_ui_ends_a_batch(
    worker: Worker, council: str, client: Any, send: Any, simulator: Any, shown: Any, key: str, new_id: str
) -> None:
    """The button sets the state Cancelling; what is decided stays, calls are closed, nothing further is asked."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    await simulator.fault("hang", match=f":{key}-2:")
    batch_id = new_id[:40]
    await send(batch_id, key, 3, council)

    async def running() -> Any:
        batch = await asyncio.to_thread(client.batch, batch_id)
        return batch if (batch.get("counts") or {}).get("decided") == 2 else None

    batch = await until(running)
    async with get_client() as prefect:
        await prefect.set_flow_run_state(batch["run"], Cancelling())
    ended = await _ended(client, batch_id)
    assert (ended["status"], ended["counts"]["COMPLETED"]) == ("CANCELLED", 2)
    assert (await _run_of(shown, batch_id))["state"]["type"] == "CANCELLED"
    assert all(line["aborted"] or line["sent_at"] for line in await simulator.lines(f":{key}"))


async def test_a_budget_that_ends_is_raised_twice(
    worker: Worker, council: str, simulator: Any, file_of: Any, place: Path, key: str
) -> None:
    """Code 3 while rows are left, which say so; no call beyond it, none twice, and at last all are decided."""
    source, output = file_of(7), place / "out.parquet"
    for most, decided, code in ((10, 3, 3), (16, 5, 3), (21, 7, 0)):
        more = () if most == 10 else ("--resume",)
        ended = await _command(source, output, "--council", council, "--max-calls", str(most), *more)
        assert (ended.exit_code, _statuses(output)["COMPLETED"]) == (code, decided), ended.output
        calls = await _asked(simulator, key)
        assert (sum(calls.values()), set(calls.values())) == (decided * MEMBERS, {1})
        left = [row for row in _rows(output) if row["status"] != "COMPLETED"]
        assert all(row["error"].startswith("budget: ") for row in left)
        assert len(left) == 7 - decided
    again = await _command(source, output, "--council", council, "--resume")
    assert (again.exit_code, "is finished" in again.stderr) == (2, True), again.output


async def test_more_batches_than_places_all_end(
    worker: Worker, council: str, client: Any, send: Any, simulator: Any, key: str, new_id: str
) -> None:
    """The lane has one place, and each batch needs agendas of its own: none waits for another's."""
    batches = [f"{new_id[:36]}-{number}" for number in range(3)]
    for number, batch_id in enumerate(batches):
        await send(batch_id, f"{key}-{number}", 2, council)
    ended = [await _ended(client, batch_id) for batch_id in batches]
    assert [(one["status"], one["counts"]["COMPLETED"]) for one in ended] == [("COMPLETED", 2)] * 3
    assert sum((await _asked(simulator, key)).values()) == 3 * 2 * MEMBERS


async def test_a_second_batch_over_one_output_is_refused(
    worker: Worker, council: str, simulator: Any, file_of: Any, place: Path, key: str
) -> None:
    """While the first is at it, with its process; the first one goes on."""
    await simulator.fault("slow", match=f":{key}-1:", delay_s=3)
    source, output = file_of(2), place / "out.csv"
    first = await started("batch", str(source), str(output), "--council", council)

    async def asked() -> Any:
        return await simulator.lines(f":{key}-1:")

    await until(asked)
    second = await _command(source, output, "--council", council, "--replace")
    assert (second.exit_code, second.stdout) == (2, "")
    assert f"process {first.pid}" in second.stderr
    assert (await ended_of(first)).code == 0
    with output.open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["COMPLETED"] * 2


async def test_calls_of_a_batch_come_behind_those_of_people(
    worker: Worker,
    stack: Any,
    make_council: Any,
    record: Any,
    client: Any,
    send: Any,
    simulator: Any,
    key: str,
    new_id: str,
) -> None:
    """On a server that serves by priority: one slot, ten rows wait for it, and a deliberation is answered next."""
    from blocks.vllm_server import VLLM

    server = VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model, priority=5)
    await server.save("by-priority", overwrite=True)
    council = await _known(record, client, await make_council(1, server="by-priority"))
    await simulator.pace(slots=1, latency_s=0.3)
    batch_id = new_id[:40]
    await send(batch_id, key, 10, council)

    async def all_wait() -> Any:
        return len(await simulator.lines(f":{key}-")) == 10

    await until(all_wait)
    assert await worker.ask(f"{new_id}-p", parameters={"task": "Name it", "council": council})
    await worker.finished(f"{new_id}-p")
    await simulator.pace(slots=64, latency_s=0.0)
    await _ended(client, batch_id)
    mine = (await simulator.lines(f"{new_id}-p:"))[0]
    late = [line for line in await simulator.lines(f":{key}-") if line["started_at"] > mine["received_at"]]
    assert len(late) > 1
    assert all(line["started_at"] > mine["started_at"] for line in late)


A_SECOND = 30
"""Calls that the limited server answers in a second: the 30 a minute of an account, on a clock that is faster."""


@asynccontextmanager
async def _limited(url: str) -> AsyncGenerator[tuple[str, list[int]], None]:
    """A server before the simulator that refuses what comes beyond its limit, and has no metrics; what it answered."""
    answered, recent = list[int](), deque[float](maxlen=A_SECOND)

    async def handle(request: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        if request.path == "/metrics":
            return web.Response(status=404)
        if request.method == "POST":
            if len(recent) == A_SECOND and now - recent[0] < 1:
                answered.append(429)
                return web.json_response(
                    {"error": {"message": "Rate limit reached"}}, status=429, headers={"Retry-After": "1"}
                )
            recent.append(now)
        kept = {name: request.headers[name] for name in ("Authorization", "X-Request-Id") if name in request.headers}
        kept["Content-Type"] = "application/json"
        data = await request.read()
        async with session.request(request.method, f"{url}{request.path}", headers=kept, data=data) as told:
            answered.append(told.status)
            return web.Response(body=await told.read(), status=told.status, content_type=told.content_type)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handle)
    async with aiohttp.ClientSession() as session:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}", answered
        finally:
            await runner.cleanup()


async def test_a_server_with_a_rate_limit_is_asked_no_call_twice_that_it_answered(
    connected: Any, stack: Any, make_council: Any, simulator: Any, file_of: Any, place: Path, key: str
) -> None:
    """Far more calls at once than it takes: it refuses some, which wait as it says, and all rows are decided."""
    from blocks.vllm_server import VLLM
    from flows.batch import batch

    async with _limited(stack.llm) as (url, answered):
        server = VLLM(base_url=url, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model)
        await server.save("limited", overwrite=True)
        council = await make_council(MEMBERS, server="limited")
        output = place / "out.parquet"
        state = await batch(input_file=str(file_of(40)), output_file=str(output), council=council, return_state=True)
    assert (state.name, _statuses(output)) == ("Completed", {"COMPLETED": 40}), state.message
    calls = await _asked(simulator, key)
    assert (len(calls), set(calls.values())) == (40 * MEMBERS, {1})
    assert 429 in answered


# --- a flow over files ----------------------------------------------------------------------------


async def test_a_flow_reads_and_writes_below_the_operator_s_folder(
    connected: Any, council: str, simulator: Any, shown: Any, file_of: Any, place: Path, key: str
) -> None:
    """Equal rows are asked once; the report is in Prefect; a budget is one for all runs of an output."""
    from flows.batch import batch

    source, output = file_of(3), place / "out.parquet"
    with source.open("a") as file:
        file.write(f"{key}-4,Name service 1\n")
    given = {"input_file": str(source), "output_file": str(output), "council": council, "dedupe": True}
    first = await batch(**given, budget={"max_calls": 6}, return_state=True)
    assert (first.name, "budget: 6 of 6 calls are used" in first.message) == ("Degraded", True)
    spent = await batch(**given, budget={"max_calls": 6}, resume=True, return_state=True)
    assert (spent.name, "budget: 6 of 6 calls are used" in spent.message) == ("Degraded", True)
    last = await batch(**given, budget={"max_calls": 9}, resume=True, return_state=True)
    assert (last.name, last.message) == ("Completed", f"simulated, 4 of 4 rows decided, in {output}")
    calls = await _asked(simulator, key)
    assert (sum(calls.values()), set(calls.values())) == (3 * MEMBERS, {1})
    copied = {row["id"]: row["copied_from"] for row in _rows(output)}
    assert copied == {f"{key}-{number}": f"{key}-1" if number == 4 else None for number in range(1, 5)}
    report = (await shown.artifact("batch", str(last.state_details.flow_run_id)))["data"]
    assert "**Simulated: " in report


@pytest.mark.parametrize("name", ["input_file", "output_file"])
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/etc/passwd.csv", "does not lie in a folder of CONCLAVE_BATCHES"),
        ("{place}/../rows.csv", "absolute path without `..`"),
        ("{place}/link.csv", "a symbolic link stands on the way"),
        ("{place}/way/rows.csv", "a symbolic link stands on the way"),
        ("rows.csv", "absolute path"),
        ("memory://rows.csv", "begins with no URL of CONCLAVE_BATCHES"),
    ],
)
async def test_a_path_outside_the_operator_s_folder_is_refused(
    connected: Any, simulator: Any, file_of: Any, place: Path, tmp_path: Path, name: str, path: str, told: str
) -> None:
    """Nothing is read, written or asked."""
    from flows.batch import batch

    (tmp_path / "rows.csv").write_text("id,task\n1,Choose\n")
    (place / "link.csv").symlink_to(tmp_path / "rows.csv")
    (place / "way").symlink_to(tmp_path)
    given = {"input_file": str(file_of(1)), "output_file": str(place / "out.csv")}
    state = await batch(**{**given, name: path.format(place=place)}, return_state=True)
    assert (state.type.value, told in state.message) == ("FAILED", True), state.message
    assert sorted(found.name for found in place.iterdir()) == ["link.csv", "rows.csv", "way"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["place", "rows.csv"]


async def test_no_rows_and_rows_of_five_megabytes(
    connected: Any, council: str, simulator: Any, place: Path, key: str
) -> None:
    """No row is a file that is refused; a row that is too large is that row's fault, and others are decided."""
    from flows.batch import batch

    empty, large = place / "empty.csv", place / "large.jsonl"
    empty.write_text("id,task\n")
    rows = [{"id": f"{key}-1", "task": "Name it"}, {"id": f"{key}-2", "task": "x" * 5_000_000}]
    large.write_text("".join(f"{json.dumps(row)}\n" for row in (*rows, {"id": f"{key}-3", "task": "Choose"})))
    refused = await batch(
        input_file=str(empty), output_file=str(place / "none.csv"), council=council, return_state=True
    )
    assert (refused.type.value, "has no row" in refused.message) == ("FAILED", True), refused.message
    assert sorted(found.name for found in place.iterdir()) == ["empty.csv", "large.jsonl"]
    output = place / "out.parquet"
    state = await batch(input_file=str(large), output_file=str(output), council=council, return_state=True)
    assert (state.name, _statuses(output)) == ("Degraded", {"COMPLETED": 2, "INVALID": 1})
    (bad,) = [row["error"] for row in _rows(output) if row["status"] == "INVALID"]
    assert "4,000,000" in bad
    assert sum((await _asked(simulator, key)).values()) == 2 * MEMBERS


async def test_a_run_that_goes_on_counts_and_spends_what_earlier_ones_did(
    connected: Any, council: str, simulator: Any, key: str, new_id: str
) -> None:
    """Two rows an agenda; a run is broken off with six of eight rows decided, and the budget has seven in it."""
    from flows.batch import batch
    from tasks.batch.asked import AskedRow, BatchRequest
    from tasks.batch.store import put_agenda, put_batch, read_batch

    batch_id = new_id[:40]
    for number in range(1, 5):
        rows = [
            AskedRow(
                id=str(row),
                row=row,
                line=row,
                key=f"{row:032x}",
                item={"id": f"{key}-{row}", "task": f"Name service {row}"},  # type: ignore[arg-type]  # pydantic reads it
            )
            for row in (2 * number - 1, 2 * number)
        ]
        await put_agenda(connected, batch_id, number, tuple(rows))
    request = BatchRequest.read({"agendas": 4, "council": council, "budget": {"max_calls": 7 * MEMBERS}, "window": 12})
    await put_batch(connected, batch_id, request, None)
    await simulator.fault("hang", match=f":{key}-[68]:")

    async def so_far() -> Any:
        return (await read_batch(connected, batch_id)).body

    async def broken_off() -> Any:
        counts = (await so_far()).get("counts") or {}
        return counts.get("decided") == 6

    run = asyncio.create_task(batch(batch_id=batch_id, return_state=True))
    await until(broken_off)
    run.cancel()
    await asyncio.wait([run])
    await simulator.heal()
    state = await batch(batch_id=batch_id, return_state=True)
    body = await so_far()
    counts = {name: count for name, count in body["counts"].items() if name in ("decided", "COMPLETED", "CANCELLED")}
    assert counts == {"decided": 7, "COMPLETED": 7, "CANCELLED": 1}, state.message
    assert (body["calls"], body["error"].startswith("budget: 21 of 21 calls are used")) == (21, True)
    answered = [line["request_id"] for line in await simulator.lines(f":{key}") if line["status"] == 200]
    assert (len(answered), len(set(answered))) == (7 * MEMBERS, 7 * MEMBERS)


# --- a folder, by a schedule ----------------------------------------------------------------------


async def test_a_schedule_does_new_files_once_and_never_two_at_a_time(
    connected: Any, council: str, simulator: Any, shown: Any, file_of: Any, place: Path, key: str
) -> None:
    """Every second while the first file takes longer: further runs are Skipped; a file that is put there later or
    was changed is new; what was done is left out."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    from deployments.provisioning.deploying import ensure_pool
    from deployments.worker import ConclaveWorker
    from flows.batch_files import batch_files

    (place / "out").mkdir()
    file_of(2, "a.csv")
    await simulator.fault("slow", match=f":{key}-1:", delay_s=3)
    pool = f"warm-{uuid.uuid4().hex[:8]}"
    await ensure_pool(pool)
    schedule = IntervalSchedule(interval=timedelta(seconds=1))
    manifest, runs = place / "out" / "batches.json", dict[str, str]()

    async def ended(*names: str) -> Any:
        found = await shown.found("flow_runs", deployments={"id": {"any_": [str(deployment)]}})
        runs.update({run["id"]: run["state"]["name"] for run in found if run["state"]})
        done = json.loads(manifest.read_text())["files"] if manifest.is_file() else {}
        return {Path(path).name for path in done} == set(names) and "Skipped" in runs.values()

    async def polled(worker: Any) -> None:
        while True:
            await worker.get_and_submit_flow_runs()
            await asyncio.sleep(0.2)

    async with get_client() as prefect, ConclaveWorker(work_pool_name=pool) as worker:
        deployment = await prefect.create_deployment(
            flow_id=await prefect.create_flow(batch_files),
            name=f"d-{uuid.uuid4().hex[:8]}",
            work_pool_name=pool,
            entrypoint="flows.batch_files.batch_files",
            parameters={
                "pattern": "*.csv",
                "output_folder": str(place / "out"),
                "council": council,
                "output_format": "csv",
            },
            schedules=[DeploymentScheduleCreate(schedule=schedule, active=True)],
        )
        polling = asyncio.create_task(polled(worker))
        try:
            await until(lambda: ended("a.csv"))
            file_of(1, "b.csv", first=3)
            await until(lambda: ended("a.csv", "b.csv"))
        finally:
            await prefect.delete_deployment(deployment)
            polling.cancel()
            await asyncio.wait([polling])
    assert "Completed" in runs.values()
    assert set(runs.values()) <= {"Completed", "Skipped", "Running", "Pending", "Scheduled", "Late"}
    calls = await _asked(simulator, key)
    assert (sum(calls.values()), set(calls.values())) == (3 * MEMBERS, {1})
    written = sorted(path.name.partition("-")[0] for path in (place / "out").glob("*.csv"))
    assert written == ["a", "b"]


async def test_a_file_that_was_changed_is_new_and_one_that_fails_keeps_nobody_from_the_others(
    connected: Any, council: str, simulator: Any, file_of: Any, place: Path, key: str
) -> None:
    """The run fails with the file; the others are done, and are left out the next time."""
    from flows.batch_files import batch_files

    (place / "out").mkdir()
    file_of(1, "b.csv")
    (place / "a.csv").write_text("id,text\n1,no column of a task\n")
    given = {"pattern": str(place / "*.csv"), "output_folder": str(place / "out"), "council": council}
    first = await batch_files(**given, return_state=True)
    assert (first.type.value, "1 files done, 1 failed" in first.message) == ("FAILED", True), first.message
    (place / "a.csv").unlink()
    file_of(2, "b.csv")
    second = await batch_files(**given, return_state=True)
    third = await batch_files(**given, return_state=True)
    assert [state.message for state in (second, third)] == ["1 files done, 0 failed", "0 files done, 0 failed"]
    (output,) = (place / "out").glob("b-*.parquet")
    assert _statuses(output) == {"COMPLETED": 2}
