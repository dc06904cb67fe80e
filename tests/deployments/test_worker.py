"""The warm worker: its flows' loop runs here in a thread, its Prefect side takes what a pool has."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import httpx
import pytest
import pytest_asyncio

from deployments.stack.probes import in_work
from tests.conftest import until

TASK = "Write a function to merge sorted arrays"
HEALTH = "127.0.0.1:{}"


class Worker:
    """The flows' loop of a worker, and what the record and Prefect say of what it runs."""

    def __init__(self, thread: Any, record: Any, health: str) -> None:
        self.thread, self.record, self.health = thread, record, health

    async def ask(self, one: str, **request: Any) -> bool:
        """Put a request into the queue."""
        from tasks.deliberations.submit import Request, enqueue

        fields = {"parameters": {"task": TASK}, "door": "gateway", **request}
        return bool(await enqueue(self.record, Request(id=one, **fields)))

    async def finished(self, one: str) -> dict[str, Any]:
        """Its final event, once the request has left the queue."""
        from tasks.deliberations.submit import queued

        async def done() -> Any:
            event = await self.record.last(f"deliberations.{one}.finished")
            return event if event and not await queued(self.record, one) else None

        return dict((await until(done)).body)

    async def told(self) -> tuple[int, dict[str, Any]]:
        """What its health endpoint answers."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.health}/healthz") as answer:
            return answer.status, await answer.json()


@pytest_asyncio.fixture
async def worker(connected: Any) -> AsyncGenerator[Worker, None]:
    """A worker's flows' loop, ready, drained after the test."""
    from prefect.logging import get_logger

    from deployments.settings import load_settings
    from deployments.stack.ports import free_port
    from deployments.worker.flows_thread import FlowsThread
    from deployments.worker.stalls import LoopWatch

    address = f"127.0.0.1:{free_port(19000)}"
    settings = load_settings().model_copy(update={"worker_health": address, "worker_drain_s": 20.0, "worker_batch": 1})
    log = get_logger("test-worker")
    watch = LoopWatch(log)
    watch.start()
    thread = FlowsThread(settings, "conclave", 8, log, watch)
    thread.start()
    found = Worker(thread, connected, address)
    try:
        await until(lambda: _ready(thread))
        yield found
    finally:
        await thread.stop()
        watch.close()
    assert thread.failure is None


async def _ready(thread: Any) -> bool:
    return bool(thread.ready)


async def test_a_request_becomes_one_flow_run_and_one_decision(
    worker: Worker, make_council: Any, simulator: Any, new_id: str
) -> None:
    """From the queue, under its id, shown under the deployment; asked again it is not run again, also once let go."""
    from prefect.client.orchestration import get_client

    parameters = {"task": TASK, "council": await make_council(3)}
    assert await worker.ask(new_id, parameters=parameters)
    finished = await worker.finished(new_id)
    status = await worker.record.read_status(new_id)
    async with get_client() as client:
        run = await client.read_flow_run(status["run"])
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
    assert (finished["status"], run.state.name) == ("COMPLETED", "Completed")
    assert (run.deployment_id, run.idempotency_key, run.run_count) == (deployment.id, new_id, 1)
    assert (status["door"], status["tries"]) == ("gateway", 1)
    assert not await worker.ask(new_id, parameters=parameters)
    event = await worker.record.next(f"$KV.conclave-deliberations.{new_id}", 0)
    await worker.record.purge_status(event)
    assert not await worker.ask(new_id, parameters=parameters)
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_what_a_council_cannot_be_asked_ends_with_the_field(worker: Worker, new_id: str) -> None:
    """An unknown council, which is known only when its turn comes: FAILED on the record and in Prefect."""
    from prefect.client.orchestration import get_client

    assert await worker.ask(new_id, parameters={"task": TASK, "council": "nowhere"})
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["error"].partition(":")[0]) == ("FAILED", "council")
    async with get_client() as client:
        run = await client.read_flow_run((await worker.record.read_status(new_id))["run"])
    assert run.state.is_failed()
    assert "council: 'nowhere' is unknown" in run.state.message


async def test_people_do_not_wait_behind_a_batch(
    worker: Worker, make_council: Any, simulator: Any, new_id: str
) -> None:
    """The batch lane's one place is taken by a council that hangs, and more wait: an interactive request decides."""
    council = await make_council(1)
    await simulator.fault("hang", match=f"{new_id}-b")
    batch = [f"{new_id}-b{number}" for number in range(3)]
    for one in batch:
        assert await worker.ask(one, parameters={"task": TASK, "council": council}, lane="batch")

    async def asked() -> bool:
        return bool(await simulator.calls(batch[0]))

    await until(asked)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": council})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    status, told = await worker.told()
    assert (status, told["ready"], told["in_work"]) == (200, True, 1)
    assert await asyncio.to_thread(in_work, f"http://{worker.health}") == 1  # as `conclave down` asks
    for one in batch:
        await worker.record.merge_status(one, {"cancel_requested": True})
    for one in batch:
        finished = await worker.finished(one)
        assert (finished["status"], finished["engine"]) == ("CANCELLED", "simulator")
    assert not await simulator.calls(batch[2])


