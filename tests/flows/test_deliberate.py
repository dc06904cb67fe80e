"""The flow on the real parts: what a council decides, and what the record and Prefect say of it."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"

ANSWER = {
    *("task_id", "item", "stage", "agent_id", "role", "status", "proposal", "error", "error_type", "duration_ms"),
    *("usage", "model", "engine", "diversity", "num_agents", "timestamp"),
}
PROPOSAL = {"content", "author_id", "author_role", "model", "tokens", "finish_reason", "revisions"}
DECISION = {
    *("id", "status", "degraded", "council", "engine", "total_agents", "received_count", "failed_count", "results"),
    *("members", "winner_id", "decision", "error_message", "duration_ms", "usage"),
}
FINISHED = {
    *("task_id", "status", "degraded", "counts", "winner_id", "total_agents", "successful_responses"),
    *("failed_responses", "failed_agents", "duration_ms", "usage", "completed_at", "engine"),
}
CLOUD_EVENT = {"ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-schemaversion", "ce-traceparent"}


async def test_a_council_decides_and_every_answer_stands_on_the_record(
    deliberate: Any, record: Any, simulator: Any, new_id: str
) -> None:
    """Three members answer, each call is made once, and the result says who and what."""
    state, result = await deliberate(task=TASK, council="dev", requirements=["Use type hints"])
    assert state.name == "Completed"
    assert (result["status"], result["degraded"], result["received_count"]) == ("COMPLETED", False, 3)
    assert result["engine"] == "simulator"
    assert {entry["rank"] for entry in result["results"]} == {1, 2, 3}
    assert result["decision"] == result["results"][0]["proposal"]["content"]
    assert result["winner_id"] == result["results"][0]["proposal"]["author_id"]
    assert set((await simulator.calls(new_id)).values()) == {1}
    for member in ("agent-dev-001", "agent-dev-002", "agent-dev-003"):
        answer = await record.last(f"answers.{new_id}.task.propose-0.{member}")
        assert answer.body["status"] == "ok"
        assert answer.body["usage"]["completion_tokens"] > 0


async def test_every_durable_event_of_the_contract_is_there_with_its_fields(
    deliberate: Any, simulator: Any, recorded: Any, record: Any, three: str, new_id: str
) -> None:
    """Plan, started, attempts, answers, decision and finished, each under its subject, each said to be simulated."""
    await simulator.fault("500", match=f"{new_id}:task:propose-0:m2", times=1)
    await deliberate(task=TASK, council=three, metadata={"ticket": 7})
    answers = await recorded.events(f"answers.{new_id}.>")
    attempts = await recorded.events(f"attempts.{new_id}.>")
    decisions = await recorded.events(f"decisions.{new_id}.>")
    phases = await recorded.events(f"deliberations.{new_id}.>")
    phases.pop(f"deliberations.{new_id}.progress", None)  # told only where the machine is slow enough

    assert set(answers) == {f"answers.{new_id}.task.propose-0.m{number}" for number in (1, 2, 3)}
    for answer in (bodies[0] for bodies in answers.values()):
        assert set(answer) >= ANSWER
        assert set(answer["proposal"]) >= PROPOSAL
        assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "cached_tokens"}
        assert datetime.fromisoformat(answer["timestamp"]).utcoffset() == timedelta(0)
        assert (answer["task_id"], answer["engine"], answer["num_agents"]) == (new_id, "simulator", 3)
    assert [answers[subject][0]["diversity"] for subject in sorted(answers)] == [False, True, True]
    attempt = attempts[f"attempts.{new_id}.task.propose-0.m2"][0]
    assert (attempt["attempt"], attempt["error_type"], attempt["engine"]) == (1, "ModelServerUnavailable", "simulator")
    decision = decisions[f"decisions.{new_id}.task"][0]
    assert set(decision) >= DECISION
    assert (decision["engine"], decision["status"]) == ("simulator", "COMPLETED")
    assert list(phases) == [f"deliberations.{new_id}.{phase}" for phase in ("plan", "started", "epoch", "finished")]
    plan, started, epoch, finished = (bodies[0] for bodies in phases.values())
    assert (plan["plan"]["metadata"], plan["request"]["task"]) == ({"ticket": 7}, TASK)
    assert (started["status"], started["engine"], started["total_agents"]) == ("IN_PROGRESS", "simulator", 3)
    assert set(epoch) == {"task_id", "epoch", "run", "holder"}
    assert set(finished) >= FINISHED
    assert (finished["engine"], finished["winner_id"]) == ("simulator", decision["winner_id"])
    assert (finished["successful_responses"], finished["failed_responses"], finished["failed_agents"]) == (3, 0, [])
    assert finished["usage"] == decision["usage"]


async def test_every_event_says_what_it_is_in_its_headers(
    deliberate: Any, recorded: Any, three: str, new_id: str
) -> None:
    """CloudEvents attributes, the answer's own id, and one trace for the whole deliberation."""
    await deliberate(task=TASK, council=three)
    messages = [
        message
        for pattern in ("answers", "decisions", "deliberations")
        for message in await recorded.messages(f"{pattern}.{new_id}.>")
        if not message.subject.endswith(".progress")  # told only where the machine is slow enough
    ]
    headers = {message.subject.partition(f"{new_id}.")[2]: message.headers for message in messages}
    assert len(headers) == 3 + 1 + 4
    assert all(set(header) >= CLOUD_EVENT for header in headers.values())
    assert headers["task.propose-0.m1"]["ce-id"] == f"{new_id}:task:propose-0:m1"
    assert headers["task.propose-0.m1"]["ce-type"] == "conclave.answer"
    assert len({header["ce-id"] for header in headers.values()}) == len(headers)
    assert len({header["ce-traceparent"].split("-")[1] for header in headers.values()}) == 1


