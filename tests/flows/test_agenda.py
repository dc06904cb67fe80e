"""Many items in one deliberation: each is decided by itself, and all of them stand on the record."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

NAMES = [f"i{number:02d}" for number in range(1, 13)]
ITEMS = [{"id": name, "task": f"Write a function to merge sorted arrays, case {name}"} for name in NAMES]


def members(decision: dict[str, Any]) -> dict[str, str]:
    """Statuses of a decision's members."""
    return {one["agent_id"]: one["status"] for one in decision["members"]}


async def decided(recorded: Any, deliberation_id: str) -> dict[str, Any]:
    """The one decision of each item, in the order they were published."""
    found = await recorded.events(f"decisions.{deliberation_id}.>")
    assert {len(bodies) for bodies in found.values()} <= {1}
    return {subject.rpartition(".")[2]: bodies[0] for subject, bodies in found.items()}


async def test_each_item_is_decided_by_itself(
    deliberate: Any, record: Any, simulator: Any, recorded: Any, shown: Any, three: str, new_id: str
) -> None:
    """Twelve items, four of them in trouble: nobody waits for those, and the deliberation counts what they came to."""
    await simulator.fault("500", match=f"{new_id}:i03:propose-0:m1")
    await simulator.fault("404_model", match=f"{new_id}:i05:")
    await simulator.fault("hang", match=f"{new_id}:i07:propose-0:m2")
    await simulator.fault("hang", match=f"{new_id}:i09:propose-0:m[23]")
    state, result = await deliberate(items=ITEMS, council=three, deadline_s=4)
    decisions = await decided(recorded, new_id)
    answers = await recorded.answers(new_id)
    finished = (await recorded.events(f"deliberations.{new_id}.finished"))[f"deliberations.{new_id}.finished"][0]
    status = await record.statuses.read(new_id)
    expected = {"items": 12, "decided": 12, "COMPLETED": 10, "FAILED": 1, "TIMEOUT": 1, "degraded": 4}
    whole = {"m1": "ok", "m2": "ok", "m3": "ok"}

    assert (state.name, state.is_completed(), result["status"], result["degraded"]) == (
        "Degraded",
        True,
        "COMPLETED",
        True,
    )
    assert finished["counts"] == status["counts"] == result["counts"] == expected
    assert (status["status"], finished["status"]) == ("COMPLETED", "COMPLETED")
    assert set(decisions) == set(NAMES)
    assert set(answers) == {f"{name}.m{number}" for name in NAMES for number in (1, 2, 3)}
    assert members(decisions["i03"]) == whole | {"m1": "failed"}
    assert decisions["i05"]["status"] == "FAILED"
    assert (decisions["i07"]["status"], members(decisions["i07"])) == ("COMPLETED", whole | {"m2": "timeout"})
    assert (decisions["i09"]["status"], [entry["rank"] for entry in decisions["i09"]["results"]]) == ("TIMEOUT", [1])
    assert set(list(decisions)[-2:]) == {"i07", "i09"}
    for name in set(NAMES) - {"i03", "i05", "i07", "i09"}:
        assert (decisions[name]["status"], members(decisions[name])) == ("COMPLETED", whole)
        assert decisions[name]["winner_id"] in whole
    for name in NAMES:
        key = await record.statuses.read(f"{new_id}.{name}")
        assert (key["status"], key["winner_id"]) == (decisions[name]["status"], decisions[name]["winner_id"])
    assert {line["item"]: line["status"] for line in result["items"]} == {
        name: decisions[name]["status"] for name in NAMES
    }
    report = await shown.report(new_id)
    assert "| i09 | TIMEOUT | 1 of 3: degraded |" in report
    assert "| i01 | COMPLETED | 3 of 3 |" in report


async def test_an_agenda_that_is_killed_in_the_middle_repeats_no_finished_call(
    deliberate: Any, flow_process: Any, kill: Any, simulator: Any, recorded: Any, until: Any, three: str, new_id: str
) -> None:
    """Killed with six items decided and the others short of one member: only the open calls are made again."""
    for name in NAMES[6:]:
        await simulator.fault("slow", match=f"{new_id}:{name}:propose-0:m3", times=1, delay_s=90)
    process = await flow_process(items=ITEMS, council=three, deliberation_id=new_id)

    async def half_is_done() -> bool:
        done = await recorded.events(f"decisions.{new_id}.>"), await recorded.answers(new_id)
        return [len(found) for found in done] == [6, 30] and len(await simulator.calls(new_id)) == 36

    await until(half_is_done)
    before = await decided(recorded, new_id)
    await kill(process, new_id)
    state, result = await deliberate(items=ITEMS, council=three)
    decisions = await decided(recorded, new_id)
    calls = await simulator.calls(new_id)
    repeated = {call.removeprefix(f"{new_id}:") for call, count in calls.items() if count > 1}
    assert (state.name, result["status"], result["degraded"]) == ("Completed", "COMPLETED", False)
    assert result["counts"] == {"items": 12, "decided": 12, "COMPLETED": 12, "degraded": 0}
    assert repeated == {f"{name}:propose-0:m3" for name in NAMES[6:]}
    assert sum(calls.values()) == 36 + 6
    assert {name: decisions[name] for name in before} == before