async def test_a_failure_that_is_not_the_requests_is_tried_again(
    worker: Worker, make_council: Any, simulator: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that raises is run again, while another one goes on; after too many tries it is ended, and said to be."""
    import deployments.worker.runs as runs
    from blocks.exceptions import RecordError

    monkeypatch.setattr(runs, "AGAIN_S", 0.1)
    council = await make_council(1)
    run_flow = runs.run_flow
    raised = []

    async def raising(flow: Any, run: Any, parameters: Any, *others: Any) -> Any:
        if parameters.get("deliberation_id") == new_id:
            raised.append(run.id)
            raise RecordError("the disk is full")
        return await run_flow(flow, run, parameters, *others)

    monkeypatch.setattr(runs, "run_flow", raising)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": council})
    assert await worker.ask(f"{new_id}-other", parameters={"task": TASK, "council": council})
    assert (await worker.finished(f"{new_id}-other"))["status"] == "COMPLETED"
    assert (await worker.finished(new_id))["status"] == "TIMEOUT"
    assert len(raised) == runs.MAX_TRIES
    assert len(set(raised)) == 1
    assert (await worker.record.read_status(new_id))["tries"] == runs.MAX_TRIES


async def test_what_a_killed_pod_left_is_taken_up_in_its_flow_run(worker: Worker, make_council: Any) -> None:
    """Housekeeping asks for it again: Prefect shows the run, which had Crashed, as Completed."""
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed, Pending

    parameters = {"task": TASK, "council": await make_council(1)}
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters, state=Pending())
        await client.set_flow_run_state(run.id, Crashed(), force=True)
        assert await worker.ask(str(run.id), parameters=parameters, run=str(run.id), door="housekeeping")
        finished = await worker.finished(str(run.id))
        found = await client.read_flow_run(run.id)
    assert (finished["status"], found.state.name) == ("COMPLETED", "Completed")


async def test_a_lease_that_is_lost_ends_the_run_and_leaves_the_request(
    worker: Worker, make_council: Any, simulator: Any, recorded: Any, new_id: str
) -> None:
    """Another holder begins an epoch while members wait: what this worker writes is refused, the other one decides."""
    council = await make_council(3)
    await simulator.fault("slow", match=f"{new_id}:", delay_s=4)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": council})

    async def asked() -> bool:
        return len(await simulator.calls(new_id)) == 3

    await until(asked)
    fence = await worker.record.fence(new_id, 10**9, "another")  # as one that thought this worker dead

    async def idle() -> bool:
        return not (await worker.told())[1]["in_work"]

    await until(idle)
    assert await recorded.events(f"decisions.{new_id}.>") == {}
    await worker.record.publish_final(
        f"deliberations.{new_id}.finished", "e", "end", {"status": "COMPLETED", "task_id": new_id}, fence
    )
    await _purge(recorded, new_id)


async def test_a_delivery_that_is_stale_is_not_answered(
    worker: Worker, make_council: Any, simulator: Any, until: Any, new_id: str
) -> None:
    """A successor begins under the same flow run: this worker leaves without a word to Prefect or to the queue."""
    from prefect.client.orchestration import get_client

    from tasks.deliberations.submit import queued

    await simulator.fault("slow", match=f"{new_id}:", delay_s=4)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})

    async def asked() -> bool:
        return bool(await simulator.calls(new_id))

    await until(asked)
    run = (await worker.record.read_status(new_id))["run"]
    await worker.record.fence(new_id, 10**9, run)

    async def idle() -> bool:
        return not (await worker.told())[1]["in_work"]

    await until(idle)
    info = await worker.record.jetstream.consumer_info("CONCLAVE_REQUESTS", "workers-interactive")
    assert (await queued(worker.record, new_id), info.num_ack_pending, info.num_pending) == (True, 1, 0)
    async with get_client() as client:
        assert (await client.read_flow_run(run)).state.name == "Running"
    await worker.record.jetstream.purge_stream("CONCLAVE_REQUESTS", subject=f"requests.{new_id}")


async def test_a_flow_that_is_no_deliberation_is_cancelled(worker: Worker, simulator: Any, until: Any) -> None:
    """The canary waits for a model that hangs: Cancelling in Prefect ends it Cancelled, and the request is gone."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Pending

    from blocks.names import tag_of
    from flows.diagnostics import diagnostics
    from tasks.deliberations.submit import queued

    await simulator.fault("hang", match="doctor-")
    async with get_client() as client:
        tags = [tag_of(worker.record.installation)]
        run = await client.create_flow_run(diagnostics, parameters={"councils": ["dev"]}, state=Pending(), tags=tags)
        one = str(run.id)
        await worker.ask(one, flow="flows.diagnostics.diagnostics", parameters={}, run=one)

        async def hangs() -> bool:
            return bool(await simulator.calls_of("doctor-"))

        await until(hangs)
        await client.set_flow_run_state(run.id, Cancelling())

        async def gone() -> bool:
            return not await queued(worker.record, one)

        await until(gone)
        assert (await client.read_flow_run(run.id)).state.name == "Cancelled"


async def test_garbage_does_not_stop_it(worker: Worker, recorded: Any, make_council: Any, new_id: str) -> None:
    """What is no request becomes a dead letter with the reason, whatever its subject, and the next one is run."""
    odd = {
        f"{new_id}-a": b"\xff",
        f"{new_id}-b": json.dumps(_body(f"{new_id}-b", flow="os.system")).encode(),
        f"{new_id}-c": b"[1,2]",
        f"{new_id}-d": json.dumps(_body(f"{new_id}-d", run="garbage")).encode(),
        f"{new_id}-e": json.dumps(_body("somebody-else")).encode(),
        f"{new_id};bad!id": b"{}",
        f"{new_id}-f": b"[" * 5_000,
    }
    for one, data in odd.items():
        await recorded.client.jetstream().publish(f"requests.{one}", data)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"

    async def buried() -> Any:
        found = await _buried(worker, new_id)
        return found if len(found) == len(odd) else None

    reasons = {letter.subject.removeprefix(f"requests.{new_id}"): letter.reason for letter in await until(buried)}
    assert "is no JSON" in reasons["-a"]
    assert reasons["-b"].startswith("flow: 'os.system' is none that the warm worker runs")
    assert reasons["-c"].startswith("id: ")
    assert reasons["-d"].startswith("run: ")
    assert reasons["-e"] == "id: is not that of the message's subject"
    assert "is no JSON" in reasons["-f"]
    assert await recorded.events(f"deliberations.{new_id}-a.>") == {}


async def test_what_waits_beside_garbage_goes_on(
    worker: Worker, recorded: Any, simulator: Any, make_council: Any, new_id: str
) -> None:
    """Garbage and another request under the id of one that runs end nothing but themselves."""
    await simulator.fault("slow", match=f"{new_id}:", delay_s=4)
    council = await make_council(3)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": council})

    async def asked() -> bool:
        return len(await simulator.calls(new_id)) == 3

    await until(asked)
    other = _body(new_id, parameters={"task": "Something else", "council": council})
    for data in (b"[1,2]", json.dumps(other).encode()):
        await recorded.client.jetstream().publish(f"requests.{new_id}", data)
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["engine"]) == ("COMPLETED", "simulator")

    async def buried() -> Any:
        found = await _buried(worker, new_id)
        return found if len(found) == 2 else None

    reasons = [letter.reason for letter in await until(buried)]
    assert any("was already asked with another request" in reason for reason in reasons)
    ends = await recorded.events(f"deliberations.{new_id}.finished")
    assert [len(bodies) for bodies in ends.values()] == [1]
    assert (await worker.record.read_status(new_id))["status"] == "COMPLETED"