async def test_the_status_of_a_deliberation_is_kept_by_key(
    deliberate: Any, record: Any, three: str, new_id: str
) -> None:
    """Request, digests, counts and outcome under its id, and the item's outcome under its own key."""
    state, result = await deliberate(task=TASK, council=three)
    status, item = await record.statuses.read(new_id), await record.statuses.read(f"{new_id}.task")
    assert (status["id"], status["status"], status["engine"]) == (new_id, "COMPLETED", "simulator")
    assert status["request"] == {"task": TASK, "council": three}
    assert len(status["request_digest"]) == len(status["council_digest"]) == 64
    assert status["counts"] == {"items": 1, "decided": 1, "COMPLETED": 1, "degraded": 0}
    assert status["winner_id"] == item["winner_id"] == result["winner_id"]
    assert str(state.state_details.flow_run_id) in status["flow_run_url"]
    assert (item["status"], item["degraded"]) == ("COMPLETED", False)


async def test_a_status_that_somebody_else_began_is_completed_and_kept(
    deliberate: Any, record: Any, three: str, new_id: str
) -> None:
    """What a gateway wrote before the flow stays, and what the flow knows is added."""
    await record.statuses.create(new_id, {"status": "PENDING", "lease": {"epoch": 1}})
    _, result = await deliberate(task=TASK, council=three)
    status = await record.statuses.read(new_id)
    assert (status["id"], status["status"], status["lease"]) == (new_id, "COMPLETED", {"epoch": 1})
    assert (result["id"], result["status"], result["council"]) == (new_id, "COMPLETED", three)


