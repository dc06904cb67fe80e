"""The warm worker: its flows' loop runs here in a thread, its Prefect side takes what a pool has."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import textwrap
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deployments.stack.probes import in_work
from tests.conftest import until
from tests.deployments.commands import OF_THE_STACK, conclave
from tests.deployments.warm_worker import TASK, Worker, body_of, buried_of, is_ready

API = Path(__file__).parents[2] / "docs" / "api.md"


async def test_a_request_becomes_one_flow_run_and_one_decision(
    worker: Worker, make_council: Any, simulator: Any, new_id: str
) -> None:
    """From the queue, under its id, shown under the deployment; asked again it is not run again, also once let go."""
    from prefect.client.orchestration import get_client

    parameters = {"task": TASK, "council": await make_council(3)}
    assert await worker.ask(new_id, parameters=parameters)
    finished = await worker.finished(new_id)
    status = await worker.record.statuses.read(new_id)
    async with get_client() as client:
        run = await client.read_flow_run(status["run"])
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
    assert (finished["status"], run.state.name) == ("COMPLETED", "Completed")
    assert (run.deployment_id, run.idempotency_key, run.run_count) == (deployment.id, new_id, 1)
    assert (status["door"], status["tries"]) == ("gateway", 1)
    assert not await worker.ask(new_id, parameters=parameters)
    event = await worker.record.next(f"$KV.conclave-deliberations.{new_id}", 0)
    await worker.record.statuses.purge(event)
    assert not await worker.ask(new_id, parameters=parameters)
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_what_a_council_cannot_be_asked_ends_with_the_field(worker: Worker, new_id: str) -> None:
    """An unknown council, which is known only when its turn comes: FAILED on the record and in Prefect."""
    from prefect.client.orchestration import get_client

    assert await worker.ask(new_id, parameters={"task": TASK, "council": "nowhere"})
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["error"].partition(":")[0]) == ("FAILED", "council")
    async with get_client() as client:
        run = await client.read_flow_run((await worker.record.statuses.read(new_id))["run"])
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
        await worker.record.statuses.merge(one, {"cancel_requested": True})
    for one in batch:
        finished = await worker.finished(one)
        assert (finished["status"], finished["engine"]) == ("CANCELLED", "simulator")
    assert not await simulator.calls(batch[2])


async def test_what_is_early_waits_and_what_has_expired_ends(
    worker: Worker, make_council: Any, simulator: Any, new_id: str
) -> None:
    """Neither counts as a try; of what has expired nobody is asked."""
    now, parameters = datetime.now(UTC), {"task": TASK, "council": await make_council(1)}
    late, early, begins = f"{new_id}-late", f"{new_id}-early", now + timedelta(seconds=2)
    assert await worker.ask(early, parameters=parameters, not_before=begins)
    assert await worker.ask(late, parameters=parameters, expires_at=now - timedelta(seconds=1))
    expired = await worker.finished(late)
    assert (expired["status"], expired["error"].partition(":")[0]) == ("CANCELLED", "expired")
    assert (await worker.finished(early))["status"] == "COMPLETED"
    assert (await worker.record.last(f"deliberations.{early}.started")).time >= begins
    assert not await simulator.calls(late)


async def test_the_command_line_is_a_client_of_the_gateway_here_and_elsewhere(
    worker: Worker, make_council: Any, stack: Any, tmp_path: Path, new_id: str
) -> None:
    """With the home's token, and with one that was made for somebody, who knows nothing but an address."""
    from tasks.operate.mirror import mirror_councils

    council = await make_council(3)
    await mirror_councils(worker.record)  # as the worker does every few seconds
    here = await conclave("deliberate", TASK, "--council", council, "--id", new_id)
    made = await conclave("tokens", "create", "somebody", "--council", council)
    mistyped = await conclave("tokens", "create", "somebody", "--council", f"{council}x")
    assert (mistyped.code, mistyped.out) == (2, "") and f"council: '{council}x' is unknown; known are " in mistyped.err
    elsewhere = {**dict.fromkeys(OF_THE_STACK, ""), "CONCLAVE_HOME": str(tmp_path), "CONCLAVE_URL": stack.gateway}
    elsewhere["CONCLAVE_TOKEN"] = made.out.strip()
    asked = await conclave("deliberate", TASK, "--council", council, "--id", f"{new_id}-b", "--json", **elsewhere)
    others, refused = await asyncio.gather(
        conclave("result", new_id, **elsewhere), conclave("deliberate", TASK, "--council", "dev", **elsewhere)
    )
    assert (here.code, asked.code) == (0, 0), here.err + asked.err
    assert f"Decision of council {council}: " in here.out
    assert "m1  DEV  ok" in here.err
    assert json.loads(asked.out)["status"] == "COMPLETED"
    assert (others.code, others.err) == (2, f"conclave: id: no deliberation '{new_id}' is on the record\n")
    assert (refused.code, "may not ask 'dev'" in refused.err) == (6, True)