async def test_another_request_does_not_end_one_that_was_left(
    worker: Worker, recorded: Any, make_council: Any, new_id: str
) -> None:
    """A plan whose driver was killed: a stranger's run under its id is refused, and the resume decides."""
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from tasks.council.models import Deliberation, DeliberationRequest, InvalidRequest
    from tasks.deliberations.plan import council_spec

    council = await make_council(3)
    request = DeliberationRequest(task=TASK, council=council)
    plan = Deliberation.plan(new_id, request, await council_spec(council))
    body = {"plan": plan.model_dump(mode="json"), "request": request.model_dump(mode="json")}
    await worker.record.publish_final(f"deliberations.{new_id}.plan", f"{new_id}:plan", "deliberation.plan", body)
    strange = {"task": "Something else", "council": council, "deliberation_id": new_id}
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=strange, state=Pending())
        message = _body(new_id, parameters=strange, run=str(run.id), door="prefect")
        await recorded.client.jetstream().publish(f"requests.{new_id}", json.dumps(message).encode())

        async def ended() -> Any:
            state = (await client.read_flow_run(run.id)).state
            return state if state.is_final() else None

        assert "was already asked with another request" in (await until(ended)).message
    assert await recorded.events(f"deliberations.{new_id}.finished") == {}
    with pytest.raises(InvalidRequest, match="was already asked with another request"):
        await worker.ask(new_id, parameters={"task": "A third", "council": council}, run=str(uuid.uuid4()))
    assert await worker.ask(new_id, parameters={"task": TASK, "council": council}, run=None)
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["successful_responses"]) == ("COMPLETED", 3)