@pytest.mark.parametrize(
    ("ending", "heard_of_members"),
    [("completed", {"completed"}), ("failed", {"failed"}), ("timeout", {"completed", "failed"})],
)
async def test_whoever_listens_on_core_nats_hears_the_subjects_of_old(
    deliberate: Any, simulator: Any, recorded: Any, three: str, new_id: str, ending: str, heard_of_members: set[str]
) -> None:
    """`agent.response.*` for every member and `deliberation.*` at both ends, with the bodies of the record."""
    if ending == "failed":
        await simulator.fault("404_model", match=f"{new_id}:")
    elif ending == "timeout":
        await simulator.fault("hang", match=f"{new_id}:task:propose-0:m[23]")
    async with recorded.heard("agent.>", "deliberation.>") as heard:
        await deliberate(task=TASK, council=three, deadline_s=5 if ending == "timeout" else 60)
    answers = await recorded.answers(new_id)
    finished = await recorded.events(f"deliberations.{new_id}.finished")
    members = [(subject, body) for subject, body in heard if subject.startswith("agent.response.")]
    phases = [(subject, body) for subject, body in heard if subject.startswith("deliberation.")]
    assert {subject.rpartition(".")[2] for subject, _ in members} == heard_of_members
    assert {body["agent_id"]: body for _, body in members} == {body["agent_id"]: body for body in answers.values()}
    assert [subject for subject, _ in phases] == ["deliberation.started", f"deliberation.{ending}"]
    assert [phases[-1][1]] == finished[f"deliberations.{new_id}.finished"]


async def test_a_cancel_is_heard_on_core_nats(
    deliberate: Any, record: Any, simulator: Any, recorded: Any, three: str, until: Any, new_id: str
) -> None:
    """`deliberation.cancelled`, and nothing else after the start."""
    await simulator.fault("hang", match=f"{new_id}:")
    async with recorded.heard("deliberation.>") as heard:
        running = asyncio.create_task(deliberate(task=TASK, council=three, deadline_s=60))
        await until(lambda: record.last(f"deliberations.{new_id}.started"))
        await record.statuses.merge(new_id, {"cancel_requested": True})
        await running
    assert [subject for subject, _ in heard] == ["deliberation.started", "deliberation.cancelled"]


async def test_progress_is_told_while_members_wait(
    deliberate: Any,
    simulator: Any,
    recorded: Any,
    shown: Any,
    three: str,
    new_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An event with the counts, and a bar in Prefect that says that it is simulated and ends at 100."""
    monkeypatch.setattr("tasks.artifacts.progress.EVERY_S", 0.2)
    await simulator.fault("slow", match=f"{new_id}:task:propose-0:m3", delay_s=4)
    await deliberate(task=TASK, council=three)
    told = (await recorded.events(f"deliberations.{new_id}.progress"))[f"deliberations.{new_id}.progress"]
    bar = await shown.artifact("progress", new_id)
    assert {(event["status"], event["engine"]) for event in told} == {("IN_PROGRESS", "simulator")}
    steps = [tuple(event["counts"][name] for name in ("answers", "expected_answers", "decided")) for event in told]
    assert (2, 3, 0) in steps  # one more may come between the last answer and the end
    assert "(simulated)" in bar["description"]
    assert float(bar["data"]) == 100.0


async def test_prefect_shows_a_report_and_a_ranking_that_say_they_are_simulated(
    deliberate: Any, shown: Any, three: str, new_id: str
) -> None:
    """The decision comes first, every member is in the ranking, and nothing passes for a real decision."""
    state, result = await deliberate(task=TASK, council=three)
    report, ranking = await shown.artifact("report", new_id), await shown.artifact("ranking", new_id)
    rows = json.loads(ranking["data"])
    assert state.message == "simulated, 3 of 3"
    assert "## Decision (3 of 3)" in report["data"]
    assert " ".join(result["decision"].split()) in " ".join(report["data"].split())
    assert "**Simulated: these texts come from the simulator" in report["data"]
    assert all("simulated" in artifact["description"] for artifact in (report, ranking))
    assert [(row["rank"], row["status"]) for row in rows] == [(1, "ok"), (2, "ok"), (3, "ok")]
    assert rows[0]["member"] == result["winner_id"]
    assert await shown.agent_runs(state) == dict.fromkeys(("m1", "m2", "m3"), "Completed")
