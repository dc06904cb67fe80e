"""One member in trouble, and too many: what becomes of the member, of the decision, and of the calls that wait."""

from __future__ import annotations

import os
from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"


def member(result: dict[str, Any], agent_id: str) -> dict[str, Any]:
    """What the result says of a member."""
    found: dict[str, Any] = next(one for one in result["members"] if one["agent_id"] == agent_id)
    return found


async def test_an_attempt_that_fails_is_made_again(
    deliberate: Any, simulator: Any, recorded: Any, make_council: Any, new_id: str
) -> None:
    """Two refusals, then an answer: the member is whole, and both failed attempts stand beside it."""
    await simulator.fault("500", match=f"{new_id}:task:propose-0:m2", times=2)
    state, result = await deliberate(task=TASK, council=await make_council(3))
    attempts = await recorded.events(f"attempts.{new_id}.>")
    assert (state.name, result["status"], result["degraded"]) == ("Completed", "COMPLETED", False)
    assert list(attempts) == [f"attempts.{new_id}.task.propose-0.m2"]
    assert [note["attempt"] for note in attempts[f"attempts.{new_id}.task.propose-0.m2"]] == [1, 2]
    assert (await simulator.calls(new_id))[f"{new_id}:task:propose-0:m2"] == 3


@pytest.mark.parametrize(
    ("kind", "status", "reason", "attempts"),
    [
        ("500", "failed", "HTTP 500: EngineCore encountered an issue", 2),
        ("503", "failed", "HTTP 503: The engine is currently busy", 2),
        ("404_model", "failed", "HTTP 404: The model `simulated` does not exist", 1),
        ("too_long", "failed", "HTTP 400: This model's maximum context length is 32768 tokens", 1),
        ("garbage", "failed", "the answer is no completion", 2),
        ("close", "failed", "Server disconnected", 2),
        ("close_midway", "failed", "payload is not completed", 2),
        ("abort", "failed", "the server broke off: finish_reason abort", 2),
        ("empty", "empty", "The model returned no text.", 0),
        ("cut_off", "truncated", "The answer was cut off at the token limit.", 0),
        ("hang", "timeout", "no answer within the deadline of 6 s", 0),
    ],
)
async def test_a_member_in_trouble_degrades_the_decision_and_says_why(
    deliberate: Any,
    simulator: Any,
    recorded: Any,
    shown: Any,
    three: str,
    new_id: str,
    kind: str,
    status: str,
    reason: str,
    attempts: int,
) -> None:
    """The same status and reason in the result and on the record, and `2 of 3: degraded` in every heading."""
    await simulator.fault(kind, match=f"{new_id}:task:propose-0:m3")
    state, result = await deliberate(task=TASK, council=three, deadline_s=6)
    answer = (await recorded.answers(new_id))["task.m3"]
    tried = await recorded.events(f"attempts.{new_id}.>")
    report = await shown.report(new_id)
    assert (state.name, state.is_completed(), state.message) == ("Degraded", True, "simulated, 2 of 3: degraded")
    assert (result["status"], result["degraded"]) == ("COMPLETED", True)
    assert (result["received_count"], result["failed_count"]) == (2, 1)
    assert (member(result, "m3")["status"], answer["status"]) == (status, status)
    assert reason in member(result, "m3")["reason"]
    assert (answer["error"], answer["engine"]) == (member(result, "m3")["reason"], "simulator")
    assert len(tried.get(f"attempts.{new_id}.task.propose-0.m3", ())) == attempts
    assert "## Decision (2 of 3: degraded)" in report
    assert "### Members (2 of 3: degraded)" in report
    assert f"| m3 | DEV | {status} |" in report


async def test_a_truncated_proposal_is_shown_behind_the_whole_ones(
    deliberate: Any, simulator: Any, three: str, new_id: str
) -> None:
    """What was received is kept, and never wins, not even where it comes first."""
    await simulator.fault("cut_off", match=f"{new_id}:task:propose-0:m1")
    _, result = await deliberate(task=TASK, council=three)
    ranked = [entry["proposal"]["author_id"] for entry in result["results"]]
    assert (len(ranked), ranked[-1]) == (3, "m1")
    assert result["results"][-1]["proposal"]["finish_reason"] == "length"
    assert result["winner_id"] == ranked[0]