async def test_a_message_gets_nobody_elses_run(worker: Worker, recorded: Any, make_council: Any, new_id: str) -> None:
    """It names a run of another flow, id, installation or request: that stays as it is, and the message is dead."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Pending, Running, Scheduled

    from flows.deliberate import deliberate
    from flows.housekeeping import housekeeping

    @flow(name="foreign")
    async def foreign() -> None:
        """Somebody else's."""

    ours = {"task": TASK, "council": await make_council(1)}
    other = ["conclave:00000000-0000-0000-0000-000000000000"]
    async with get_client() as client:
        made = [
            await client.create_flow_run(foreign, state=Running()),
            await client.create_flow_run(housekeeping, state=Scheduled()),
            await client.create_flow_run(deliberate, parameters=ours, state=Running(), tags=other),
            await client.create_flow_run(deliberate, parameters=ours, state=Pending()),
        ]
        before = [(await client.read_flow_run(run.id)).state.id for run in made]
        messages = [(str(run.id), str(run.id)) for run in made]
        messages += [(f"{new_id}-{number}", str(run.id)) for number, run in enumerate(made)]
        for one, run in messages:
            body = json.dumps(_body(one, parameters=ours, run=run, door="prefect")).encode()
            await recorded.client.jetstream().publish(f"requests.{one}", body)

        async def buried() -> bool:
            found = [letter.subject for each, _ in messages for letter in await _buried(worker, each)]
            return {f"requests.{each}" for each, _ in messages} <= set(found)

        await until(buried)
        assert [(await client.read_flow_run(run.id)).state.id for run in made] == before
    for one, _ in messages:
        assert await recorded.events(f"deliberations.{one}.>") == {}


async def test_a_key_that_cannot_be_read_keeps_no_message_in_the_queue(
    worker: Worker, recorded: Any, make_council: Any, new_id: str
) -> None:
    """Somebody wrote what is no JSON where the status stands: the request is run all the same."""
    await recorded.client.jetstream().publish(f"$KV.conclave-deliberations.{new_id}", b"garbage")
    message = _body(new_id, parameters={"task": TASK, "council": await make_council(1)})
    await recorded.client.jetstream().publish(f"requests.{new_id}", json.dumps(message).encode())
    assert (await worker.finished(new_id))["status"] == "COMPLETED"


