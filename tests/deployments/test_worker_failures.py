"""What becomes of a message that a warm worker could not deal with: tried again, left to a newer one, or ended."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.conftest import until
from tests.deployments.warm_worker import TASK, Worker, body_of, buried_of


async def test_a_failure_that_is_not_the_requests_is_tried_again(
    worker: Worker, make_council: Any, simulator: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that raises is run again, while another one goes on; after too many tries it is ended, and said to be."""
    import deployments.worker.failures as failures
    import deployments.worker.runs as runs
    from blocks.exceptions import RecordError

    monkeypatch.setattr(failures, "AGAIN_S", 0.1)
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
    assert (await worker.record.statuses.read(new_id))["tries"] == runs.MAX_TRIES


async def test_what_fails_again_and_again_ends_once_and_is_kept(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises, and however often: FAILED with the reason, a dead letter, and a replay under a new id."""
    import deployments.worker.failures as failures
    import deployments.worker.runs as runs
    from tasks.deliberations.dead_letters import replay

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
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
    assert finished["error"].startswith(f"given up after {failures.MAX_FAILURES} failures: KeyError")
    assert len(raised) == failures.MAX_FAILURES
    (letter,) = await buried_of(worker, new_id)
    assert (letter.id, letter.reason) == (new_id, finished["error"])
    again = await replay(worker.record, letter.sequence)
    assert again != new_id
    assert (await worker.finished(again))["status"] == "COMPLETED"
    assert (await worker.finished(new_id))["status"] == "FAILED"


async def test_a_part_that_is_away_does_not_count_against_a_request(
    worker: Worker, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked for in vain: the request waits, and is decided once the part is back."""
    import deployments.worker.failures as failures
    import deployments.worker.runs as runs
    from blocks.exceptions import PrefectUnavailable, RecordUnavailable

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
    status_of, raised = runs.status_of, []
    away = [PrefectUnavailable("away"), RecordUnavailable("away")]

    async def absent(record: Any, one: str) -> Any:
        if one == new_id and len(raised) < 2 * failures.MAX_FAILURES:
            raised.append(one)
            raise away[len(raised) % 2]
        return await status_of(record, one)

    monkeypatch.setattr(runs, "status_of", absent)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    assert len(raised) == 2 * failures.MAX_FAILURES
    assert await buried_of(worker, new_id) == []


@pytest.mark.parametrize("answered", [404, 500])
async def test_what_prefect_answers_again_and_again_ends_once_and_is_kept(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """An answer that may come from the request: FAILED with it and a dead letter; a 500 has patience first."""
    import deployments.worker.failures as failures

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
    if answered == 500:
        monkeypatch.setattr(failures, "SERVER_ERRORS_S", 0.0)
    raised = _prefect_answers(monkeypatch, new_id, answered)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    finished = await worker.finished(new_id)
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith(f"given up after {failures.MAX_FAILURES} failures: HTTPStatusError: {answered}")
    assert len(raised) == failures.MAX_FAILURES
    (letter,) = await buried_of(worker, new_id)
    assert letter.reason == finished["error"]
    assert await _ends(recorded, new_id) == 1


async def test_a_prefect_that_is_overloaded_does_not_count_against_a_request(
    worker: Worker, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it answers 503, and without patience for what may come from the request."""
    import deployments.worker.failures as failures

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
    monkeypatch.setattr(failures, "SERVER_ERRORS_S", 0.0)
    raised = _prefect_answers(monkeypatch, new_id, 503, times=2 * failures.MAX_FAILURES)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    assert len(raised) == 2 * failures.MAX_FAILURES
    assert await buried_of(worker, new_id) == []


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
    assert await buried_of(worker, new_id) == []


async def test_an_answer_that_cannot_be_read_ends_it_once(
    worker: Worker, simulator: Any, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor can what stands decide, since that is part of it: FAILED after a few tries, and a dead letter."""
    import deployments.worker.failures as failures

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
    plan = await _left_to_m1(worker, simulator, make_council, new_id)
    await _write_answer(recorded, plan, {"status": "ok"})
    finished = await worker.finished(new_id)
    assert finished["status"] == "FAILED"
    assert finished["error"].startswith(f"given up after {failures.MAX_FAILURES} failures: ")
    (letter,) = await buried_of(worker, new_id)
    assert (letter.id, letter.reason[:500]) == (new_id, finished["error"][:500])  # a header holds less
    assert await _ends(recorded, new_id) == 1
    assert (await worker.record.statuses.read(new_id))["status"] == "FAILED"


async def _left_to_m1(worker: Worker, simulator: Any, make_council: Any, one: str) -> Any:
    """Ask a council of three whose first member hangs; the plan, once the others have answered."""
    from tasks.deliberations.read import plan_of

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
    import deployments.worker.failures as failures

    monkeypatch.setattr(failures, "NEWER_AGAIN_S", 0.1)
    jetstream, council = recorded.client.jetstream(), await make_council(1)
    known = {**body_of(f"{new_id}-known", parameters={"task": TASK, "council": council}), "since_2031": {"a": 1}}
    await jetstream.publish(f"requests.{new_id}-known", json.dumps(known).encode())
    assert (await worker.finished(f"{new_id}-known"))["status"] == "COMPLETED"
    asked = json.dumps(body_of(new_id)).encode()
    await jetstream.publish(f"requests.{new_id}", asked, headers={"ce-schemaversion": "99"})

    async def waits() -> bool:
        return bool(worker.thread._service._runs.failures.newer)

    await until(waits)
    await asyncio.sleep(1)
    assert await buried_of(worker, f"{new_id}") == []
    monkeypatch.setattr(failures, "NEWER_S", 0.0)

    async def buried() -> Any:
        return await buried_of(worker, new_id)

    (letter,) = await until(buried)
    assert letter.reason.startswith("no newer worker took it within")
    assert letter.headers["ce-schemaversion"] == "99"
    assert await recorded.events(f"deliberations.{new_id}.finished") == {}
    assert not worker.thread._service._runs.failures.newer


async def test_a_body_that_is_lost_does_not_stop_its_lane(
    worker: Worker, recorded: Any, make_council: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message refers to the object store, where nothing is: it is kept dead, and others run meanwhile."""
    import deployments.worker.failures as failures

    monkeypatch.setattr(failures, "AGAIN_S", 0.05)
    reference = {"ce-dataref": "nats-object://conclave-bodies/nothing"}
    await recorded.client.jetstream().publish(f"requests.{new_id}-lost", b"{}", headers=reference)
    assert await worker.ask(new_id, parameters={"task": TASK, "council": await make_council(1)})
    assert (await worker.finished(new_id))["status"] == "COMPLETED"

    async def buried() -> Any:
        return await buried_of(worker, f"{new_id}-lost")

    (letter,) = await until(buried)
    assert letter.headers["ce-dataref"] == "nats-object://conclave-bodies/nothing"
    assert await recorded.events(f"deliberations.{new_id}-lost.>") == {}
