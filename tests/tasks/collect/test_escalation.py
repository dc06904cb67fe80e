"""Asking in waves: who is asked for what the others answered, what it costs, and what a run that was killed leaves."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests.tasks.collect.world import DEADLINE_S, World

pytestmark = pytest.mark.usefixtures("importable_prefect")


@pytest.fixture
def world(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., World], None, None]:
    """Make a world of five that are asked in waves: `world(closed=True)`."""
    made: list[World] = []

    def make(**fields: Any) -> World:
        made.append(World(monkeypatch, **{"members": 5, "strategy": "escalate", **fields}))
        made[-1].begin()
        return made[-1]

    yield make
    for one in made:
        one.close()


def waiting(world: World) -> list[str]:
    """Stage and member of the calls that wait for the model server."""
    return [call.split(":", 2)[2] for call in sorted(world.server.waiting)]


def say(world: World, *answers: str, kind: str = "ok") -> None:
    """The calls that wait are answered, in the order of their names."""
    for call, said in zip(sorted(world.server.waiting), answers, strict=True):
        world.server.answer(call, kind, said)
    world.wait(0.05)


def decision(world: World) -> dict[str, Any]:
    """The only decision, once the run is over."""
    assert world.runs[-1].is_over
    ((_, body),) = world.stored(f"decisions.{world.id}.*")
    return body


def statuses(world: World) -> list[str]:
    """Of the members, in their order."""
    return [member["status"] for member in decision(world)["members"]]


def test_one_that_says_the_same_twice_decides(world: Callable[..., World]) -> None:
    """Two calls in place of ten; who was not asked is neither missing nor degraded."""
    one = world(closed=True)
    assert waiting(one) == ["propose-0:m1"]
    say(one, "red")
    assert waiting(one) == ["propose-1:m1"]
    say(one, "red")
    found = decision(one)
    assert (found["status"], found["answer"], found["degraded"]) == ("COMPLETED", "red", False)
    assert (found["total_agents"], found["received_count"], found["failed_count"], found["not_asked"]) == (1, 1, 0, 4)
    assert statuses(one) == ["ok", "not_asked", "not_asked", "not_asked", "not_asked"]
    assert sum(one.server.asked.values()) == 2
    skipped = {stage["stage"]: stage["skipped"] for stage in found["stages"] if stage["skipped"]}
    assert skipped == dict.fromkeys(("propose-2", "propose-3", "review-0"), "m1 gave the same answer twice: red")


def test_where_samples_differ_two_more_are_asked(world: Callable[..., World]) -> None:
    """Two of three is more than half; the second sample has no vote of its own."""
    one = world(closed=True)
    say(one, "red")
    say(one, "blue")
    assert waiting(one) == ["propose-2:m2", "propose-2:m3"]
    say(one, "blue", "blue")
    found = decision(one)
    assert (found["answer"], found["total_agents"], found["not_asked"]) == ("blue", 3, 2)
    assert found["majority"]["votes"] == {"blue": ["m2", "m3"], "red": ["m1"]}


def test_a_member_that_samples_nothing_is_not_asked_twice(world: Callable[..., World]) -> None:
    """At temperature 0 it would say the same again, which tells nothing of how sure it is."""
    one = world(closed=True, temperature=0)
    say(one, "red")
    assert waiting(one) == ["propose-2:m2", "propose-2:m3"]
    say(one, "red", "red")
    skipped = {stage["stage"]: stage["skipped"] for stage in decision(one)["stages"] if stage["skipped"]}
    assert skipped["propose-1"] == "m1 answers at temperature 0, and would say the same again"


def test_where_they_still_differ_all_are_asked_and_ballots_held(world: Callable[..., World]) -> None:
    """Ballots only where no answer has more than half."""
    one = world(closed=True)
    say(one, "red")
    say(one, "blue")
    say(one, "blue", "green")
    assert waiting(one) == ["propose-3:m4", "propose-3:m5"]
    say(one, "red", "blue")
    assert waiting(one) == [f"review-0:m{number}" for number in range(1, 6)]
    for _ in range(5):
        one.answer(0, "ok")
    assert statuses(one) == ["ok"] * 5
    assert decision(one)["ballots"]["expected"] == 5


def test_a_first_member_that_fails_is_no_answer_of_the_council(world: Callable[..., World]) -> None:
    """The next ones are asked; the council is degraded, since one that was asked is missing."""
    one = world(closed=True)
    say(one, "", kind="error")
    assert waiting(one) == ["propose-2:m2", "propose-2:m3"]
    say(one, "red", "red")
    found = decision(one)
    assert (found["answer"], found["degraded"], found["total_agents"], found["received_count"]) == ("red", True, 3, 2)
    assert statuses(one)[:3] == ["failed", "ok", "ok"]


def test_where_too_many_fail_it_fails_by_the_council_s_quorum(world: Callable[..., World]) -> None:
    """As soon as the last that can be asked could not make it any more."""
    one = world(closed=True)
    say(one, "", kind="error")
    say(one, "", "", kind="error")
    found = decision(one)
    assert (found["status"], found["total_agents"]) == ("FAILED", 5)
    assert "quorum of 3 cannot be reached: 3 of 5 members failed" in found["error_message"]


def test_open_texts_that_say_the_same_end_it(world: Callable[..., World]) -> None:
    """Two are asked first; words that they share tell."""
    one = world()
    assert waiting(one) == ["propose-0:m1", "propose-0:m2"]
    say(one, "Use a bounded queue with one worker.", "Use a bounded queue with one worker, please.")
    found = decision(one)
    assert (found["total_agents"], found["not_asked"]) == (2, 3)
    assert found["stages"][-1]["skipped"] == "the 2 texts say much the same"


def test_open_texts_that_differ_are_judged_by_all(world: Callable[..., World]) -> None:
    """After further ones were asked, wave by wave; a second sample has no part in it."""
    one = world()
    say(one, "Use a bounded queue.", "Shard the database by customer.")
    assert waiting(one) == ["propose-2:m3"]
    say(one, "Rewrite everything in assembler.")
    assert waiting(one) == ["propose-3:m4", "propose-3:m5"]
    say(one, "Hire more people.", "Do nothing at all.")
    assert len(waiting(one)) == 5
    for _ in range(5):
        one.answer(0, "ok")
    assert decision(one)["decided_by"] == "ballots"


def test_the_deadline_ends_it_with_what_was_asked(world: Callable[..., World]) -> None:
    """Nobody is asked after it, and nobody is blamed who was not."""
    one = world(closed=True)
    say(one, "red")
    one.wait(DEADLINE_S)
    found = decision(one)
    assert (found["status"], found["answer"]) == ("COMPLETED", "red")
    assert statuses(one) == ["ok", "not_asked", "not_asked", "not_asked", "not_asked"]
    assert found["stages"][-1]["skipped"] == "the deadline was over"
    assert found["degraded"], "it was to be asked again"


def test_grace_runs_from_half_of_the_last_wave_on(world: Callable[..., World]) -> None:
    """Those before it have made the quorum already, and it neither ends it before it was asked nor never."""
    one = world(closed=True, grace_s=1)
    say(one, "red")
    say(one, "blue")
    say(one, "blue", "green")
    one.wait(5)
    assert waiting(one) == ["propose-3:m4", "propose-3:m5"], "nobody has answered yet, so no grace runs"
    one.server.answer(f"{one.id}:i0:propose-3:m4", "ok", "red")
    one.wait(2)
    assert len(waiting(one)) == 4, "m5 was not waited for, and the others vote"
    for _ in range(4):
        one.answer(0, "ok")
    found = decision(one)
    assert (found["received_count"], found["degraded"]) == (4, True)
    assert found["members"][4]["reason"] == "no answer within 1 s after the quorum"


def test_agreement_needs_the_quorum_s_share(world: Callable[..., World]) -> None:
    """A council that wants all five wants all of those who were asked."""
    one = world(closed=True, quorum=5)
    say(one, "", kind="error")
    say(one, "red", "red")
    found = decision(one)
    assert (found["status"], found["received_count"], found["total_agents"]) == ("FAILED", 2, 5)


def test_a_council_of_one_is_asked_twice_and_waited_for(world: Callable[..., World]) -> None:
    """Nobody else could tell."""
    one = world(closed=True, members=1)
    say(one, "red")
    assert waiting(one) == ["propose-1:m1"]
    one.wait(5)
    assert waiting(one) == ["propose-1:m1"]
    say(one, "blue")
    found = decision(one)
    assert (found["answer"], found["degraded"]) == ("red", False)
    assert found["firmness"]["unknown"] == "there was only one voter"


@pytest.mark.parametrize("agents_too", [True, False])
def test_what_stands_is_the_first_rung_of_the_next_run(world: Callable[..., World], agents_too: bool) -> None:
    """A run that is killed between waves repeats no call, and goes on where it was."""
    one = world(closed=True)
    say(one, "red")
    say(one, "blue")
    one.kill_run(agents_too)
    one.begin()
    assert waiting(one)[:2] == ["propose-2:m2", "propose-2:m3"]
    say(one, *["blue"] * len(waiting(one)))
    assert decision(one)["answer"] == "blue"
    assert one.server.repeated == []
    assert one.server.asked[f"{one.id}:i0:propose-0:m1"] == 1


def test_an_older_version_leaves_it_to_a_newer_one(world: Callable[..., World]) -> None:
    """Plan, closings and decision say which version they need; of the other strategies 1."""
    one = world(closed=True)
    say(one, "red")
    say(one, "red")
    versions = {message.subject: message.headers["ce-schemaversion"] for message in one.messages(f"*.{one.id}.>")}
    assert versions[f"decisions.{one.id}.i0"] == "2"
    assert versions[f"deliberations.{one.id}.closed.i0.propose-0"] == "2"
    assert versions[f"answers.{one.id}.i0.propose-0.m1"] == "1"


# --- who was not called does not count --------------------------------------------------------------


def leave(world: World, stage: str, agent_id: str, **fields: Any) -> None:
    """An answer stands on the record of a member that was not called for the stage: forged, or left by some fault."""
    from blocks.record import subjects
    from tasks.council.proposal import Proposal
    from tasks.stages.member_stage import final_answer

    text = Proposal(
        author_id=agent_id, author_role="DEV", content="ANSWER: red", model="m", tokens=1, finish_reason="stop"
    )
    member = next(one for one in world.plan.council.members if one.agent_id == agent_id)
    told = {"status": "ok", "proposal": text, "engine": "vllm"} | fields
    answer = final_answer(world.plan, "i0", stage, member, **told)
    subject = subjects.answer(world.id, "i0", stage, agent_id)
    world.run(world.record.publish_final(subject, answer.id, "answer", answer.model_dump(mode="json")))
    world.wait(0.05)


def read(world: World) -> Any:
    """The progress of the item as `result`, `retally` and `evaluate` read it."""
    from tasks.deliberations.result import progress_of

    return world.run(progress_of(world.record, world.plan, world.plan.agenda[0]))


@pytest.mark.parametrize("stage", ["propose-0", "propose-2"])
def test_an_answer_of_one_who_was_not_called_counts_for_nothing(world: Callable[..., World], stage: str) -> None:
    """Neither for the run that hears it, nor for one that resumes, nor for whoever reads the record."""
    one = world(closed=True)
    leave(one, stage, "m2" if stage == "propose-0" else "m5")
    say(one, "blue")
    one.kill_run(agents_too=True)
    one.begin()
    assert waiting(one) == ["propose-1:m1"]
    assert list(read(one).first) == ["m1"]
    say(one, "blue")
    found = decision(one)
    assert (found["answer"], found["total_agents"], found["not_asked"]) == ("blue", 1, 4)
    assert (list(read(one).first), read(one).asked) == (["m1"], ("m1",))


def test_a_ballot_of_one_who_was_not_called_is_not_tallied_again(world: Callable[..., World]) -> None:
    """A member whose proposal failed has no ballot, whatever stands under its name."""
    from tasks.council.voting.ballots import Review
    from tasks.deliberations.result import retallied

    one = world(strategy="rank")
    for call in sorted(one.server.waiting):
        one.server.answer(call, "error" if call.endswith("m5") else "ok")
    one.wait(0.05)
    ranking = ("m4", "m3", "m2", "m1")
    forged = Review(voter="m5", shown=ranking, ranking=ranking, order="forward", opinions={})
    leave(one, "review-0", "m5", proposal=None, ballot=forged)
    for _ in range(4):
        one.answer(0, "ok")
    tally = one.run(retallied(one.record, one.id, "borda"))["i0"]
    assert tally.ballots == decision(one)["ballots"]["tally"]["ballots"] < 5
