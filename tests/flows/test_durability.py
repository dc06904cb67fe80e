"""What survives: a flow process or an agent host that is killed, a second run under the same id, an edited council."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"


async def test_a_killed_flow_is_taken_up_again_without_repeating_a_finished_call(
    deliberate: Any,
    flow_process: Any,
    simulator: Any,
    recorded: Any,
    until: Any,
    make_council: Any,
    new_id: str,
) -> None:
    """Killed with two of three answers in: the second run asks only the third member again, and decides."""
    await simulator.fault("slow", match=f"{new_id}:task:propose-0:m3", times=1, delay_s=90)
    council = await make_council(3)
    process = await flow_process(task=TASK, council=council, deliberation_id=new_id)

    async def two_answers_and_a_call() -> bool:
        return len(await recorded.answers(new_id)) == 2 and len(await simulator.calls(new_id)) == 3

    await until(two_answers_and_a_call)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    state, result = await deliberate(task=TASK, council=council)
    decisions = await recorded.events(f"decisions.{new_id}.>")
    calls = await simulator.calls(new_id)
    assert (state.name, result["status"], result["received_count"]) == ("Completed", "COMPLETED", 3)
    assert {call.rpartition(":")[2]: count for call, count in calls.items()} == {"m1": 1, "m2": 1, "m3": 2}
    assert {name: answer["status"] for name, answer in (await recorded.answers(new_id)).items()} == {
        "task.m1": "ok",
        "task.m2": "ok",
        "task.m3": "ok",
    }
    assert [len(bodies) for bodies in decisions.values()] == [1]


async def test_a_killed_agent_host_is_replaced_while_members_wait(
    deliberate: Any, simulator: Any, recorded: Any, until: Any, shown: Any, make_council: Any, new_id: str
) -> None:
    """Every host is killed while all members wait for the model: they ask again elsewhere and all answer."""
    from blocks.documents import fresh
    from blocks.ray_agents import RayAgents

    await simulator.fault("slow", match=f"{new_id}:", times=3, delay_s=90)
    council = await make_council(3)
    runner = (await fresh(RayAgents, "default")).task_runner()
    hosts = await asyncio.to_thread(runner.warm)
    running = asyncio.create_task(deliberate(task=TASK, council=council, deadline_s=80))

    async def all_wait() -> bool:
        return len(await simulator.calls(new_id)) == 3

    await until(all_wait)
    for pid in hosts:
        os.kill(pid, signal.SIGKILL)
    state, result = await running
    assert (state.name, result["status"], result["received_count"]) == ("Completed", "COMPLETED", 3)
    assert set((await simulator.calls(new_id)).values()) == {2}
    assert await shown.agent_runs(state) == dict.fromkeys(("m1", "m2", "m3"), "Completed")
    assert not set(hosts) & set(await asyncio.to_thread(runner.warm))


async def test_two_flows_under_one_id_come_to_one_decision(
    deliberate: Any, recorded: Any, simulator: Any, make_council: Any, new_id: str
) -> None:
    """Started at once: every final answer and the decision stand once, and both end with the same result."""
    council = await make_council(3)
    first, second = await asyncio.gather(*(deliberate(task=TASK, council=council) for _ in range(2)))
    answers = await recorded.answers(new_id)
    finished = await recorded.events(f"deliberations.{new_id}.finished")
    decisions = await recorded.events(f"decisions.{new_id}.>")
    assert [state.name for state, _ in (first, second)] == ["Completed", "Completed"]
    assert [state.message for state, _ in (first, second)] == ["simulated, 3 of 3", "simulated, 3 of 3"]
    assert first[1]["winner_id"] == second[1]["winner_id"] == decisions[f"decisions.{new_id}.task"][0]["winner_id"]
    assert len(answers) == 3
    assert [len(bodies) for bodies in (*decisions.values(), *finished.values())] == [1, 1]


async def test_a_deliberation_that_has_ended_is_told_again_without_a_call(
    deliberate: Any, record: Any, simulator: Any, recorded: Any, make_council: Any, shown: Any, new_id: str
) -> None:
    """The same id once more: the same result to the last field, no call, no agent, no second event."""
    council = await make_council(3)
    state, result = await deliberate(task=TASK, council=council)
    status, before = await record.statuses.read(new_id), await recorded.messages(f"deliberations.{new_id}.>")
    async with recorded.heard("deliberation.>", "agent.>") as heard:
        again, told = await deliberate(task=TASK, council=council)
    runs = await shown.task_runs(again.state_details.flow_run_id)
    assert (again.name, again.message, told) == (state.name, state.message, result)
    assert set((await simulator.calls(new_id)).values()) == {1}
    assert await record.statuses.read(new_id) == status
    assert len(await recorded.messages(f"deliberations.{new_id}.>")) == len(before)
    assert heard == []
    assert not [run["name"] for run in runs if "propose" in run["name"]]


async def test_a_replica_that_lags_repeats_nothing(
    deliberate: Any,
    record: Any,
    simulator: Any,
    recorded: Any,
    make_council: Any,
    shown: Any,
    new_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read by direct get is not there yet: the same id again tells the decision that stands, without a call."""
    from blocks.record.events import Record
    from tasks.deliberations.result import result_of

    def lagging(read: Any) -> Any:
        async def asked(self: Any, subject: str, *args: Any, direct: bool = True, **others: Any) -> Any:
            if direct and not subject.startswith("$KV."):  # buckets are asked through their leader
                return None
            return await read(self, subject, *args, direct=direct, **others)

        return asked

    council = await make_council(3)
    state, result = await deliberate(task=TASK, council=council)
    before = await recorded.events(f"*.{new_id}.>"), await recorded.answers(new_id)
    with monkeypatch.context() as patched:
        for name in ("last", "next"):
            patched.setattr(Record, name, lagging(getattr(Record, name)))
        assert await record.last(f"deliberations.{new_id}.plan") is None
        again, _ = await deliberate(task=TASK, council=council)
    runs = await shown.task_runs(again.state_details.flow_run_id)
    assert (again.name, again.message, await result_of(record, new_id)) == (state.name, state.message, result)
    assert (await recorded.events(f"*.{new_id}.>"), await recorded.answers(new_id)) == before
    assert list((await simulator.calls(new_id)).values()) == [1, 1, 1]
    assert not [run["name"] for run in runs if "propose" in run["name"]]


