"""The collector with an admission: items begin as there is room and budget, and members are told of it by words.

Words on core NATS are said at most once; what depends on them is made up for within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests.tasks.collect.test_collector import decisions
from tests.tasks.collect.world import DEADLINE_S, SETTLE_S, World

pytestmark = pytest.mark.usefixtures("importable_prefect")


@pytest.fixture
def world(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., World], None, None]:
    """Make a world: `world(items=3, window=6, strategy="propose")`."""
    made: list[World] = []

    def make(**fields: Any) -> World:
        made.append(World(monkeypatch, **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()


def asked(world: World) -> list[str]:
    """Items that somebody was asked about, in the order of the agenda."""
    return sorted({call.split(":")[1] for call in world.server.asked})


def statuses(world: World) -> dict[str, str]:
    """What each item came to."""
    return {item: body["status"] for item, body in sorted(decisions(world).items())}


def answer_all(world: World) -> None:
    """Every call that waits is answered, and those that follow."""
    while world.server.waiting:
        world.answer(0, "ok")


def test_items_begin_as_there_is_room(world: Callable[..., World]) -> None:
    """Two at a time where six calls may be in flight; a third one once an answer of each member came."""
    one = world(strategy="propose", items=5, window=6)
    one.begin()
    assert asked(one) == ["i0", "i1"]
    assert len(one.server.waiting) == 6
    for member in ("m1", "m2", "m3"):
        one.server.answer(f"w:i0:propose-0:{member}", "ok")
    one.wait(SETTLE_S)
    assert asked(one) == ["i0", "i1", "i2"]
    answer_all(one)
    assert one.runs[0].is_over
    assert set(statuses(one).values()) == {"COMPLETED"}
    assert one.loop.time() < DEADLINE_S


def test_the_deadline_of_an_item_runs_from_its_own_beginning(world: Callable[..., World]) -> None:
    """One that waited for room for longer than a deadline has its whole time."""
    one = world(strategy="propose", items=2, window=3)
    one.begin()
    one.wait(DEADLINE_S - 1)
    assert asked(one) == ["i0"]
    one.wait(2)
    assert statuses(one) == {"i0": "TIMEOUT"}
    assert asked(one) == ["i0", "i1"]
    one.wait(DEADLINE_S - 5)
    answer_all(one)
    assert statuses(one) == {"i0": "TIMEOUT", "i1": "COMPLETED"}


@pytest.mark.parametrize("strategy", ["propose", "rank", "synthesize", "escalate"])
def test_every_strategy_goes_through_with_little_room(world: Callable[..., World], strategy: str) -> None:
    """Nobody waits for room that what is at work would have to give: later stages follow at once."""
    one = world(strategy=strategy, items=4, window=2, closed=strategy == "escalate")
    one.begin()
    answer_all(one)
    assert one.runs[0].is_over
    assert set(statuses(one).values()) == {"COMPLETED"}
    assert one.runs[0].admission.windows["default"].in_flight == 0
    assert all(work.done() for work in one.runs[0].agents.values())


def test_a_later_stage_is_not_held_up_by_room(world: Callable[..., World]) -> None:
    """Its ballots are asked for although the window is full; they keep the next item back."""
    one = world(strategy="rank", items=3, window=6)
    one.begin()
    for member in ("m1", "m2", "m3"):
        one.server.answer(f"w:i0:propose-0:{member}", "ok")
    one.wait(SETTLE_S)
    waiting = {call.rsplit(":", 1)[0] for call in one.server.waiting}
    assert {"w:i0:review-0", "w:i1:propose-0"} <= waiting
    assert len(one.server.waiting) <= 9


def test_a_run_that_follows_repeats_nothing(world: Callable[..., World]) -> None:
    """Neither a decision nor an answer, and its items begin as there is room again."""
    one = world(strategy="rank", items=4, window=6)
    one.begin()
    for _ in range(9):
        one.answer(0, "ok")
    one.kill_run(agents_too=True)
    made = one.server.asked.total()
    one.begin()
    assert len(one.server.waiting) <= 9
    answer_all(one)
    one.finish()
    assert one.server.repeated == []
    assert set(statuses(one).values()) == {"COMPLETED"}
    assert one.server.asked.total() > made


def test_answers_of_members_whose_driver_was_killed_are_not_asked_for_again(world: Callable[..., World]) -> None:
    """They go on with what they were told of, and an item that begins later has their answers by then."""
    one = world(strategy="propose", items=3, window=6)
    one.begin()
    one.server.answer("w:i0:propose-0:m1", "ok")
    one.server.answer("w:i0:propose-0:m2", "ok")
    one.server.answer("w:i0:propose-0:m3", "ok")
    one.wait(SETTLE_S)
    one.kill_run(agents_too=False)
    one.window = 3
    one.begin()
    one.server.answer("w:i2:propose-0:m2", "ok")  # of the members of the run before; this one is at i1
    one.wait(SETTLE_S)
    answer_all(one)
    one.finish()
    assert one.server.repeated == []
    assert set(statuses(one).values()) == {"COMPLETED"}


def test_a_run_that_follows_counts_what_the_one_before_used(world: Callable[..., World]) -> None:
    """Its budget is that of both."""
    one = world(strategy="propose", items=4, window=3, budget={"max_calls": 9})
    one.begin()
    for _ in range(6):
        one.answer(0, "ok")
    one.kill_run(agents_too=True)
    one.begin()
    answer_all(one)
    assert statuses(one) == {"i0": "COMPLETED", "i1": "COMPLETED", "i2": "COMPLETED", "i3": "CANCELLED"}
    assert one.runs[-1].admission.ledger.used.calls == 9


def test_a_cancel_ends_what_has_begun_and_what_has_not(world: Callable[..., World]) -> None:
    """No further call is made."""
    one = world(strategy="rank", items=6, window=6)
    one.begin()
    one.answer(0, "ok")
    one.cancel()
    assert one.runs[0].is_over
    assert set(statuses(one).values()) == {"CANCELLED"}
    assert len(statuses(one)) == 6
    assert one.server.waiting == {}
    assert asked(one) == ["i0", "i1"]
    assert one.runs[0].admission.windows["default"].in_flight == 0


def test_a_budget_that_ends_in_the_middle(world: Callable[..., World]) -> None:
    """What is in flight goes to its end; items that are left are CANCELLED with the reason, and nobody is asked."""
    one = world(strategy="propose", items=5, window=6, budget={"max_calls": 8})
    one.begin()
    assert asked(one) == ["i0", "i1"]
    for member in ("m1", "m2", "m3"):
        one.server.answer(f"w:i0:propose-0:{member}", "ok")
    one.wait(2)
    assert statuses(one) == {"i0": "COMPLETED"}  # what i1 has claimed may be free again
    answer_all(one)
    one.wait(2)
    assert one.runs[0].is_over
    assert statuses(one) == {"i0": "COMPLETED", "i1": "COMPLETED"} | dict.fromkeys(("i2", "i3", "i4"), "CANCELLED")
    told = {body["error_message"] for body in decisions(one).values() if body["status"] == "CANCELLED"}
    assert told == {"budget: 6 of 8 calls are used, and the next item takes more than is left"}
    assert asked(one) == ["i0", "i1"]
    assert one.server.asked.total() == 6


def test_a_time_that_ends_in_the_middle(world: Callable[..., World]) -> None:
    """Those that have begun are still answered, also long after, and the others are never asked."""
    one = world(strategy="propose", items=4, window=6, budget={"max_s": 10})
    one.begin()
    one.wait(11)
    assert not one.runs[0].is_over
    one.server.answer("w:i0:propose-0:m1", "ok")
    one.wait(2)
    assert {item for item, status in statuses(one).items() if status == "CANCELLED"} == {"i2", "i3"}
    assert asked(one) == ["i0", "i1"]
    answer_all(one)
    assert statuses(one) == {"i0": "COMPLETED", "i1": "COMPLETED", "i2": "CANCELLED", "i3": "CANCELLED"}
    assert asked(one) == ["i0", "i1"]
    assert one.runs[0].is_over


def test_a_budget_that_takes_no_item_at_all(world: Callable[..., World]) -> None:
    """It ends at once, and says so of each."""
    one = world(strategy="propose", items=3, window=6, budget={"max_calls": 2})
    one.begin()
    assert one.runs[0].is_over
    assert set(statuses(one).values()) == {"CANCELLED"}
    one.wait(5)
    assert one.server.asked == {}
    assert all(work.done() for work in one.runs[0].agents.values())


def test_a_ballot_that_is_asked_for_twice_is_two_calls(world: Callable[..., World]) -> None:
    """A budget of calls is never exceeded."""
    one = world(strategy="rank", items=2, window=6, budget={"max_calls": 17})
    one.begin()
    while one.server.waiting:
        is_first_ballot = [call for call in sorted(one.server.waiting) if "review" in call and "again" not in call]
        call = is_first_ballot[0] if is_first_ballot else sorted(one.server.waiting)[0]
        one.server.answer(call, "broken" if is_first_ballot else "ok")
        one.wait(SETTLE_S)
    assert one.runs[0].is_over
    made = one.server.asked.total()
    assert made <= 17
    assert one.runs[0].admission.ledger.used.calls == made


def test_words_that_are_lost_are_made_up_for_within_a_second(world: Callable[..., World]) -> None:
    """Members that were not told of an item are told of it by the next word."""
    one = world(strategy="propose", items=3, window=3)
    one.begin()
    one.is_deaf = True
    for _ in range(3):
        one.answer(0, "ok")
    assert one.server.waiting == {}
    one.wait(0.9)
    assert one.server.waiting == {}
    one.is_deaf = False
    one.wait(1)
    assert asked(one) == ["i0", "i1"]
    answer_all(one)
    assert set(statuses(one).values()) == {"COMPLETED"}


def test_a_member_that_is_late_is_told_to_leave(world: Callable[..., World]) -> None:
    """Its call is closed, so that its slot is free; the other items go on."""
    one = world(strategy="propose", items=2, window=6, grace_s=5)
    one.begin()
    one.server.answer("w:i0:propose-0:m1", "ok")
    one.server.answer("w:i0:propose-0:m2", "ok")
    one.wait(6)
    assert statuses(one) == {"i0": "COMPLETED"}
    assert sorted(one.server.waiting) == [f"w:i1:propose-0:{member}" for member in ("m1", "m2", "m3")]
    assert one.runs[0].admission.windows["default"].in_flight == 3
    answer_all(one)
    assert one.runs[0].is_over


def test_who_does_not_hear_that_it_is_late_is_not_waited_for(world: Callable[..., World]) -> None:
    """Its answer comes too late, and changes nothing."""
    one = world(strategy="propose", items=1, window=6, grace_s=5)
    one.begin()
    one.is_deaf = True
    one.server.answer("w:i0:propose-0:m1", "ok")
    one.server.answer("w:i0:propose-0:m2", "ok")
    one.wait(6)
    assert one.runs[0].is_over
    assert list(one.server.waiting) == ["w:i0:propose-0:m3"]
    before = decisions(one)
    one.server.answer("w:i0:propose-0:m3", "ok")
    one.wait(1)
    assert decisions(one) == before
    assert [body["status"] for _, body in one.stored("answers.w.i0.propose-0.m3")] == ["timeout"]


@pytest.mark.parametrize("strategy", ["propose", "rank", "escalate"])
def test_members_leave_by_themselves_once_it_is_over(world: Callable[..., World], strategy: str) -> None:
    """Also those of stages that no item came to, and those of items that nobody needed."""
    one = world(strategy=strategy, items=3, window=30, closed=strategy == "escalate")
    one.begin()
    if strategy == "escalate":
        while one.server.waiting:
            one.server.answer(sorted(one.server.waiting)[0], "ok", "red")
            one.wait(SETTLE_S)
    answer_all(one)
    assert one.runs[0].is_over
    assert all(work.done() and work.exception() is None for work in one.runs[0].agents.values())


def test_an_agent_that_dies_is_written_for_in_each_item_that_begins(world: Callable[..., World]) -> None:
    """And the window gets its calls back."""
    one = world(strategy="propose", items=3, window=3)
    one.begin()
    one.kill_agent(0)
    answer_all(one)
    assert one.runs[0].is_over
    assert set(statuses(one).values()) == {"COMPLETED"}
    assert all(body["degraded"] for body in decisions(one).values())
    assert one.runs[0].admission.windows["default"].in_flight == 0


def fail_of_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The decision of the first item cannot be written until what this gives is called."""
    from blocks.exceptions import RecordUnavailable
    from tasks.collect.collector import Collector

    publish = Collector._publish

    async def fails(self: Any, result: Any) -> None:
        if result.item == "i0":
            raise RecordUnavailable("the disk is full")
        await publish(self, result)

    monkeypatch.setattr(Collector, "_publish", fails)
    return lambda: monkeypatch.setattr(Collector, "_publish", publish)


