"""The collector by itself: who is waited for, who is written for, and what a run that was cut short leaves."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests.tasks.collect.world import DEADLINE_S, World

pytestmark = pytest.mark.usefixtures("importable_prefect")


@pytest.fixture
def world(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., World], None, None]:
    """Make a world: `world(members=3, items=1, strategy="propose")`."""
    made: list[World] = []

    def make(**fields: Any) -> World:
        made.append(World(monkeypatch, **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()


def decisions(world: World) -> dict[str, dict[str, Any]]:
    """Decisions by item; each stands once."""
    found = world.stored(f"decisions.{world.id}.*")
    assert len({subject for subject, _ in found}) == len(found)
    return {body["item"]: body for _, body in found}


def test_all_who_answer_decide(world: Callable[..., World]) -> None:
    """At once, without a wait for the deadline."""
    one = world(strategy="propose")
    one.begin()
    for _ in range(3):
        one.answer(0, "ok")
    assert one.runs[0].is_over
    assert one.loop.time() < DEADLINE_S
    (decision,) = decisions(one).values()
    assert (decision["status"], decision["received_count"], decision["degraded"]) == ("COMPLETED", 3, False)


def test_who_does_not_answer_is_written_for_at_the_deadline(world: Callable[..., World]) -> None:
    """With a quorum of the others it is decided, degraded."""
    one = world(strategy="propose")
    one.begin()
    one.answer(0, "ok")
    one.answer(0, "ok")
    assert not one.runs[0].is_over
    one.wait(DEADLINE_S)
    (decision,) = decisions(one).values()
    assert (decision["status"], decision["received_count"], decision["degraded"]) == ("COMPLETED", 2, True)
    assert [member["status"] for member in decision["members"]].count("timeout") == 1


def test_an_agent_that_dies_is_not_waited_for(world: Callable[..., World]) -> None:
    """Its failure stands in its place as soon as it is known."""
    one = world(strategy="propose")
    one.begin()
    one.kill_agent(0)
    one.answer(0, "ok")
    one.answer(0, "ok")
    assert one.runs[0].is_over
    (decision,) = decisions(one).values()
    assert [member["status"] for member in decision["members"]].count("failed") == 1
    answers = [body for _, body in one.stored(f"answers.{one.id}.>")]
    assert [body["error"] for body in answers if body["status"] == "failed"] == ["agent task Crashed: it died"]


def test_a_cancel_ends_it_and_closes_the_calls(world: Callable[..., World]) -> None:
    """With what was answered."""
    one = world(strategy="rank")
    one.begin()
    one.answer(0, "ok")
    one.cancel()
    assert one.runs[0].is_over
    assert one.server.waiting == {}
    assert {body["status"] for body in decisions(one).values()} == {"CANCELLED"}
    assert [body["status"] for _, body in one.stored(f"deliberations.{one.id}.finished")] == ["CANCELLED"]


def test_a_cancel_in_a_later_stage_says_in_which(world: Callable[..., World]) -> None:
    """Its answers are counted, and not taken for the proposals, which are in."""
    one = world(strategy="rank")
    one.begin()
    for _ in range(3):
        one.answer(0, "ok")
    one.cancel()
    (decision,) = decisions(one).values()
    assert (decision["status"], decision["received_count"]) == ("CANCELLED", 3)
    assert decision["error_message"] == "cancelled in review-0 with 0 of 3 answers"


@pytest.mark.parametrize("agents_too", [True, False])
def test_a_run_that_follows_repeats_no_finished_call(world: Callable[..., World], agents_too: bool) -> None:
    """Where the first one was killed between its stages, whether its agents died with it or went on."""
    one = world(strategy="rank")
    one.begin()
    for _ in range(4):
        one.answer(0, "ok")
    one.kill_run(agents_too)
    one.begin()
    while one.server.waiting:
        one.answer(0, "ok")
    one.finish()
    assert one.server.repeated == []
    assert {body["status"] for body in decisions(one).values()} == {"COMPLETED"}


def test_a_run_that_was_overtaken_decides_nothing(world: Callable[..., World]) -> None:
    """Its collector ends with Superseded; the one that follows decides."""
    from blocks.exceptions import Superseded

    one = world(strategy="propose")
    one.begin()
    one.begin()
    for _ in range(6):
        one.answer(0, "ok")
    one.finish()
    assert isinstance(one.runs[0].collecting.exception(), Superseded)
    assert one.runs[1].collecting.exception() is None
    (decision,) = decisions(one).values()
    assert decision["status"] == "COMPLETED"


def test_acknowledgements_that_are_lost_change_nothing(world: Callable[..., World]) -> None:
    """A repeat meets its own first try."""
    one = world(strategy="rank")
    one.begin()
    while one.server.waiting:
        one.lose_acknowledgements(2)
        one.answer(0, "ok")
    one.finish()
    (decision,) = decisions(one).values()
    assert (decision["status"], decision["received_count"]) == ("COMPLETED", 3)
    assert len(one.runs) == 1


def test_a_call_that_nobody_waits_for_any_more_is_not_made(world: Callable[..., World]) -> None:
    """NATS was away when a member waited for the stage before, and it was written for meanwhile."""
    one = world(members=4, strategy="propose", rounds=1)
    one.begin()
    one.kill_agent(4)
    one.interrupt(0.1)
    one.wait(4.0)
    one.cancel()
    one.cancel()
    for number in range(4):
        one.answer(number, "ok")
    one.interrupt(0.1)
    one.cancel()
    one.interrupt(2.0)
    one.finish()
    assert one.server.repeated == []


def test_what_stands_under_a_stage_that_the_plan_has_not_is_passed_over(world: Callable[..., World]) -> None:
    """An evaluation's plain calls do, and a later version's stages may, in whatever form."""
    one = world(strategy="propose")
    one.begin()
    for stage in ("bare-0", "of-a-later-version"):
        subject = f"answers.{one.id}.i0.{stage}.m1"
        one.run(one.record.publish_final(subject, f"{one.id}:{stage}", "answer", {"form": "another"}))
    for _ in range(3):
        one.answer(0, "ok")
    (decision,) = decisions(one).values()
    assert (decision["status"], decision["received_count"]) == ("COMPLETED", 3)


def test_an_answer_that_is_not_its_subject_s_ends_the_run_and_decides_nothing(world: Callable[..., World]) -> None:
    """Who may write under one name cannot answer under another."""
    from blocks.exceptions import RecordUnreadable

    one = world(strategy="propose")
    one.begin()
    one.answer(0, "ok")
    ((_, body),) = one.stored(f"answers.{one.id}.>")
    other = "m3" if body["agent_id"] != "m3" else "m2"
    subject = f"answers.{one.id}.i0.propose-0.{other}"
    one.run(one.record.publish_final(subject, f"{one.id}:forged", "answer", body))
    one.wait(1)
    assert isinstance(one.runs[0].collecting.exception(), RecordUnreadable)
    assert decisions(one) == {}