async def test_what_fails_again_and_again_ends_once_and_is_kept(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises, and however often: FAILED with the reason, a dead letter, and a replay under a new id."""
    import deployments.worker.runs as runs
    from tasks.deliberations.dead_letters import replay

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    raised = []

    async def choking(record: Any, one: str) -> Any:
        if one == new_id:
            raised.append(one)
            raise KeyError("engine")
        return await status_of(record, one)

    status_of = runs.status_of
    monkeypatch.setattr(runs, "status_of", choking)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    finished = await worker.finished(new_id)
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith(f"given up after {runs.MAX_FAILURES} failures: KeyError")
    assert len(raised) == runs.MAX_FAILURES
    (letter,) = await _buried(worker, new_id)
    assert (letter.id, letter.reason) == (new_id, finished["error"])
    again = await replay(worker.record, letter.sequence)
    assert again != new_id
    assert (await worker.finished(again))["status"] == "COMPLETED"
    assert (await worker.finished(new_id))["status"] == "FAILED"


async def test_a_part_that_is_away_does_not_count_against_a_request(
    worker: Worker, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked for in vain: the request waits, and is decided once the part is back."""
    import deployments.worker.runs as runs
    from blocks.exceptions import PrefectUnavailable, RecordUnavailable

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    status_of, raised = runs.status_of, []
    away = [PrefectUnavailable("away"), RecordUnavailable("away")]

    async def absent(record: Any, one: str) -> Any:
        if one == new_id and len(raised) < 2 * runs.MAX_FAILURES:
            raised.append(one)
            raise away[len(raised) % 2]
        return await status_of(record, one)

    monkeypatch.setattr(runs, "status_of", absent)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    assert len(raised) == 2 * runs.MAX_FAILURES
    assert await _buried(worker, new_id) == []


@pytest.mark.parametrize("answered", [404, 500])
async def test_what_prefect_answers_again_and_again_ends_once_and_is_kept(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """An answer that may come from the request: FAILED with it and a dead letter; a 500 has patience first."""
    import deployments.worker.runs as runs

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    if answered == 500:
        monkeypatch.setattr(runs, "SERVER_ERRORS_S", 0.0)
    raised = _prefect_answers(monkeypatch, new_id, answered)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    finished = await worker.finished(new_id)
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith(f"given up after {runs.MAX_FAILURES} failures: HTTPStatusError: {answered}")
    assert len(raised) == runs.MAX_FAILURES
    (letter,) = await _buried(worker, new_id)
    assert letter.reason == finished["error"]
    assert await _ends(recorded, new_id) == 1


async def test_a_prefect_that_is_overloaded_does_not_count_against_a_request(
    worker: Worker, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it answers 503, and without patience for what may come from the request."""
    import deployments.worker.runs as runs

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    monkeypatch.setattr(runs, "SERVER_ERRORS_S", 0.0)
    raised = _prefect_answers(monkeypatch, new_id, 503, times=2 * runs.MAX_FAILURES)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    assert len(raised) == 2 * runs.MAX_FAILURES
    assert await _buried(worker, new_id) == []


async def test_an_answer_of_a_later_version_counts(
    worker: Worker, simulator: Any, recorded: Any, make_council: Any, new_id: str
) -> None:
    """A field that is not known here is passed over: the member that hangs has answered, and all three decide."""
    plan = await _left_to_m1(worker, simulator, make_council, new_id)
    written = {"author_id": "m1", "author_role": "DEV", "content": "Merge them.", "model": "m", "tokens": 3}
    answer = _answered(plan, proposal={**written, "finish_reason": "stop"})
    await _write_answer(recorded, plan, {**answer, "since_2031": 1})
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["degraded"], finished["successful_responses"]) == ("COMPLETED", False, 3)
    assert await _ends(recorded, new_id) == 1
    assert await _buried(worker, new_id) == []


async def test_an_answer_that_cannot_be_read_ends_it_once(
    worker: Worker, simulator: Any, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor can what stands decide, since that is part of it: FAILED after a few tries, and a dead letter."""
    import deployments.worker.runs as runs

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    plan = await _left_to_m1(worker, simulator, make_council, new_id)
    await _write_answer(recorded, plan, {"status": "ok"})
    finished = await worker.finished(new_id)
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith(f"given up after {runs.MAX_FAILURES} failures: ")
    (letter,) = await _buried(worker, new_id)
    assert (letter.id, letter.reason[:500]) == (new_id, finished["error"][:500])  # a header holds less
    assert await _ends(recorded, new_id) == 1
    assert (await worker.record.read_status(new_id))["status"] == "FAILED"


async def _left_to_m1(worker: Worker, simulator: Any, make_council: Any, one: str) -> Any:
    """Ask a council of three whose first member hangs; the plan, once the others have answered."""
    from tasks.deliberations.plan import plan_of

    await simulator.fault("hang", match=f"{one}:task:propose-0:m1")
    assert await worker.ask(one, parameters={"task": TASK, "council": await make_council(3)})

    async def others_have() -> bool:
        answers = [await worker.record.last(f"answers.{one}.task.propose-0.{name}") for name in ("m2", "m3")]
        return None not in answers and len(await simulator.calls(one)) == 3

    await until(others_have)
    return await plan_of(worker.record, one)


def _answered(plan: Any, **fields: Any) -> dict[str, Any]:
    """The body of an answer of m1."""
    from tasks.stages.member_stage import final_answer

    fields = {"status": "ok", "engine": "simulator", "model": "m", **fields}
    return final_answer(plan, "task", "propose-0", plan.asked("m1", "propose-0"), **fields).model_dump(mode="json")


async def _write_answer(recorded: Any, plan: Any, body: dict[str, Any]) -> None:
    """Put it where m1's answer stands, as a client that knows nothing of us."""
    subject = f"answers.{plan.id}.task.propose-0.m1"
    await recorded.client.jetstream().publish(subject, json.dumps(body).encode())


async def _ends(recorded: Any, one: str) -> int:
    """How often a deliberation was said to have ended."""
    return sum(map(len, (await recorded.events(f"deliberations.{one}.finished")).values()))


def _prefect_answers(monkeypatch: pytest.MonkeyPatch, one: str, answered: int, times: int | None = None) -> list[int]:
    """Let Prefect answer a request's flow run with that status, so often or always; what it answered so far."""
    from deployments.worker.flow_runs import FlowRuns

    raised: list[int] = []
    of = FlowRuns.of

    async def answering(flow_runs: Any, request: Any, flow: Any) -> Any:
        if request.id != one or len(raised) == times:
            return await of(flow_runs, request, flow)
        raised.append(answered)
        asked = httpx.Request("POST", "http://prefect/api/flow_runs/")
        raise httpx.HTTPStatusError(f"{answered}", request=asked, response=httpx.Response(answered))

    monkeypatch.setattr(FlowRuns, "of", answering)
    return raised


async def test_what_a_newer_version_wrote_is_left_to_it(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as no try and fails nothing; what nobody takes for too long is kept. Unknown fields are no reason."""
    import deployments.worker.runs as runs

    monkeypatch.setattr(runs, "NEWER_AGAIN_S", 0.1)
    jetstream, council = recorded.client.jetstream(), await make_council(1)
    known = {**_body(f"{new_id}-known", parameters={"task": TASK, "council": council}), "since_2031": {"a": 1}}
    await jetstream.publish(f"requests.{new_id}-known", json.dumps(known).encode())
    assert (await worker.finished(f"{new_id}-known"))["status"] == "COMPLETED"
    asked = json.dumps(_body(new_id)).encode()
    await jetstream.publish(f"requests.{new_id}", asked, headers={"ce-schemaversion": "2"})

    async def waits() -> bool:
        return bool(worker.thread._service._runs.newer)

    await until(waits)
    await asyncio.sleep(1)
    assert await _buried(worker, f"{new_id}") == []
    monkeypatch.setattr(runs, "NEWER_S", 0.0)

    async def buried() -> Any:
        return await _buried(worker, new_id)

    (letter,) = await until(buried)
    assert letter.reason.startswith("no newer worker took it within")
    assert letter.headers["ce-schemaversion"] == "2"
    assert await recorded.events(f"deliberations.{new_id}.finished") == {}
    assert not worker.thread._service._runs.newer


async def test_a_body_that_is_lost_does_not_stop_its_lane(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message refers to the object store, where nothing is: it is kept dead, and others run meanwhile."""
    import deployments.worker.runs as runs

    monkeypatch.setattr(runs, "AGAIN_S", 0.05)
    reference = {"ce-dataref": "nats-object://conclave-bodies/nothing"}
    await recorded.client.jetstream().publish(f"requests.{new_id}-lost", b"{}", headers=reference)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"

    async def buried() -> Any:
        return await _buried(worker, f"{new_id}-lost")

    (letter,) = await until(buried)
    assert letter.headers["ce-dataref"] == "nats-object://conclave-bodies/nothing"
    assert await recorded.events(f"deliberations.{new_id}-lost.>") == {}


def _body(one: str, **fields: Any) -> dict[str, Any]:
    """Of a message in the queue, as it was before there were versions."""
    return {"id": one, "parameters": {"task": TASK}, "door": "planning", **fields}


async def _buried(worker: Worker, prefix: str) -> list[Any]:
    """The dead letters of subjects that begin so."""
    from blocks.record.dead_letters import dead_letters

    subject = f"requests.{prefix}"
    return [letter async for letter in dead_letters(worker.record) if letter.subject.startswith(subject)]


# --- the side of Prefect --------------------------------------------------------------------------


@pytest_asyncio.fixture
async def pool(connected: Any) -> str:
    """A work pool of the warm worker's type, of the test's own."""
    from deployments.provisioning.deploying import ensure_pool

    name = f"warm-{uuid.uuid4().hex[:8]}"
    await ensure_pool(name)
    return name


async def _deployed(pool: str, entrypoint: str, flow: Any) -> Any:
    """A deployment of the flow with that entrypoint."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return await client.create_deployment(
            flow_id=await client.create_flow(flow),
            name=f"d-{uuid.uuid4().hex[:8]}",
            work_pool_name=pool,
            entrypoint=entrypoint,
            enforce_parameter_schema=False,
        )


async def _polled_once(pool: str, deployment: Any, **parameters: Any) -> Any:
    """A run of the deployment, after a worker has asked the pool once."""
    from prefect.client.orchestration import get_client

    from deployments.worker import ConclaveWorker

    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        async with ConclaveWorker(work_pool_name=pool) as worker:
            await until(lambda: _ready(worker._flows))
            await worker.get_and_submit_flow_runs()

            async def ended() -> Any:
                found = await client.read_flow_run(run.id)
                return found if found.state.is_final() else None

            return await until(ended)


async def test_a_run_of_a_pool_is_handed_over_and_decided(
    connected: Any, pool: str, make_council: Any, recorded: Any
) -> None:
    """Under the flow run's own id, and without a process of its own."""
    from flows.deliberate import deliberate

    deployment = await _deployed(pool, "flows.deliberate.deliberate", deliberate)
    run = await _polled_once(pool, deployment, task=TASK, council=await make_council(1))
    finished = await recorded.events(f"deliberations.{run.id}.finished")
    assert (run.state.name, run.run_count, run.infrastructure_pid) == ("Completed", 1, None)
    assert [len(bodies) for bodies in finished.values()] == [1]


async def test_a_run_that_cannot_be_handed_over_ends_crashed(connected: Any, pool: str) -> None:
    """A path in place of a dotted name: Crashed with what would be right, and not Submitting for ever."""
    from flows.deliberate import deliberate

    deployment = await _deployed(pool, "flows/deliberate.py:deliberate", deliberate)
    run = await _polled_once(pool, deployment, task=TASK)
    assert run.state.is_crashed()
    assert "entrypoint: 'flows/deliberate.py:deliberate' is none that the warm worker runs" in run.state.message
    assert "flows.deliberate.deliberate" in run.state.message


KILLED = """
import asyncio, os, signal, sys
from deployments.worker import ConclaveWorker
from deployments.worker.flows_thread import FlowsThread

async def killed(_thread, _request):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with ConclaveWorker(work_pool_name=sys.argv[1]) as worker:
        while True:
            await worker.get_and_submit_flow_runs()
            await asyncio.sleep(0.2)

FlowsThread.enqueue = killed
asyncio.run(main())
"""
"""A worker that is killed between Prefect, which has called a run Pending, and the queue."""


async def _killed_on_its_way(pool: str, deployment: Any, **parameters: Any) -> Any:
    """A run whose worker was killed before the queue had it."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, pool)
        assert await asyncio.wait_for(process.wait(), 120) == -signal.SIGKILL
        assert (await client.read_flow_run(run.id)).state.is_pending()
        return run


async def _ended(run: Any) -> Any:
    from prefect.client.orchestration import get_client

    async with get_client() as client:

        async def final() -> Any:
            found = await client.read_flow_run(run.id)
            return found if found.state.is_final() else None

        return await until(final, 90)


async def test_what_a_killed_worker_left_before_the_queue_is_taken_up(
    worker: Worker, pool: str, make_council: Any, recorded: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another worker, of any pool of the type, a deliberation as well as an evaluation; each is run once."""
    monkeypatch.setenv("CONCLAVE_EVALUATIONS", str(tmp_path))
    from flows.deliberate import deliberate
    from flows.evaluate import evaluate

    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"id": "q", "task": "Name it", "check": {"type": "regex", "pattern": "."}}) + "\n")
    council = await make_council(2)
    asked = await _killed_on_its_way(
        pool, await _deployed(pool, "flows.deliberate.deliberate", deliberate), task=TASK, council=council
    )
    evaluated = await _killed_on_its_way(
        pool, await _deployed(pool, "flows.evaluate.evaluate", evaluate), questions=str(questions), council=council
    )
    for run in (asked, evaluated):
        assert (await _ended(run)).state.is_completed()
        finished = await recorded.events(f"deliberations.{run.id}.finished")
        assert [len(bodies) for bodies in finished.values()] == [1]


async def test_pending_runs_that_are_not_lost_are_left(
    worker: Worker, pool: str, make_council: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another installation in a pool of this type, one that waits for its process; a lost one is taken up."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.states import Pending

    import deployments.worker.pending as pending
    from blocks.record.installation import note_pool
    from flows.deliberate import deliberate
    from tasks.deliberations.submit import queued

    monkeypatch.setattr(pending, "EVERY_S", 0.5)
    await note_pool(worker.record, pool)
    stock = f"{pool}-process"
    parameters = {"task": TASK, "council": await make_council(1)}
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=stock, type="process"))

        async def left(where: str, *tags: str) -> Any:
            deployment = await _deployed(where, "flows.deliberate.deliberate", deliberate)
            return await client.create_flow_run_from_deployment(
                deployment, parameters=parameters, state=Pending(), tags=tags
            )

        theirs = await left(pool, "conclave:11111111-1111-4111-8111-111111111111")
        waiting = await left(stock, f"conclave:{worker.record.installation}")
        lost = await left(pool)
        assert (await _ended(lost)).state.is_completed()
        for run in (theirs, waiting):
            assert (await client.read_flow_run(run.id)).state.is_pending()
            assert not await queued(worker.record, str(run.id))


