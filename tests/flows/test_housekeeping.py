"""Housekeeping: what nobody runs is resumed or ended, what is old is let go, and everybody is told as before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

TASK = "Write a function to merge sorted arrays"


@pytest_asyncio.fixture
async def keep_house(connected: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Any, None]:
    """Run the flow: `state = await keep_house(cleanup_s=...)`; what it queues is gone after the test."""
    import tasks.operate.orphans as orphans
    from flows.housekeeping import housekeeping

    monkeypatch.setattr(orphans, "LOOK_AGAIN_S", 0.5)

    async def run(**parameters: Any) -> Any:
        return await housekeeping(**{"cleanup_s": 3e7, "timeout_s": 300, **parameters}, return_state=True)

    yield run
    await connected.jetstream.purge_stream("CONCLAVE_REQUESTS")


@pytest_asyncio.fixture
async def worker_there(connected: Any) -> AsyncGenerator[None, None]:
    """A worker that takes nothing, as far as anybody can see."""
    from blocks.documents import open_leases
    from blocks.record.queue import PRESENCE

    async with (await open_leases()).hold(f"{PRESENCE}test"):
        yield


@pytest_asyncio.fixture
async def left_behind(
    connected: Any, flow_process: Any, kill: Any, simulator: Any, until: Any, make_council: Any, new_id: str
) -> dict[str, Any]:
    """A deliberation whose process was killed with two of three answers in, and nobody holds its lease any more."""
    await simulator.fault("hang", match=f"{new_id}:task:propose-0:m3")
    fields = {"task": TASK, "council": await make_council(3)}
    process = await flow_process(**fields, deliberation_id=new_id)

    async def two_answers() -> bool:
        state = await connected.jetstream.stream_info("CONCLAVE_ANSWERS", subjects_filter=f"answers.{new_id}.>")
        return len(state.state.subjects or {}) == 2

    await until(two_answers)
    await kill(process, new_id)
    assert not await connected.leases.held(new_id)
    return fields


async def test_results_outlive_their_status(
    deliberate: Any, keep_house: Any, record: Any, simulator: Any, make_council: Any, new_id: str
) -> None:
    """A finished key goes for good; result, cancel and the same id again tell the same, without a call."""
    from blocks.documents import open_leases
    from tasks.deliberations.cancel import stop
    from tasks.deliberations.result import result_of

    council = await make_council(3)
    state, result = await deliberate(task=TASK, council=council)
    await record.statuses.create(f"{new_id}-open", {"id": f"{new_id}-open", "status": "PENDING"})
    done = await keep_house(cleanup_s=0.001)
    assert done.is_completed()
    assert await record.next(f"$KV.conclave-deliberations.{new_id}", 0) is None
    assert await record.next(f"$KV.conclave-deliberations.{new_id}.task", 0) is None
    assert await record.statuses.read(f"{new_id}-open") is not None
    assert await result_of(record, new_id) == result
    assert await stop(record, await open_leases(), new_id) == "COMPLETED"
    again, told = await deliberate(task=TASK, council=council)
    assert (again.name, told["decision"]) == (state.name, result["decision"])
    assert set((await simulator.calls(new_id)).values()) == {1}
    await record.statuses.merge(f"{new_id}-open", {"status": "FAILED", "completed_at": datetime.now(UTC).isoformat()})


async def test_streams_get_the_retention_of_their_block(keep_house: Any, record: Any) -> None:
    """A change of the block's days reaches streams that exist, but shortens them only where it was told to.

    Requests have days of their own.
    """
    from blocks.documents import fresh
    from blocks.jetstream import JetStream

    streams, requests = ("CONCLAVE_ANSWERS", "CONCLAVE_DECISIONS", "OBJ_conclave-bodies"), "CONCLAVE_REQUESTS"

    async def ages() -> dict[str, float]:
        found = {name: await record.jetstream.stream_info(name) for name in (*streams, requests)}
        return {name: info.config.max_age for name, info in found.items()}

    jetstream = await fresh(JetStream)
    changed = jetstream.model_copy(update={"retention_days": 7.0})
    await changed.save("default", overwrite=True)
    try:
        await keep_house()
        assert await ages() == {name: (365.0 if name == requests else 30.0) * 86_400 for name in (*streams, requests)}
        await keep_house(shorten_retention=True)
        assert await ages() == {name: (365.0 if name == requests else 7.0) * 86_400 for name in (*streams, requests)}
    finally:
        await jetstream.save("default", overwrite=True)
        await keep_house()


async def test_a_retention_of_less_than_a_day_is_refused(keep_house: Any, record: Any) -> None:
    """Also one that an older version stored: the run fails with the block and the field, and nothing is let go."""
    from prefect.client.orchestration import get_client

    from blocks.documents import fresh
    from blocks.jetstream import JetStream

    jetstream = await fresh(JetStream)
    with pytest.raises(ValueError, match="retention_days"):
        JetStream(retention_days=0.3)
    before = (await record.jetstream.stream_info("CONCLAVE_ANSWERS")).config.max_age
    async with get_client() as client:
        document = await client.read_block_document_by_name("default", "conclave-jetstream")
        data = {**document.data, "retention_days": 0.3}
        from prefect.client.schemas.actions import BlockDocumentUpdate

        await client.update_block_document(document.id, BlockDocumentUpdate(data=data))
    try:
        state = await keep_house(shorten_retention=True)
    finally:
        await jetstream.save("default", overwrite=True)
    assert state.is_failed()
    assert "conclave-jetstream/default: retention_days" in state.message
    assert (await record.jetstream.stream_info("CONCLAVE_ANSWERS")).config.max_age == before


async def test_other_peoples_runs_and_artifacts_are_left_alone(
    keep_house: Any, worker_there: None, record: Any, shown: Any, new_id: str
) -> None:
    """A flow of the same name that is Running, with another's tag or none, and the artifacts of one that has ended."""
    from prefect import flow
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Running

    from tasks.operate.retention import let_go_of_artifacts

    key = f"theirs-{new_id.lower()}"

    @flow(name="evaluate", persist_result=False)
    async def evaluate() -> None:
        await acreate_markdown_artifact("theirs", key=key)

    @flow(name="deliberate", persist_result=False)
    async def deliberate(task: str) -> None:
        """Somebody else's."""

    await evaluate()
    async with get_client() as client:
        runs = [
            await client.create_flow_run(deliberate, parameters={"task": TASK}, state=state, tags=tags)
            for state in (Running(), Cancelling())
            for tags in ([], ["conclave:11111111-1111-4111-8111-111111111111"])
        ]
        done = await keep_house()
        await let_go_of_artifacts.fn(1e-6)
        found = [(await client.read_flow_run(run.id)).state.type for run in runs]
    assert done.is_completed()
    assert found == [run.state.type for run in runs]
    for run in runs:
        assert await record.last(f"requests.{run.id}") is None
        assert await record.last(f"deliberations.{run.id}.finished") is None
    assert len(await shown.found("artifacts", artifacts={"key": {"any_": [key]}})) == 1