async def test_answers_to_items_that_are_not_open_yet_are_not_lost(
    deliberate: Any,
    record: Any,
    simulator: Any,
    recorded: Any,
    until: Any,
    three: str,
    new_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Members are far ahead of a driver that opens two items at a time, and still at work: every answer counts."""
    monkeypatch.setattr("tasks.collect.collector.WINDOW", 2)
    await simulator.fault("slow", match=f"{new_id}:i0[12]:propose-0:m3", delay_s=1)
    await simulator.fault("hang", match=f"{new_id}:i12:")
    running = asyncio.create_task(deliberate(items=ITEMS, council=three, deadline_s=120))

    async def all_but_one() -> bool:
        return set(await decided(recorded, new_id)) == set(NAMES[:-1])

    await until(all_but_one)
    await record.statuses.merge(new_id, {"cancel_requested": True})
    await running
    decisions = await decided(recorded, new_id)
    assert [decisions[name]["received_count"] for name in NAMES] == [3] * 11 + [0]
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_an_agent_task_that_dies_is_missing_from_later_items_too(
    deliberate: Any, recorded: Any, stack: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that open after its end get its `failed` at once, not at the deadline."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM
    from flows import deliberate as module
    from tasks.deliberations.plan import convened

    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model).save(f"s-{new_id}")
    servers = {"m1": "default", "m2": "default", "m3": f"s-{new_id}"}
    seats = [{"agent_id": name, "role": "DEV", "server": server} for name, server in servers.items()]
    await Council(members=seats).save(f"c-{new_id}")

    async def convene_and_lose_a_server(*arguments: Any) -> Any:
        session = await convened(*arguments)
        await VLLM.adelete(f"s-{new_id}")
        return session

    monkeypatch.setattr(module, "convened", convene_and_lose_a_server)
    monkeypatch.setattr("tasks.collect.collector.WINDOW", 2)
    state, result = await deliberate(items=ITEMS, council=f"c-{new_id}", deadline_s=120)
    decisions = await decided(recorded, new_id)
    assert (state.name, result["counts"]["COMPLETED"], result["counts"]["degraded"]) == ("Degraded", 12, 12)
    assert [members(decision)["m3"] for decision in decisions.values()] == ["failed"] * 12
    assert result["duration_ms"] < 60_000


async def test_a_cancel_ends_the_items_that_are_open_and_those_to_come(
    deliberate: Any,
    record: Any,
    simulator: Any,
    recorded: Any,
    until: Any,
    three: str,
    new_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was decided stays decided, the rest is CANCELLED, and so is the deliberation."""
    monkeypatch.setattr("tasks.collect.collector.WINDOW", 4)
    await simulator.fault("hang", match=f"{new_id}:i(0[4-9]|1.):propose-0:m[23]")
    running = asyncio.create_task(deliberate(items=ITEMS, council=three, deadline_s=120))

    async def three_decisions() -> bool:
        return len(await recorded.events(f"decisions.{new_id}.>")) == 3

    await until(three_decisions)
    await record.statuses.merge(new_id, {"cancel_requested": True})
    state, result = await running
    decisions = await decided(recorded, new_id)

    async def all_aborted() -> bool:
        return sum(call["aborted"] for call in await simulator.requests(new_id)) == 18

    assert (state.name, result["status"]) == ("Cancelled", "CANCELLED")
    assert result["counts"] == {"items": 12, "decided": 12, "COMPLETED": 3, "CANCELLED": 9, "degraded": 9}
    assert {decisions[name]["status"] for name in NAMES[:3]} == {"COMPLETED"}
    assert await until(all_aborted)


async def test_an_agenda_may_be_larger_than_prefect_takes_by_itself(
    deliberate: Any, make_council: Any, new_id: str
) -> None:
    """The stack raises Prefect's bound of 512 KiB on a run's parameters."""
    items = [{"id": f"i{number}", "task": f"Read this: {'a word ' * 12_000}"} for number in range(8)]
    _, result = await deliberate(items=items, council=await make_council(1))
    assert [item["status"] for item in result["items"]] == ["COMPLETED"] * 8
