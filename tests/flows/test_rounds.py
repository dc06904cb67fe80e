"""Rounds of revision and the chairman's synthesis: each a stage of its own, with the record's promises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"


async def texts(recorded: Any, new_id: str, stage: str) -> dict[str, dict[str, Any]]:
    """The final answers of a stage, by member."""
    found = await recorded.events(f"answers.{new_id}.task.{stage}.>")
    return {subject.rpartition(".")[2]: bodies[0] for subject, bodies in found.items()}


def stages_of(result: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """By stage who was called and how many answers can be used."""
    return {stage["stage"]: (stage["called"], stage["ok"]) for stage in result["stages"]}


async def test_authors_revise_and_the_chairman_writes_the_decision(
    deliberate: Any, recorded: Any, simulator: Any, three: str, new_id: str
) -> None:
    """Every call once; earlier texts are kept; the decision is the chairman's; costs are told by stage."""
    state, result = await deliberate(task=TASK, council=three, strategy="synthesize", rounds=1)
    calls = await simulator.calls(new_id)
    first, revised = [await texts(recorded, new_id, stage) for stage in ("propose-0", "revise-1")]
    synthesis = (await texts(recorded, new_id, "synthesize"))["m1"]["proposal"]
    assert (state.name, result["status"], result["degraded"]) == ("Completed", "COMPLETED", False)
    assert set(calls.values()) == {1}
    assert {call.split(":")[2] for call in calls} == {"propose-0", "review-0", "revise-1", "review-1", "synthesize"}
    for member, answer in revised.items():
        assert answer["proposal"]["revisions"] == [first[member]["proposal"]["content"]]
        assert answer["proposal"]["author_id"] == member
    assert {entry["proposal"]["content"] for entry in result["results"]} == {
        answer["proposal"]["content"] for answer in revised.values()
    }
    assert (result["decision"], result["decided_by"]) == (synthesis["content"], "synthesis")
    assert result["synthesis"]["chairman_id"] == "m1"
    assert result["synthesis"]["sources"][0] == result["winner_id"]
    assert stages_of(result)["revise-1"] == (3, 3)
    assert sum(stage["usage"]["prompt_tokens"] for stage in result["stages"]) == result["usage"]["prompt_tokens"]


async def test_the_strategy_propose_revises_too(
    deliberate: Any, simulator: Any, make_council: Any, quick: str, new_id: str
) -> None:
    """A review for its critiques, and no ballots at the end: the checks decide among the revised texts."""
    council = await make_council(2, server=quick, rounds=1)
    _, result = await deliberate(task=TASK, council=council)
    assert (result["decided_by"], result["ballots"]) == ("checks", None)
    assert stages_of(result) == {"propose-0": (2, 2), "review-0": (2, 2), "revise-1": (2, 2)}
    assert len(await simulator.calls(new_id)) == 6


async def test_where_the_chairman_fails_the_best_proposal_stands(
    deliberate: Any, simulator: Any, shown: Any, three: str, new_id: str
) -> None:
    """Degraded, with the reason."""
    await simulator.fault("404_model", match=f"{new_id}:task:synthesize:")
    state, result = await deliberate(task=TASK, council=three, strategy="synthesize")
    assert (state.name, result["status"], result["decided_by"]) == ("Degraded", "COMPLETED", "ballots")
    assert "no synthesis" in state.message
    assert result["decision"] == result["results"][0]["proposal"]["content"]
    assert (result["synthesis"]["status"], result["synthesis"]["content"]) == ("failed", None)
    assert "does not exist" in result["synthesis"]["reason"]


async def test_a_chairman_of_its_own_is_no_member(
    deliberate: Any, recorded: Any, simulator: Any, make_council: Any, quick: str, new_id: str
) -> None:
    """It neither proposes nor votes, and may ask another server."""
    chairman = {"agent_id": "chair", "role": "ARCHITECT", "server": quick}
    council = await make_council(3, strategy="synthesize", chairman=chairman)
    _, result = await deliberate(task=TASK, council=council)
    calls = await simulator.calls(new_id)
    assert [call for call in calls if call.endswith(":chair")] == [f"{new_id}:task:synthesize:chair"]
    assert (result["total_agents"], result["synthesis"]["chairman_id"]) == (3, "chair")
    assert result["decision"].startswith("Simulated proposal (ARCHITECT)")


async def test_an_author_whose_revision_fails_keeps_its_text(
    deliberate: Any, recorded: Any, simulator: Any, three: str, new_id: str
) -> None:
    """The others go on with theirs; the result says what is missing."""
    await simulator.fault("cut_off", match=f"{new_id}:task:revise-1:m2")
    state, result = await deliberate(task=TASK, council=three, strategy="rank", rounds=1)
    first = await texts(recorded, new_id, "propose-0")
    standing = {entry["proposal"]["author_id"]: entry["proposal"] for entry in result["results"]}
    assert (state.name, result["degraded"]) == ("Degraded", True)
    assert "2 of 3 revisions" in state.message
    assert standing["m2"]["content"] == first["m2"]["proposal"]["content"]
    assert standing["m2"]["revisions"] == []
    assert len(standing["m1"]["revisions"]) == 1
    member = next(member for member in result["members"] if member["agent_id"] == "m2")
    assert member["stages"]["revise-1"]["status"] == "truncated"