async def test_one_that_is_odd_keeps_nobody_from_the_others(
    left_behind: Any, keep_house: Any, worker_there: None, record: Any, until: Any, new_id: str
) -> None:
    """A key without a status, one that is no JSON, a run of ours with such a key: told, and the next one is resumed."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from flows.deliberate import deliberate

    status = record.statuses._keys
    odd = [f"{new_id}-a", f"{new_id}-b", f"{new_id}-c"]
    for key, value in zip(odd, (b'{"cancel_requested":true}', b"\xff", b'{"status":["PENDING"]}'), strict=True):
        await status.put(key, value)
    async with get_client() as client:
        tags = [f"conclave:{record.installation}"]
        for key in odd:
            await client.create_flow_run(
                deliberate, parameters={"deliberation_id": key, "task": 5}, state=Running(), tags=tags
            )
    try:
        done = await keep_house()
        assert done.is_completed()
        assert await record.last(f"requests.{new_id}") is not None
    finally:
        for key in odd:
            await status.purge(key)


async def test_what_one_run_cannot_look_at_the_next_ones_do(
    keep_house: Any, worker_there: None, record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str
) -> None:
    """However many keys come first: each run goes on where the last one ended, and begins anew at the end."""
    import tasks.operate.orphans as orphans

    ids = [f"{new_id}-{number}" for number in range(4)]
    for one in ids:
        await record.statuses.create(one, {"id": one, "status": "PENDING", "request": {"task": TASK}})
    keys = (await record.jetstream.stream_info("KV_conclave-deliberations")).state.messages
    monkeypatch.setattr(orphans, "MAX_LOOKED_AT", keys // 2)
    for _ in range(4):  # twice around, as each also sees that it came to the end
        assert (await keep_house()).is_completed()
    assert [await record.last(f"requests.{one}") is not None for one in ids] == [True] * 4
    for one in ids:
        await record.statuses.merge(one, {"status": "FAILED", "completed_at": datetime.now(UTC).isoformat()})


async def test_a_cancelled_evaluation_is_ended_and_not_resumed(
    connected: Any, left_behind: Any, keep_house: Any, worker_there: None, record: Any, recorded: Any, new_id: str
) -> None:
    """Its deliberation has another id, and a flow run of its own, which Prefect shows as Running."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Running

    from flows.deliberate import deliberate
    from flows.evaluate import evaluate
    from tasks.operate.diagnose import answer

    async with get_client() as client:
        whole = await client.create_flow_run(
            evaluate, parameters={"questions": "q.jsonl", "deliberation_id": new_id}, state=Running()
        )
        part = await client.create_task_run(answer, whole.id, dynamic_key="deliberate-0", state=Running())
        run = await client.create_flow_run(
            deliberate, parameters=left_behind, state=Running(), parent_task_run_id=part.id
        )
        lease = await (await _leases()).take(new_id)
        await record.fence(new_id, lease.epoch, str(run.id))
        await (await _leases()).release(lease)
        await client.set_flow_run_state(whole.id, Cancelled(), force=True)
        await keep_house()
    finished = await record.last(f"deliberations.{new_id}.finished")
    assert finished.body["status"] == "CANCELLED"
    assert await record.last(f"requests.{new_id}") is None


