"""What the tests of the former system left out: polling, unknown ids, deadlines, a killed process, duplicates."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

from tests.deployments.commands import conclave, end, start

TASK = "Write a function to merge sorted arrays"
UNKNOWN, PENDING, IN_PROGRESS, ENDED = range(4)


def place(status: str | None) -> int:
    """How far a deliberation with this status is."""
    return {None: UNKNOWN, "PENDING": PENDING, "IN_PROGRESS": IN_PROGRESS}.get(status, ENDED)


async def test_a_deliberation_can_be_polled(deliberate: Any, record: Any, rehearsal: Any, new_id: str) -> None:
    """Its status only goes on and its answers only grow; `conclave result` says what the record says by then."""
    from tasks.deliberations.result import result_of

    seen: list[tuple[int, int, int]] = []

    async def note() -> int:
        """Status, answers and proposals that are to be seen now."""
        result = await result_of(record, new_id) or {}
        after = answers = 0
        while (event := await record.next(f"answers.{new_id}.task.propose-0.*", after)) is not None:
            after, answers = event.sequence, answers + 1
        seen.append((place(result.get("status")), answers, len(result.get("results", ()))))
        return seen[-1][0]

    async def poll() -> None:
        while await note() < ENDED:
            await asyncio.sleep(0.05)

    if rehearsal:
        await rehearsal.fault("slow", match=f"{new_id}:task:propose-0:agent-dev-003", delay_s=6)
    await note()
    running = asyncio.create_task(deliberate(task=TASK))
    async with asyncio.timeout(900):
        while await note() < IN_PROGRESS:
            await asyncio.sleep(0.05)
        polling = asyncio.create_task(poll())
        asked = await conclave("result", new_id, "--json")
        by_then = place((await result_of(record, new_id) or {}).get("status"))
        _, result = await running
        await polling
    at_the_end = await conclave("result", new_id, "--json")
    assert result["status"] == "COMPLETED", result["error_message"]
    assert IN_PROGRESS <= place(json.loads(asked.out)["status"]) <= by_then
    assert all(a <= b for one, another in pairwise(seen) for a, b in zip(one, another, strict=True))
    assert seen[0] == (0, 0, 0)
    assert {status for status, _, _ in seen} >= {UNKNOWN, IN_PROGRESS, ENDED}
    assert seen[-1] == (ENDED, 3, 3)
    assert (at_the_end.code, json.loads(at_the_end.out)) == (0, result)


async def test_an_unknown_id_is_not_found(connected: Any, new_id: str) -> None:
    """Wrong use, in one line, wherever an id is asked for; nothing on standard output."""
    asked = await asyncio.gather(*(conclave(verb, new_id) for verb in ("result", "watch", "cancel")))
    assert [ended.code for ended in asked] == [2, 2, 2]
    assert {ended.err for ended in asked} == {f"conclave: id: no deliberation '{new_id}' is on the record\n"}
    assert {ended.out for ended in asked} == {""}


async def test_the_deadline_ends_it_with_what_came(deliberate: Any, faults: Any, new_id: str) -> None:
    """Below the quorum TIMEOUT without a winner, exit code 4; with the quorum decided and degraded, exit code 3."""
    below, reached = f"{new_id}-1", f"{new_id}-2"
    await faults.fault("hang", match=f"{below}:task:propose-0:agent-dev-00[23]")
    await faults.fault("hang", match=f"{reached}:task:propose-0:agent-dev-003")
    asked = [deliberate(task=TASK, deadline_s=6, deliberation_id=one) for one in (below, reached)]
    (_, timeout), (_, degraded) = await asyncio.gather(*asked)
    told = await asyncio.gather(*(conclave("result", one, "--json") for one in (below, reached)))
    late = degraded["members"][2]
    assert (timeout["status"], timeout["winner_id"], timeout["decision"]) == ("TIMEOUT", None, None)
    assert [entry["proposal"]["author_id"] for entry in timeout["results"]] == ["agent-dev-001"]
    assert timeout["error_message"] == "1 of 3 members answered within 6 s; the quorum is 2"
    assert (degraded["status"], degraded["degraded"], degraded["received_count"]) == ("COMPLETED", True, 2)
    assert (late["agent_id"], late["status"]) == ("agent-dev-003", "timeout")
    assert late["reason"] == "no answer within the deadline of 6 s"
    assert degraded["winner_id"] in ("agent-dev-001", "agent-dev-002")
    assert [(ended.code, json.loads(ended.out)) for ended in told] == [(4, timeout), (3, degraded)]


async def test_what_was_killed_in_its_review_goes_on_where_it_was(
    deliberate: Any, faults: Any, kill: Any, record: Any, decided: Any, new_id: str
) -> None:
    """SIGKILL with three proposals and one ballot in: the same id decides, and repeats no call that was answered."""
    hanging = {f"{new_id}:task:review-0:agent-dev-00{number}" for number in (2, 3)}
    await faults.fault("hang", match=f"{new_id}:task:review-0:agent-dev-00[23]", times=2)
    process = await start("deliberate", "--local", TASK, "--id", new_id)

    async def one_ballot_and_two_that_wait() -> bool:
        ballot = await record.last(f"answers.{new_id}.task.review-0.agent-dev-001")
        return ballot is not None and hanging <= set(await faults.calls(new_id))

    async with asyncio.timeout(90):
        while not await one_ballot_and_two_that_wait():
            await asyncio.sleep(0.05)
    await kill(process, new_id)
    await end(process)
    undecided = await decided(new_id)
    state, result = await deliberate(task=TASK)
    calls = await faults.calls(new_id)
    repeated = {call: calls.pop(call) for call in hanging}
    assert undecided == []
    assert (state.name, result["status"], result["degraded"]) == ("Completed", "COMPLETED", False)
    assert (result["received_count"], result["ballots"]["expected"]) == (3, 3)
    assert len(calls) == 4
    assert set(calls.values()) == {1}
    assert 2 in repeated.values()
    assert set(repeated.values()) <= {1, 2}  # one may not be needed any more
    assert len(await decided(new_id)) == 1


async def test_the_same_again_is_the_same_decision(
    deliberate: Any, rehearsal: Any, decided: Any, record: Any, new_id: str
) -> None:
    """One after the other: no call more, nothing new on the record; with another request the id is refused."""
    _, first = await deliberate(task=TASK)
    calls, status = rehearsal and await rehearsal.calls(new_id), await record.statuses.read(new_id)
    _, second = await deliberate(task=TASK)
    state, refused = await deliberate(task="Another task")
    assert first["status"] == "COMPLETED"
    assert first == second == refused
    assert state.name == "Failed"
    assert f"deliberation_id: '{new_id}' was already asked with another request" in state.message
    assert calls == (rehearsal and await rehearsal.calls(new_id))
    assert await record.statuses.read(new_id) == status
    assert len(await decided(new_id)) == 1


async def test_two_at_once_come_to_one_decision(
    deliberate: Any, rehearsal: Any, decided: Any, record: Any, new_id: str
) -> None:
    """Under one id: both end with it, and no call is made twice."""
    (_, first), (_, second) = await asyncio.gather(*(deliberate(task=TASK) for _ in range(2)))
    decisions = await decided(new_id)
    assert (first["status"], first["degraded"]) == ("COMPLETED", False)
    assert first["decision"] == second["decision"] == decisions[0]["decision"]
    assert len(decisions) == 1
    if rehearsal:
        assert set((await rehearsal.calls(new_id)).values()) == {1}