def test_a_decision_that_cannot_be_written_ends_all(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions are written beside one another: the error of one is that of the run, whoever wrote last."""
    from blocks.exceptions import RecordUnavailable

    mend = fail_of_first(monkeypatch)
    one = world(strategy="propose", items=3, window=9)
    one.begin()
    for item in ("i0", "i1"):
        for member in ("m1", "m2", "m3"):
            one.server.answer(f"w:{item}:propose-0:{member}", "ok")
    one.wait(1)
    assert isinstance(one.runs[0].collecting.exception(), RecordUnavailable)
    assert one.stored("deliberations.w.finished") == []
    mend()
    one.finish()
    assert one.server.repeated == []
    assert len(statuses(one)) == 3


def test_an_error_of_one_that_nothing_comes_in_after_is_not_lost(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last item is written for while the other's decision fails: its end would be that of half an agenda."""
    from blocks.exceptions import RecordUnavailable

    fail_of_first(monkeypatch)
    one = world(strategy="propose", items=2, window=9)
    one.begin()
    one.wait(DEADLINE_S + 1)
    assert isinstance(one.runs[0].collecting.exception(), RecordUnavailable)
    assert one.stored("deliberations.w.finished") == []


def test_a_run_that_was_overtaken_leaves_its_room_to_others(world: Callable[..., World]) -> None:
    """What it had in flight is free in its own windows."""
    from blocks.exceptions import Superseded

    one = world(strategy="propose", items=4, window=6)
    one.begin()
    one.begin()
    answer_all(one)
    one.finish()
    assert isinstance(one.runs[0].collecting.exception(), Superseded)
    assert one.runs[0].admission.joined == 0
    assert one.runs[0].admission.windows["default"].in_flight == 0
    assert set(statuses(one).values()) == {"COMPLETED"}