async def _leases() -> Any:
    from blocks.documents import open_leases

    return await open_leases()


async def test_artifacts_of_old_runs_are_deleted(
    deliberate: Any, keep_house: Any, shown: Any, make_council: Any, new_id: str
) -> None:
    """Those of a run that ended longer ago than the days that are given; those of younger runs stay."""
    from tasks.operate.retention import let_go_of_artifacts

    await deliberate(task=TASK, council=await make_council(1))
    wanted = {"key": {"any_": [f"report-{new_id}", f"ranking-{new_id}"]}}
    await keep_house(artifact_days=1)
    assert len(await shown.found("artifacts", artifacts=wanted)) == 2
    await let_go_of_artifacts.fn(1e-6)
    assert await shown.found("artifacts", artifacts=wanted) == []


async def test_what_a_killed_process_left_goes_into_the_queue_once(
    left_behind: Any, keep_house: Any, worker_there: None, record: Any, recorded: Any, new_id: str
) -> None:
    """Under its own flow run, with its own request; a second look finds it in the queue and leaves it alone."""
    await keep_house()
    await keep_house()
    event = await record.last(f"requests.{new_id}")
    plan = (await recorded.events(f"deliberations.{new_id}.epoch"))[f"deliberations.{new_id}.epoch"][0]
    info = await record.jetstream.stream_info("CONCLAVE_REQUESTS", subjects_filter=f"requests.{new_id}")
    assert info.state.subjects == {f"requests.{new_id}": 1}
    assert (event.body["run"], event.body["door"]) == (plan["run"], "housekeeping")
    assert {name: event.body["parameters"][name] for name in left_behind} == left_behind


async def test_what_waits_too_long_is_ended_with_what_stands(
    left_behind: Any, keep_house: Any, record: Any, shown: Any, recorded: Any, new_id: str
) -> None:
    """Nobody is there to run it: two of three stand, so it is decided, degraded, and Prefect shows that."""
    from tasks.deliberations.result import result_of

    await keep_house()
    assert (await record.statuses.read(new_id))["status"] == "IN_PROGRESS"
    long_ago = datetime.now(UTC) - timedelta(seconds=400)
    await record.statuses.merge(new_id, {"unattended_since": long_ago.isoformat()})
    await keep_house()
    result = await result_of(record, new_id)
    members = {member["agent_id"]: member["status"] for member in result["members"]}
    assert (result["status"], result["degraded"], members["m3"]) == ("COMPLETED", True, "timeout")
    run = (await recorded.events(f"deliberations.{new_id}.epoch"))[f"deliberations.{new_id}.epoch"][0]["run"]
    flow_run = (await shown.found("flow_runs", flow_runs={"id": {"any_": [run]}}))[0]
    assert (flow_run["state_type"], flow_run["state_name"]) == ("COMPLETED", "Degraded")