async def test_thinking_is_kept_apart_from_the_proposal(
    deliberate: Any, simulator: Any, shown: Any, three: str, new_id: str
) -> None:
    """A thought before the answer is on the record, and neither in the content nor in the report."""
    await simulator.fault("think", match=f"{new_id}:")
    state, result = await deliberate(task=TASK, council=three)
    proposals = [entry["proposal"] for entry in result["results"]]
    assert (state.name, len(proposals)) == ("Completed", 3)
    for proposal in proposals:
        assert proposal["reasoning"] == "The task is read twice, then the simplest plan is taken."
        assert proposal["content"].startswith("Simulated proposal")
    assert "read twice" not in await shown.report(new_id)


async def test_a_council_that_fails_says_why_each_member_failed(
    deliberate: Any, simulator: Any, recorded: Any, shown: Any, make_council: Any, quick: str, new_id: str
) -> None:
    """FAILED with three reasons, no winner and no decision, in Prefect too."""
    await simulator.fault("500", match=f"{new_id}:task:propose-0:m1")
    await simulator.fault("404_model", match=f"{new_id}:task:propose-0:m2")
    await simulator.fault("empty", match=f"{new_id}:task:propose-0:m3")
    state, result = await deliberate(task=TASK, council=await make_council(3, server=quick, quorum=1))
    finished = (await recorded.events(f"deliberations.{new_id}.finished"))[f"deliberations.{new_id}.finished"]
    report = await shown.report(new_id)
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert (result["status"], result["winner_id"], result["decision"]) == ("FAILED", None, None)
    assert (result["engine"], finished[0]["failed_agents"]) == ("simulator", ["m1", "m2", "m3"])
    assert "## No decision: failed (0 of 3: degraded)" in report
    assert "**Simulated" in report
    for reason in ("HTTP 500", "HTTP 404", "returned no text"):
        assert reason in result["error_message"]
        assert reason in str(state.message)


async def test_a_quorum_that_cannot_be_reached_fails_at_once_and_closes_the_call_that_waits(
    deliberate: Any, simulator: Any, shown: Any, until: Any, three: str, new_id: str
) -> None:
    """Nobody waits for the third member, its request is closed, and its task run has ended."""
    await simulator.fault("404_model", match=f"{new_id}:task:propose-0:m[12]", delay_s=4)
    await simulator.fault("hang", match=f"{new_id}:task:propose-0:m3")
    state, result = await deliberate(task=TASK, council=three, deadline_s=120)

    async def aborted() -> list[str]:
        return [line["request_id"] for line in await simulator.requests(new_id) if line["aborted"]]

    assert (state.name, result["status"]) == ("Failed", "FAILED")
    assert member(result, "m3")["status"] == "cancelled"
    assert member(result, "m3")["reason"] == "the quorum could no longer be reached"
    assert result["duration_ms"] < 60_000
    assert await until(aborted) == [f"{new_id}:task:propose-0:m3"]
    assert (await shown.agent_runs(state)).keys() == {"m1", "m2", "m3"}


async def test_below_the_quorum_at_the_deadline_nothing_that_came_is_lost(
    deliberate: Any, simulator: Any, until: Any, shown: Any, three: str, new_id: str
) -> None:
    """TIMEOUT carries the proposal that was received, and the calls of the others are closed."""
    await simulator.fault("hang", match=f"{new_id}:task:propose-0:m[23]")
    state, result = await deliberate(task=TASK, council=three, deadline_s=5)

    async def aborted() -> bool:
        return sum(line["aborted"] for line in await simulator.requests(new_id)) == 2

    assert (state.name, state.is_failed()) == ("Timeout", True)
    assert (result["status"], result["winner_id"]) == ("TIMEOUT", None)
    assert [entry["proposal"]["author_id"] for entry in result["results"]] == ["m1"]
    assert result["error_message"] == "1 of 3 members answered within 5 s; the quorum is 2"
    assert [one["status"] for one in result["members"]] == ["ok", "timeout", "timeout"]
    assert "No decision: out of time (1 of 3: degraded)" in await shown.report(new_id)
    assert await until(aborted)


