"""The strategy rank: blind ballots decide, and what goes wrong with them is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"


async def ballots_of(recorded: Any, new_id: str) -> dict[str, dict[str, Any]]:
    """The review's final answers, by member."""
    found = await recorded.events(f"answers.{new_id}.task.review-0.*")
    return {subject.rpartition(".")[2]: bodies[0] for subject, bodies in found.items()}


def ballot_status(member: dict[str, Any]) -> str | None:
    """What became of a member's ballot."""
    found = member["stages"].get("review-0")
    return found["status"] if found else None


async def vote(record: Any, new_id: str, voter: str, ranking: list[str], of: int) -> None:
    """Put a ballot on the record, as an earlier run may have done."""
    opinions = {member: {"scores": {}, "critique": "none"} for member in ranking}
    ballot = {"voter": voter, "shown": ranking, "ranking": ranking, "order": "forward", "opinions": opinions}
    body = {"task_id": new_id, "item": "task", "stage": "review-0", "agent_id": voter, "role": "DEV"}
    body |= {"status": "ok", "ballot": ballot, "num_agents": of, "timestamp": "2026-11-01T00:00:00Z"}
    subject = f"answers.{new_id}.task.review-0.{voter}"
    await record.publish_final(subject, f"{new_id}:task:review-0:{voter}", "answer", body)


async def test_the_members_ballots_decide(
    deliberate: Any, recorded: Any, simulator: Any, shown: Any, make_council: Any, new_id: str
) -> None:
    """Each author judges the others once, by author on the record; the tally's winner is the decision."""
    council = await make_council(4)
    state, result = await deliberate(task=TASK, council=council, strategy="rank")
    ballots, outcome = await ballots_of(recorded, new_id), result["ballots"]
    assert (state.name, result["status"], result["degraded"]) == ("Completed", "COMPLETED", False)
    assert 4 < len(await simulator.calls(new_id)) <= 8
    assert set((await simulator.calls(new_id)).values()) == {1}
    assert set(ballots) == {"m1", "m2", "m3", "m4"}
    cast = {voter: body["ballot"] for voter, body in ballots.items() if body["status"] == "ok"}
    assert all(set(ballot["shown"]) == set(ballots) - {voter} for voter, ballot in cast.items())
    assert (outcome["expected"], outcome["counted"]) == (4, len(cast))
    assert len(cast) == 4 or outcome["ended_early"]
    assert result["winner_id"] == outcome["tally"]["winner"] == result["results"][0]["proposal"]["author_id"]
    assert [entry["votes"] for entry in result["results"]] == list(outcome["tally"]["scores"].values())
    assert {ballot_status(member) for member in result["members"]} <= {"ok", "cancelled"}
    assert "### Ballots" in await shown.report(new_id)


async def test_a_councils_own_strategy_is_taken(deliberate: Any, make_council: Any) -> None:
    """Unless the request has one."""
    council = await make_council(3, strategy="rank")
    _, result = await deliberate(task=TASK, council=council)
    assert (result["strategy"], result["ballots"]["expected"]) == ("rank", 3)


async def undecided_without_m2(record: Any, new_id: str) -> None:
    """Ballots of m1 and m3, each for the other: whatever m2 says decides, so that it is waited for."""
    await vote(record, new_id, "m1", ["m3", "m2"], of=3)
    await vote(record, new_id, "m3", ["m1", "m2"], of=3)


async def test_an_unusable_ballot_is_asked_for_once_more(
    deliberate: Any, record: Any, recorded: Any, simulator: Any, three: str, new_id: str
) -> None:
    """The second answer counts, the first is noted as an attempt; both are paid for."""
    await undecided_without_m2(record, new_id)
    await simulator.fault("cut_off", match=f"{new_id}:task:review-0:m2$", times=1)
    _, result = await deliberate(task=TASK, council=three, strategy="rank")
    attempts = await recorded.events(f"attempts.{new_id}.>")
    assert (result["degraded"], {m["agent_id"]: ballot_status(m) for m in result["members"]}["m2"]) == (False, "ok")
    assert list(attempts) == [f"attempts.{new_id}.task.review-0.m2"]
    assert (await simulator.calls(new_id))[f"{new_id}:task:review-0:m2:again"] == 1


async def test_ballots_that_stay_unusable_are_discarded_and_told(
    deliberate: Any, record: Any, simulator: Any, three: str, new_id: str
) -> None:
    """One of three: the others decide, and the result is degraded by it."""
    await undecided_without_m2(record, new_id)
    await simulator.fault("cut_off", match=f"{new_id}:task:review-0:m2")
    state, result = await deliberate(task=TASK, council=three, strategy="rank")
    m2 = next(member for member in result["members"] if member["agent_id"] == "m2")
    assert (state.name, result["status"], result["degraded"]) == ("Degraded", "COMPLETED", True)
    assert state.message == "simulated, 3 of 3, 2 of 3 ballots: degraded"
    assert (result["ballots"]["counted"], result["ballots"]["tally"]["discarded"]) == (2, 1)
    assert (m2["status"], ballot_status(m2)) == ("ok", "truncated")


async def test_without_a_usable_ballot_the_checks_decide(
    deliberate: Any, simulator: Any, shown: Any, three: str, new_id: str
) -> None:
    """Their order stands, and the report says so."""
    await simulator.fault("cut_off", match=f"{new_id}:task:review-0:")
    _, result = await deliberate(task=TASK, council=three, strategy="rank")
    scores = [entry["score"] for entry in result["results"]]
    assert (result["status"], result["degraded"], result["ballots"]["counted"]) == ("COMPLETED", True, 0)
    assert scores == sorted(scores, reverse=True)
    assert "None of 3 ballots could be counted" in await shown.report(new_id)