async def test_a_council_that_is_edited_in_between_changes_nothing(
    deliberate: Any, flow_process: Any, kill: Any, simulator: Any, until: Any, make_council: Any, new_id: str
) -> None:
    """The plan on the record decides who sits in the council, what they are told and what the quorum is."""
    from blocks.council import Council

    await simulator.fault("slow", match=f"{new_id}:", times=3, delay_s=90)
    council = await make_council(3)
    process = await flow_process(task=TASK, council=council, deliberation_id=new_id)

    async def all_wait() -> bool:
        return len(await simulator.calls(new_id)) == 3

    await until(all_wait)
    await kill(process, new_id)
    edited = [{"agent_id": "other", "role": "QA", "server": "nowhere"}]
    await Council(members=edited, quorum=1).save(council, overwrite=True)
    _, result = await deliberate(task=TASK, council=council)
    assert (result["status"], result["total_agents"]) == ("COMPLETED", 3)
    assert [one["agent_id"] for one in result["members"]] == ["m1", "m2", "m3"]
    assert {one["role"] for one in result["members"]} == {"DEV"}


async def test_an_id_that_was_asked_with_another_request_is_refused(
    deliberate: Any, simulator: Any, record: Any, make_council: Any, new_id: str
) -> None:
    """The error names deliberation_id, and what stands on the record stays as it is."""
    council = await make_council(3)
    _, result = await deliberate(task=TASK, council=council)
    state, told = await deliberate(task="Another task", council=council)
    assert (state.name, told) == ("Failed", result)
    assert f"deliberation_id: '{new_id}' was already asked with another request" in state.message
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_a_run_that_is_taken_up_without_its_server_still_ends(
    deliberate: Any, simulator: Any, recorded: Any, stack: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's block is gone for good: every member fails with that reason, once, and the record says FAILED."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM
    from flows import deliberate as module

    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model).save(f"s-{new_id}")
    members = [{"agent_id": f"m{i}", "role": "DEV", "server": f"s-{new_id}"} for i in (1, 2, 3)]
    await Council(members=members).save(f"c-{new_id}")

    class Killed(BaseException):
        """The process dies here."""

    def die(*_: Any) -> None:
        raise Killed

    await simulator.fault("hang", match=f"{new_id}:")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(module, "watch_agents", die)
        await deliberate(task=TASK, council=f"c-{new_id}")
    await VLLM.adelete(f"s-{new_id}")
    state, result = await deliberate(task=TASK, council=f"c-{new_id}")
    assert (state.name, result["status"]) == ("Failed", "FAILED")
    assert result["error_message"].count(f"no block vllm/s-{new_id}") == 2