async def test_the_grace_ends_a_stage_that_somebody_holds_up(
    deliberate: Any, simulator: Any, three: str, new_id: str
) -> None:
    """Two of three have revised: the third is given its grace and then left, and its call is closed."""
    await simulator.fault("hang", match=f"{new_id}:task:revise-1:m3")
    fields = {"council": three, "strategy": "propose", "rounds": 1, "grace_s": 3, "deadline_s": 120}
    _, result = await deliberate(task=TASK, **fields)
    m3 = next(member for member in result["members"] if member["agent_id"] == "m3")
    assert (m3["status"], m3["stages"]["revise-1"]["status"]) == ("ok", "timeout")
    assert "after the quorum" in m3["stages"]["revise-1"]["reason"]
    async with asyncio.timeout(30):
        while not all(call["aborted"] for call in await simulator.requests(new_id) if "revise-1:m3" in str(call)):
            await asyncio.sleep(0.1)


async def test_a_run_that_is_killed_in_a_later_stage_repeats_no_finished_call(
    flow_process: Any,
    kill: Any,
    deliberate: Any,
    simulator: Any,
    until: Any,
    quick: str,
    make_council: Any,
    new_id: str,
) -> None:
    """The process dies while one member is at work; the same id finishes."""
    stage = "revise-1"
    await simulator.fault("hang", match=f"{new_id}:task:{stage}:m1", times=1)
    council = await make_council(3, server=quick, strategy="synthesize", rounds=1)
    process = await flow_process(task=TASK, council=council, deliberation_id=new_id)

    async def reached() -> bool:
        return f"{new_id}:task:{stage}:m1" in await simulator.calls(new_id)

    await until(reached)
    await kill(process, new_id)
    _, result = await deliberate(task=TASK, council=council)
    calls = await simulator.calls(new_id)
    assert (result["status"], result["degraded"], result["decided_by"]) == ("COMPLETED", False, "synthesis")
    assert calls.pop(f"{new_id}:task:{stage}:m1") in (1, 2)
    assert {call: count for call, count in calls.items() if count > 1 and stage not in call} == {}


async def test_a_cancel_reaches_the_synthesis(
    deliberate: Any, record: Any, simulator: Any, until: Any, three: str, new_id: str
) -> None:
    """What was proposed stays, nothing is decided."""
    await simulator.fault("hang", match=f"{new_id}:task:synthesize:")
    running = asyncio.create_task(deliberate(task=TASK, council=three, strategy="synthesize", deadline_s=120))

    async def asked() -> bool:
        return f"{new_id}:task:synthesize:m1" in await simulator.calls(new_id)

    await until(asked)
    await record.merge_status(new_id, {"cancel_requested": True})
    state, result = await running
    assert (state.name, result["status"], result["decision"]) == ("Cancelled", "CANCELLED", None)
    assert (len(result["results"]), result["synthesis"]["status"]) == (3, "cancelled")


async def test_tasks_of_a_run_that_is_gone_leave(
    record: Any, monkeypatch: pytest.MonkeyPatch, make_council: Any, new_id: str
) -> None:
    """Nobody holds the lease: who waits for a stage gives up, and is not called by a later run."""
    from blocks.exceptions import Orphaned
    from blocks.record import subjects
    from tasks.council.models import Deliberation, DeliberationRequest
    from tasks.council.progress.stage_end import Closing
    from tasks.deliberations.plan import council_spec
    from tasks.stages import stage_gate

    monkeypatch.setattr(stage_gate, "ORPHANED_S", 0.5)
    request = DeliberationRequest(items=[{"id": "a", "task": TASK}, {"id": "b", "task": TASK}], strategy="rank")
    plan = Deliberation.plan(new_id, request, await council_spec(await make_council(3)))
    closing = Closing(task_id=new_id, item="a", stage="propose-0", proposals={}, called=("m1", "m2"), epoch=7)
    subject = subjects.closed(new_id, "a", "propose-0")
    await record.publish_final(subject, f"{new_id}:a:closed", "stage.closed", closing.model_dump(mode="json"))
    of_same_run, of_earlier_run = (stage_gate.StageGate(record, plan, "review-0", epoch) for epoch in (7, 6))
    async with asyncio.timeout(60), of_same_run.heard(), of_earlier_run.heard():
        assert (await of_same_run.of(plan.agenda[0])).called == ("m1", "m2")
        assert (await of_earlier_run.of(plan.agenda[0])).called == ()
        with pytest.raises(Orphaned, match=new_id):
            await of_same_run.of(plan.agenda[1])