async def test_a_short_grace_ends_the_wait_for_the_last_member(
    deliberate: Any, simulator: Any, until: Any, shown: Any, three: str, new_id: str
) -> None:
    """The quorum is in and the grace is over: decided without the third, whose task run ends with its call."""
    await simulator.fault("slow", match=f"{new_id}:task:propose-0:m3", delay_s=90)
    state, result = await deliberate(task=TASK, council=three, grace_s=0.3, deadline_s=120)

    async def aborted() -> bool:  # or never made, where m3 was slower to begin than the others to answer
        calls = [line for line in await simulator.requests(new_id) if line["request_id"].endswith(":m3")]
        return all(line["aborted"] for line in calls)

    assert (state.name, result["status"]) == ("Degraded", "COMPLETED")
    assert member(result, "m3")["status"] == "timeout"
    assert member(result, "m3")["reason"] == "no answer within 0.3 s after the quorum"
    assert result["duration_ms"] < 60_000
    assert (await shown.agent_runs(state)).keys() == {"m1", "m2", "m3"}
    assert await until(aborted)


async def test_an_agent_task_that_dies_gets_its_final_answer_from_the_flow(
    deliberate: Any, simulator: Any, recorded: Any, stack: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server's block is gone when the task begins: `failed`, with the reason, and the council decides."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM
    from flows import deliberate as module
    from tasks.deliberations.plan import convened

    server, council = f"s-{new_id}", f"c-{new_id}"
    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model).save(server)
    members = [{"agent_id": f"m{i}", "role": "DEV", "server": server if i == 3 else "default"} for i in (1, 2, 3)]
    await Council(members=members).save(council)

    async def convene_and_lose_a_server(*arguments: Any) -> Any:
        session = await convened(*arguments)
        await VLLM.adelete(server)
        return session

    monkeypatch.setattr(module, "convened", convene_and_lose_a_server)
    state, result = await deliberate(task=TASK, council=council, deadline_s=120)
    answer = (await recorded.answers(new_id))["task.m3"]
    assert (state.name, result["status"]) == ("Degraded", "COMPLETED")
    assert (answer["status"], answer["error_type"], answer["engine"]) == ("failed", "AgentDied", "simulator")
    assert f"no block vllm/{server}" in answer["error"]
    assert member(result, "m3")["reason"] == answer["error"]


async def test_a_cancel_reaches_every_member_and_prefect(
    deliberate: Any, record: Any, simulator: Any, recorded: Any, until: Any, shown: Any, three: str, new_id: str
) -> None:
    """The flag is set while members wait: CANCELLED, their calls are closed, and no task run stays Running."""
    import asyncio

    await simulator.fault("hang", match=f"{new_id}:task:propose-0:m[23]")
    running = asyncio.create_task(deliberate(task=TASK, council=three, deadline_s=120))
    await until(lambda: record.last(f"answers.{new_id}.task.propose-0.m1"))
    await record.statuses.merge(new_id, {"cancel_requested": True})
    state, result = await running

    async def aborted() -> bool:
        return sum(line["aborted"] for line in await simulator.requests(new_id)) == 2

    answers = await recorded.answers(new_id)
    assert (state.name, state.is_cancelled()) == ("Cancelled", True)
    assert (result["status"], result["winner_id"]) == ("CANCELLED", None)
    assert [entry["proposal"]["author_id"] for entry in result["results"]] == ["m1"]
    assert {name: answer["status"] for name, answer in answers.items()} == {
        "task.m1": "ok",
        "task.m2": "cancelled",
        "task.m3": "cancelled",
    }
    assert member(result, "m2")["reason"] == "the deliberation was cancelled"
    assert (await record.statuses.read(new_id))["status"] == "CANCELLED"
    assert await until(aborted)
    assert (await shown.agent_runs(state)).keys() == {"m1", "m2", "m3"}