async def test_cancelling_a_second_run_ends_only_that(
    worker: Worker, make_council: Any, simulator: Any, new_id: str
) -> None:
    """The first one, whose deliberation it waits for, decides."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Pending

    await simulator.fault("slow", match=f"{new_id}:", delay_s=6)
    parameters = {"task": TASK, "council": await make_council(3)}
    assert await worker.ask(new_id, parameters=parameters)

    async def asked() -> bool:
        return bool(await simulator.calls(new_id))

    await until(asked)
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
        second = await client.create_flow_run_from_deployment(
            deployment.id, parameters={**parameters, "deliberation_id": new_id}, state=Pending()
        )
        await worker.ask(new_id, parameters=parameters, run=str(second.id), door="prefect")
        await client.set_flow_run_state(second.id, Cancelling(), force=True)
        assert (await _ended(second)).state.is_cancelled()
        finished = await worker.finished(new_id)
        assert (finished["status"], finished["successful_responses"]) == ("COMPLETED", 3)
        status = await worker.record.read_status(new_id)
        assert not status.get("cancel_requested")
        assert (await client.read_flow_run(status["run"])).state.is_completed()


@pytest.mark.parametrize("first_door", ["prefect", "gateway"])
async def test_deleting_a_second_run_ends_only_that(
    worker: Worker, make_council: Any, monkeypatch: pytest.MonkeyPatch, new_id: str, first_door: str
) -> None:
    """Whether the first had a flow run from the start or not: what was left of it is taken up and decides."""
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from tasks.deliberations.submit import Request, enqueue, queued

    async def nowhere(*_arguments: Any) -> None:
        """Nothing is published."""

    parameters = {"task": TASK, "council": await make_council(3)}
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")

        async def made() -> str:
            named = {**parameters, "deliberation_id": new_id}
            run = await client.create_flow_run_from_deployment(deployment.id, parameters=named, state=Pending())
            return str(run.id)

        async def left() -> bool:
            return not await queued(worker.record, new_id)

        first = await made() if first_door == "prefect" else None
        second = await made()
        await client.delete_flow_run(uuid.UUID(second))
        with monkeypatch.context() as patched:  # whoever asked first is gone between the key and the queue
            patched.setattr(worker.record, "publish", nowhere)
            assert await worker.ask(new_id, parameters=parameters, run=first, door=first_door)
        assert await worker.ask(new_id, parameters=parameters, run=second, door="prefect")
        await until(left)
        assert await worker.record.last(f"deliberations.{new_id}.finished") is None
        request = Request(id=new_id, parameters=parameters, run=first, door="housekeeping")
        assert await enqueue(worker.record, request, again=True)
        assert (await worker.finished(new_id))["status"] == "COMPLETED"


async def test_cancelling_an_evaluation_ends_its_deliberation(
    worker: Worker, make_council: Any, simulator: Any, new_id: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has an id of its own: the flag is set there, and nothing of it goes on."""
    monkeypatch.setenv("CONCLAVE_EVALUATIONS", str(tmp_path))
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Pending

    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"id": "q", "task": "Name it", "check": {"type": "regex", "pattern": "."}}) + "\n")
    await simulator.fault("hang", match=f"{new_id}:")
    parameters = {"questions": str(questions), "council": await make_council(2), "deliberation_id": new_id}
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("evaluate/evaluate")
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters, state=Pending())
        one = str(run.id)
        await worker.ask(one, flow="flows.evaluate.evaluate", parameters=parameters, run=one, door="prefect")

        async def asked() -> bool:
            return bool(await simulator.calls(new_id))

        await until(asked)
        await client.set_flow_run_state(run.id, Cancelling(), force=True)
        assert (await _ended(run)).state.is_cancelled()
    finished = await worker.record.last(f"deliberations.{new_id}.finished")
    assert finished.body["status"] == "CANCELLED"