async def test_what_prefect_shows_as_cancelled_is_ended_cancelled(
    left_behind: Any, keep_house: Any, worker_there: None, record: Any, recorded: Any, new_id: str
) -> None:
    """A stock worker killed the process of a cancelled run: the record says CANCELLED, too."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    run = (await recorded.events(f"deliberations.{new_id}.epoch"))[f"deliberations.{new_id}.epoch"][0]["run"]
    async with get_client() as client:
        await client.set_flow_run_state(run, Cancelling(), force=True)
        await keep_house()
        state = (await client.read_flow_run(run)).state
    finished = await record.last(f"deliberations.{new_id}.finished")
    assert (finished.body["status"], state.name) == ("CANCELLED", "Cancelled")


async def test_a_run_that_prefect_shows_as_open_is_told_that_it_ended(
    deliberate: Any, keep_house: Any, make_council: Any, new_id: str
) -> None:
    """Its deliberation is final on the record, and its process was killed before it could say so."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    state, _ = await deliberate(task=TASK, council=await make_council(1))
    async with get_client() as client:
        run = state.state_details.flow_run_id
        await client.set_flow_run_state(run, Running(), force=True)
        await keep_house()
        assert (await client.read_flow_run(run)).state.name == "Completed"


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan"])
async def test_a_variable_that_is_no_time_is_named(connected: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The run fails with the variable and what would be right."""
    from flows.housekeeping import housekeeping

    monkeypatch.setenv("DELIBERATION_CLEANUP", text)
    state = await housekeeping(return_state=True)
    assert state.is_failed()
    assert f"DELIBERATION_CLEANUP: {text!r} is no number of seconds above 0, such as 3600" in state.message


async def test_a_cancel_that_came_first_keeps_no_request_from_its_key(record: Any, new_id: str) -> None:
    """What is asked afterwards is noted beside the flag: another request is refused, and a lost message found."""
    from tasks.council.exceptions import InvalidRequest
    from tasks.deliberations.submit import Request, ask_to_cancel, asked_of, enqueue

    await ask_to_cancel(record, new_id)
    assert (await enqueue(record, Request(id=new_id, parameters={"task": TASK}, door="gateway"))).queued
    status = await record.statuses.read(new_id)
    assert (status["cancel_requested"], await asked_of(record, status)) == (True, {"task": TASK})
    with pytest.raises(InvalidRequest, match="another request"):
        await enqueue(record, Request(id=new_id, parameters={"task": "Name the service"}, door="gateway"))
    await record.jetstream.purge_stream("CONCLAVE_REQUESTS", subject=f"requests.{new_id}")
    await record.statuses.merge(new_id, {"status": "CANCELLED", "completed_at": datetime.now(UTC).isoformat()})


async def test_the_cancel_of_what_was_never_asked_ends(keep_house: Any, record: Any, new_id: str) -> None:
    """A command was stopped before its request was on the record: its flag has a status, which is read and ended."""
    import io

    from rich.console import Console

    from deployments.cli.support import exit_code
    from deployments.terminal import show_result
    from tasks.deliberations.result import result_of
    from tasks.deliberations.submit import ask_to_cancel

    async def shown() -> tuple[int, str]:
        result = await result_of(record, new_id)
        assert result is not None
        console = Console(file=io.StringIO(), width=80)
        show_result(result, console, [])
        return exit_code(result), console.file.getvalue()  # type: ignore[attr-defined]

    await ask_to_cancel(record, new_id)
    code, text = await shown()
    assert (code, "pending" in text) == (3, True)
    await keep_house()
    finished = await record.last(f"deliberations.{new_id}.finished")
    assert (finished.body["status"], finished.body["error"]) == ("CANCELLED", "cancelled before it began")
    code, text = await shown()
    assert (code, "cancelled before it began" in text) == (5, True)


async def test_a_key_without_a_status_is_pending_for_everybody(keep_house: Any, record: Any, new_id: str) -> None:
    """As older versions left it behind: it is read, fails nobody else, and comes to an end."""
    from deployments.cli.support import exit_code
    from tasks.deliberations.result import result_of

    await record.statuses.create(new_id, {"cancel_requested": True})
    result = await result_of(record, new_id)
    assert result is not None
    assert (result["status"], exit_code(result)) == ("PENDING", 3)
    state = await keep_house()
    assert state.is_completed()
    assert (await record.last(f"deliberations.{new_id}.finished")).body["status"] == "CANCELLED"


async def test_a_large_request_that_never_came_to_the_queue_goes_there_whole(
    keep_house: Any, worker_there: None, record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str
) -> None:
    """Its door was killed between the key and the message: the key says where what was asked is kept."""
    from blocks.exceptions import RecordUnavailable
    from blocks.record.events import Record
    from tasks.deliberations.submit import MAX_REQUEST_IN_STATUS, Request, enqueue

    async def killed(*_: Any) -> None:
        raise RecordUnavailable("killed")

    parameters = {"task": TASK, "context": {"log": "\u00e4" * (MAX_REQUEST_IN_STATUS + 1)}, "members": 3}
    with monkeypatch.context() as patched, pytest.raises(RecordUnavailable, match="killed"):
        patched.setattr(Record, "publish", killed)
        await enqueue(record, Request(id=new_id, parameters=parameters, door="planning"))
    status = await record.statuses.read(new_id)
    assert (status["status"], "request" in status, bool(status["request_body"])) == ("PENDING", False, True)
    assert await record.last(f"requests.{new_id}") is None
    assert (await keep_house()).is_completed()
    event = await record.last(f"requests.{new_id}")
    assert (event.body["parameters"], event.body["door"]) == (parameters, "housekeeping")
    await record.statuses.merge(new_id, {"status": "FAILED", "completed_at": datetime.now(UTC).isoformat()})


@pytest.fixture
def server_clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`server_clock(hours)`: what housekeeping is told of the server's clock is so far from this host's."""
    import tasks.operate.orphans as orphans
    import tasks.operate.retention as retention
    from blocks.record.installation import server_time

    def set_to(hours: float) -> None:
        async def told(record: Any) -> datetime:
            return await server_time(record) + timedelta(hours=hours)

        for module in (retention, orphans):
            monkeypatch.setattr(module, "server_time", told)

    return set_to


async def test_a_status_is_let_go_by_the_servers_clock(
    keep_house: Any, record: Any, server_clock: Any, new_id: str
) -> None:
    """An hour behind this host's it is too young, an hour ahead too old, whatever the host wrote as its end."""
    ended = {"id": new_id, "status": "FAILED", "completed_at": (datetime.now(UTC) - timedelta(hours=3)).isoformat()}
    await record.statuses.create(new_id, ended)
    server_clock(-1)
    assert (await keep_house(cleanup_s=0.001)).is_completed()
    assert await record.statuses.read(new_id) == ended
    server_clock(1)
    assert (await keep_house(cleanup_s=7200)).is_completed()
    assert await record.statuses.read(new_id) == ended
    assert (await keep_house(cleanup_s=1800)).is_completed()
    assert await record.statuses.read(new_id) is None


async def test_how_long_nobody_runs_it_is_measured_by_the_servers_clock(
    keep_house: Any, record: Any, server_clock: Any, new_id: str
) -> None:
    """Noted and compared in its time, so that a host an hour ahead or behind ends nothing too early or too late."""
    await record.statuses.create(new_id, {"id": new_id, "status": "PENDING", "request": {"task": TASK}})

    async def noted() -> timedelta:
        status = await record.statuses.read(new_id)
        return datetime.now(UTC) - datetime.fromisoformat(status["unattended_since"])

    server_clock(-1)
    await keep_house()
    assert timedelta(hours=0.9) < await noted() < timedelta(hours=1.1)
    await keep_house(timeout_s=1800)  # by this host's clock it would be over
    assert (await record.statuses.read(new_id))["status"] == "PENDING"
    server_clock(1)
    await keep_house(timeout_s=9000)
    assert (await record.statuses.read(new_id))["status"] == "PENDING"
    await keep_house(timeout_s=5400)  # by this host's clock it would not be over
    assert (await record.last(f"deliberations.{new_id}.finished")).body["status"] == "TIMEOUT"