async def test_two_authors_have_nothing_to_compare(
    deliberate: Any, simulator: Any, make_council: Any, new_id: str
) -> None:
    """No ballot is asked for, and the result says why."""
    _, result = await deliberate(task=TASK, council=await make_council(2), strategy="rank")
    assert (result["status"], result["degraded"], result["ballots"]["expected"]) == ("COMPLETED", False, 0)
    assert "compare nothing" in result["ballots"]["ended_early"]
    assert len(await simulator.calls(new_id)) == 2


async def test_who_has_no_proposal_neither_votes_nor_is_voted_for(
    deliberate: Any, simulator: Any, quick: str, make_council: Any, new_id: str
) -> None:
    """The others judge one another."""
    await simulator.fault("404_model", match=f"{new_id}:task:propose-0:m4")
    council = await make_council(4, server=quick)
    _, result = await deliberate(task=TASK, council=council, strategy="rank")
    assert (result["received_count"], result["ballots"]["expected"]) == (3, 3)
    assert set(result["ballots"]["tally"]["order"]) == {"m1", "m2", "m3"}
    assert f"{new_id}:task:review-0:m4" not in await simulator.calls(new_id)


async def test_ballots_that_cannot_change_the_winner_are_not_waited_for(
    deliberate: Any, record: Any, simulator: Any, make_council: Any, new_id: str
) -> None:
    """Five of six put m6 first: the sixth ballot hangs, and its call is closed."""
    council = await make_council(6)
    members = [f"m{number}" for number in range(1, 7)]
    for voter in members[:5]:
        await vote(record, new_id, voter, [member for member in reversed(members) if member != voter], of=6)
    await simulator.fault("hang", match=f"{new_id}:task:review-0:m6")
    _, result = await deliberate(task=TASK, council=council, strategy="rank", deadline_s=120)
    outcome = result["ballots"]
    assert (result["winner_id"], result["degraded"]) == ("m6", False)
    assert (outcome["expected"], outcome["counted"]) == (6, 5)
    assert "m6 cannot be overtaken" in outcome["ended_early"]
    async with asyncio.timeout(30):
        while not all(call["aborted"] for call in await simulator.requests(new_id) if "review-0" in call["request_id"]):
            await asyncio.sleep(0.1)


async def test_a_cancel_reaches_the_review(
    deliberate: Any, record: Any, simulator: Any, until: Any, three: str, new_id: str
) -> None:
    """The proposals stay, no winner is named."""
    await simulator.fault("hang", match=f"{new_id}:task:review-0:")
    running = asyncio.create_task(deliberate(task=TASK, council=three, strategy="rank", deadline_s=120))

    async def all_review() -> bool:
        return sum("review-0" in call for call in await simulator.calls(new_id)) == 3

    await until(all_review)
    await record.statuses.merge(new_id, {"cancel_requested": True})
    state, result = await running
    assert (state.name, result["status"], result["winner_id"]) == ("Cancelled", "CANCELLED", None)
    assert len(result["results"]) == 3


async def test_the_deadline_ends_the_review_with_the_ballots_that_came(
    deliberate: Any, record: Any, simulator: Any, three: str, new_id: str
) -> None:
    """Two of three, which do not settle it: decided all the same, degraded, and m3's ballot is a timeout."""
    await vote(record, new_id, "m1", ["m2", "m3"], of=3)
    await vote(record, new_id, "m2", ["m1", "m3"], of=3)
    await simulator.fault("hang", match=f"{new_id}:task:review-0:m3")
    _, result = await deliberate(task=TASK, council=three, strategy="rank", deadline_s=6)
    assert (result["status"], result["degraded"]) == ("COMPLETED", True)
    assert {member["agent_id"]: ballot_status(member) for member in result["members"]}["m3"] == "timeout"


async def test_items_of_an_agenda_are_reviewed_on_their_own(
    deliberate: Any, simulator: Any, three: str, new_id: str
) -> None:
    """While a proposal for one is still missing, the other is decided."""
    await simulator.fault("slow", match=f"{new_id}:late:propose-0:m1", delay_s=6)
    items = [{"id": "late", "task": TASK}, {"id": "soon", "task": TASK}]
    _, result = await deliberate(items=items, council=three, strategy="rank")
    assert [item["item"] for item in result["items"]] == ["soon", "late"]
    assert set((await simulator.calls(new_id)).values()) == {1}
    assert len(await simulator.calls(new_id)) <= 12


async def test_the_ballots_on_record_are_tallied_again(
    deliberate: Any, record: Any, simulator: Any, three: str, new_id: str
) -> None:
    """By each rule, without a call; borda says what the decision says."""
    from tasks.deliberations.result import retallied

    _, result = await deliberate(task=TASK, council=three, strategy="rank")
    calls = await simulator.calls(new_id)
    again = {rule: (await retallied(record, new_id, rule))["task"] for rule in ("borda", "copeland", "schulze")}
    assert again["borda"].model_dump(mode="json") == result["ballots"]["tally"]
    assert {outcome.rule for outcome in again.values()} == {"borda", "copeland", "schulze"}
    assert await simulator.calls(new_id) == calls


async def test_without_ballots_there_is_nothing_to_tally(deliberate: Any, record: Any, three: str, new_id: str) -> None:
    """The strategy is named."""
    from tasks.council.exceptions import InvalidRequest
    from tasks.deliberations.result import retallied

    await deliberate(task=TASK, council=three)
    with pytest.raises(InvalidRequest, match="has no ballots: its strategy is propose"):
        await retallied(record, new_id, "borda")