async def test_a_run_of_somebody_elses_is_not_cancelled(worker: Worker, until: Any) -> None:
    """However many of them stand Cancelling: ours is seen all the same, and one that is odd stops nothing."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Pending

    from flows.diagnostics import diagnostics

    @flow(name="diagnostics")
    async def theirs() -> None:
        """Another installation's."""

    async with get_client() as client:
        foreign = [await client.create_flow_run(theirs, state=Cancelling()) for _ in range(3)]
        tags = [f"conclave:{worker.record.installation}"]
        ours = await client.create_flow_run(diagnostics, state=Pending(), tags=tags)
        await worker.record._status.put(str(ours.id), b'{"cancel_requested":true}')
        await client.set_flow_run_state(ours.id, Cancelling(), force=True)
        second = await client.create_flow_run(diagnostics, state=Pending(), tags=tags)
        one = str(second.id)
        queue = worker.record.jetstream
        body = {"id": one, "flow": "flows.diagnostics.diagnostics", "parameters": {}, "run": one, "door": "prefect"}
        await client.set_flow_run_state(second.id, Cancelling(), force=True)
        await queue.publish(f"requests.{one}.batch", json.dumps({**body, "lane": "batch"}).encode())
        assert (await _ended(second)).state.is_cancelled()
        for run in foreign:
            assert (await client.read_flow_run(run.id)).state.is_cancelling()
        await client.set_flow_run_state(ours.id, Pending(), force=True)
        await client.delete_flow_run(ours.id)
        await worker.record._status.purge(str(ours.id))


async def _purge(recorded: Any, one: str) -> None:
    await recorded.client.jetstream().purge_stream("CONCLAVE_REQUESTS", subject=f"requests.{one}")