async def test_the_examples_of_the_docs_run(worker: Worker, stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand there: the client that waits, its events, the one for an event loop, many at once, and gRPC's.

    The last one, a receiver of callbacks, is in `tests/deployments/gateway/test_callbacks.py`.
    """
    examples = re.findall(r"^```python\n(.*?)^```", API.read_text(), re.DOTALL | re.MULTILINE)
    first, events, on_a_loop, many, over_grpc, _ = examples
    given = {"url": stack.gateway, "token": os.environ["CONCLAVE_TOKEN"], "tasks": [f"{TASK} once", f"{TASK} twice"]}
    await asyncio.to_thread(exec, f"{first}\n{events}", given)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Simulated proposal")
    assert [line.split()[1] for line in shown if line.startswith("agent-dev-")] == ["ok"] * 6
    await asyncio.to_thread(exec, many, given)
    assert given["stopped"].count == 0
    work = "async def work():\n" + textwrap.indent(f"{on_a_loop}\nreturn results", "    ")
    exec(work, given)
    assert [result.status for result in await given["work"]()] == ["COMPLETED", "COMPLETED"]
    capsys.readouterr()
    await asyncio.to_thread(exec, over_grpc, {})
    assert capsys.readouterr().out.startswith("agent-dev-")


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
    run = (await worker.record.statuses.read(new_id))["run"]
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
        f"{new_id}-b": json.dumps(body_of(f"{new_id}-b", flow="os.system")).encode(),
        f"{new_id}-c": b"[1,2]",
        f"{new_id}-d": json.dumps(body_of(f"{new_id}-d", run="garbage")).encode(),
        f"{new_id}-e": json.dumps(body_of("somebody-else")).encode(),
        f"{new_id};bad!id": b"{}",
        f"{new_id}-f": b"[" * 5_000,
    }
    for one, data in odd.items():
        await recorded.client.jetstream().publish(f"requests.{one}", data)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"

    async def buried() -> Any:
        found = await buried_of(worker, new_id)
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
    other = body_of(new_id, parameters={"task": "Something else", "council": council})
    for data in (b"[1,2]", json.dumps(other).encode()):
        await recorded.client.jetstream().publish(f"requests.{new_id}", data)
    finished = await worker.finished(new_id)
    assert (finished["status"], finished["engine"]) == ("COMPLETED", "simulator")

    async def buried() -> Any:
        found = await buried_of(worker, new_id)
        return found if len(found) == 2 else None

    reasons = [letter.reason for letter in await until(buried)]
    assert any("was already asked with another request" in reason for reason in reasons)
    ends = await recorded.events(f"deliberations.{new_id}.finished")
    assert [len(bodies) for bodies in ends.values()] == [1]
    assert (await worker.record.statuses.read(new_id))["status"] == "COMPLETED"


async def test_another_request_does_not_end_one_that_was_left(
    looks_often: None, worker: Worker, recorded: Any, make_council: Any, new_id: str
) -> None:
    """A plan whose driver was killed: a stranger's run under its id is refused, and the resume decides."""
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from tasks.council.exceptions import InvalidRequest
    from tasks.council.models import Deliberation, DeliberationRequest
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
        message = body_of(new_id, parameters=strange, run=str(run.id), door="prefect")
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
            body = json.dumps(body_of(one, parameters=ours, run=run, door="prefect")).encode()
            await recorded.client.jetstream().publish(f"requests.{one}", body)

        async def buried() -> bool:
            found = [letter.subject for each, _ in messages for letter in await buried_of(worker, each)]
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
    message = body_of(new_id, parameters={"task": TASK, "council": await make_council(1)})
    await recorded.client.jetstream().publish(f"requests.{new_id}", json.dumps(message).encode())
    assert (await worker.finished(new_id))["status"] == "COMPLETED"


# --- the side of Prefect --------------------------------------------------------------------------


@pytest.fixture
def looks_often(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts after this looks for lost runs often."""
    from deployments.worker import pending

    monkeypatch.setattr(pending, "EVERY_S", 2.0)


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
            await until(lambda: is_ready(worker._flows))
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
    looks_often: None,
    worker: Worker,
    pool: str,
    make_council: Any,
    recorded: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
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
    looks_often: None, worker: Worker, pool: str, make_council: Any
) -> None:
    """One of another installation in a pool of this type, one that waits for its process; a lost one is taken up."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.states import Pending

    from blocks.record.installation import note_pool
    from flows.deliberate import deliberate
    from tasks.deliberations.submit import queued

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
        status = await worker.record.statuses.read(new_id)
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
        assert (await enqueue(worker.record, request, again=True)).queued
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

        async def cancelled() -> bool:  # Prefect's engine calls it a crash first, and the worker puts that right
            state = (await client.read_flow_run(run.id)).state
            return state is not None and state.is_cancelled()

        await until(cancelled, 90)
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
        await worker.record.statuses._keys.put(str(ours.id), b'{"cancel_requested":true}')
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
        await worker.record.statuses._keys.purge(str(ours.id))


async def _purge(recorded: Any, one: str) -> None:
    await recorded.client.jetstream().purge_stream("CONCLAVE_REQUESTS", subject=f"requests.{one}")
