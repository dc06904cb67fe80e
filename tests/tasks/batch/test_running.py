"""A batch at work: its agendas overlap, what may pass is asked again, and what is decided stays so."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.tasks.batch.world import ANSWER_S, DEADLINE_S, Batches


def decide(batches: Batches, batch_id: str = "b", **how: Any) -> Any:
    """Let it be decided, to its end."""
    return batches.run(batches.decided(batch_id, **how))


def killed(batches: Batches, seconds: float, batch_id: str = "b", **how: Any) -> None:
    """Let it be decided for so long, then kill its worker with all that is in it."""
    from blocks.background import cancel_and_wait

    async def work() -> None:
        running = asyncio.create_task(batches.decided(batch_id, **how))
        await asyncio.sleep(seconds)
        await cancel_and_wait([running])

    batches.run(work())


def test_all_rows_are_decided_and_counted(batches: Batches) -> None:
    batches.put("b", 3, 5, 2)
    running = decide(batches)
    assert running.counts == {"decided": 10, "COMPLETED": 10, "degraded": 0}
    body = batches.body("b")
    assert body["counts"] == {"decided": 10, "COMPLETED": 10}
    assert (body["rows"], body["calls"], body["tokens"], body["in_flight"]) == (10, 10, 150, 0)
    assert body["usage"]["prompt_tokens"] == 100
    assert sorted(batches.told("b")) == sorted((f"r{number}", "COMPLETED") for number in range(1, 11))


def test_agendas_overlap_so_that_no_slot_is_idle_at_a_seam(batches: Batches) -> None:
    """Twenty calls at a time through agendas of seven rows: all rows in three answers' time, and a little."""
    batches.put("b", *[7] * 8)
    before = batches.loop.time()
    decide(batches, window=20)
    assert batches.server.most >= 20
    assert batches.loop.time() - before < 3 * ANSWER_S + 1


def test_few_agendas_wait_for_room(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, the one that is served among them: each costs tasks of its members. At work are more of them."""
    from tasks.batch.running import AHEAD

    batches.put("b", *[5] * 6)
    ask, waited = batches.ask, list[int]()

    async def noted(record: Any, session: Any, admission: Any) -> Any:
        waited.append(admission.waiting + 1)
        return await ask(record, session, admission)

    monkeypatch.setattr(batches, "ask", noted)
    decide(batches, window=5)
    assert len(waited) == 6
    assert max(waited) == AHEAD


def test_a_row_that_hangs_keeps_nobody_from_the_rows_behind_it(batches: Batches) -> None:
    """Its agenda stays open; those behind it are decided meanwhile."""
    batches.server.kinds["task-1"] = ("silent", 9)
    batches.put("b", 2, 4, 4, row_tries=1)

    async def work() -> dict[str, Any]:
        running = asyncio.create_task(batches.decided("b", window=4))
        await asyncio.sleep(DEADLINE_S / 2)
        body = await batches.record.batches.read("b")
        await running
        return body

    assert batches.run(work())["counts"] == {"decided": 9, "COMPLETED": 9}
    assert batches.body("b")["counts"] == {"decided": 10, "COMPLETED": 9, "TIMEOUT": 1, "degraded": 1}


# --- again ----------------------------------------------------------------------------------------


def test_a_row_whose_server_is_away_is_asked_again_after_a_while_of_its_own(batches: Batches) -> None:
    """Twice where it needs that: five seconds later, then ten."""
    batches.server.kinds |= {"task-1": ("away", 2), "task-4": ("away", 1)}
    batches.put("b", 2, 2)
    before = batches.loop.time()
    running = decide(batches)
    assert running.counts["decided"] == running.counts["COMPLETED"] == 4
    assert running.counts["again"] == 3
    assert {name: count for name, count in running.counts.items() if count < 0} == {}
    assert batches.server.asked == {"task-1": 3, "task-2": 1, "task-3": 1, "task-4": 2}
    assert 15 + 3 * ANSWER_S <= batches.loop.time() - before <= 15 + 3 * ANSWER_S + 5
    told = batches.told("b")
    assert told.count(("r1", "FAILED")) == 2
    assert dict(told) == dict.fromkeys(("r1", "r2", "r3", "r4"), "COMPLETED")


def test_it_is_asked_so_often_and_no_more(batches: Batches) -> None:
    batches.server.kinds["task-1"] = ("away", 9)
    batches.put("b", 2, row_tries=2)
    running = decide(batches)
    assert batches.server.asked["task-1"] == 2
    assert (running.counts["decided"], running.counts["FAILED"], running.counts["COMPLETED"]) == (2, 1, 1)
    assert batches.body("b")["agendas"] == 2


def test_a_row_that_had_no_time_is_asked_again(batches: Batches) -> None:
    batches.server.kinds["task-2"] = ("silent", 1)
    batches.put("b", 2)
    running = decide(batches)
    assert running.counts["COMPLETED"] == 2
    assert batches.server.asked["task-2"] == 2


def test_a_row_that_its_server_refused_is_not(batches: Batches) -> None:
    """It would refuse it once more."""
    batches.server.kinds["task-2"] = ("refused", 9)
    batches.put("b", 2)
    running = decide(batches)
    assert batches.server.asked["task-2"] == 1
    assert (running.counts["FAILED"], running.counts["again"]) == (1, 0)
    assert batches.body("b")["agendas"] == 1


def test_rows_of_agendas_that_end_together_are_asked_again_in_agendas_of_their_own(batches: Batches) -> None:
    """Their numbers are given one after another, without a gap."""
    batches.server.kinds |= {f"task-{number}": ("away", 1) for number in range(1, 13)}
    batches.put("b", 3, 3, 3, 3)
    running = decide(batches)
    assert running.counts["COMPLETED"] == running.counts["decided"] == 12
    assert batches.body("b")["agendas"] == 8


# --- again after a kill ---------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 1.2, 2.2, 3.5])
def test_a_run_that_follows_repeats_nothing_and_counts_all(batches: Batches, seconds: float) -> None:
    batches.put("b", *[4] * 5)
    killed(batches, seconds, window=4)
    in_flight = sum(batches.server.asked.values()) - batches.answers
    running = decide(batches, window=4, run="run-2")
    assert running.counts["decided"] == running.counts["COMPLETED"] == 20
    assert sum(batches.server.asked.values()) == 20 + in_flight
    assert batches.body("b")["usage"]["prompt_tokens"] == 200
    assert batches.body("b")["calls"] == 20


@pytest.mark.parametrize("seconds", [1.3, 4.0, 6.5, 7.3, 9.0])
def test_counts_are_equal_where_rows_were_asked_again_before_the_kill(batches: Batches, seconds: float) -> None:
    """At any moment between the failure and the last try."""
    batches.server.kinds |= {"task-1": ("away", 1), "task-3": ("away", 2)}
    batches.put("b", 2, 2)
    killed(batches, seconds)
    running = decide(batches, run="run-2")
    counts = {name: count for name, count in running.counts.items() if count}
    assert counts == {"decided": 4, "COMPLETED": 4, "again": running.counts["again"]}
    assert dict(batches.told("b")) == dict.fromkeys(("r1", "r2", "r3", "r4"), "COMPLETED")


def test_a_batch_that_has_ended_is_counted_and_not_asked(batches: Batches) -> None:
    batches.put("b", 3, 3)
    decide(batches)
    running = decide(batches, run="run-2")
    assert sum(batches.server.asked.values()) == 6
    assert running.counts == {"decided": 6, "COMPLETED": 6, "degraded": 0}


# --- ends -----------------------------------------------------------------------------------------


def test_a_cancel_lets_what_has_begun_end_and_leaves_the_rest(batches: Batches) -> None:
    """What is in flight is paid for; rows that have not begun are told as cancelled, or not at all."""
    from tasks.batch.store import ask_batch_to_stop

    batches.put("b", *[4] * 6)

    async def work() -> Any:
        running = asyncio.create_task(batches.decided("b", window=4))
        await asyncio.sleep(1.5)
        assert await ask_batch_to_stop(batches.record, "b")
        return await running

    before = batches.loop.time()
    running = batches.run(work())
    assert running.is_cancelled
    assert batches.loop.time() - before < 6
    made = sum(batches.server.asked.values())
    assert running.counts["COMPLETED"] == running.counts["decided"] == made < 24
    assert batches.server.running == 0
    told = Counter(status for _, status in batches.told("b"))
    assert told == {"COMPLETED": made, "CANCELLED": running.counts["CANCELLED"]}


def test_what_takes_long_after_a_cancel_is_cut_off(batches: Batches) -> None:
    from tasks.batch import running as at_work
    from tasks.batch.store import ask_batch_to_stop

    batches.server.kinds["task-1"] = ("silent", 9)
    batches.put("b", 2)

    async def work() -> Any:
        running = asyncio.create_task(batches.decided("b"))
        await asyncio.sleep(2)
        await ask_batch_to_stop(batches.record, "b")
        return await running

    before = batches.loop.time()
    running = batches.run(work())
    assert batches.loop.time() - before < 2 + at_work.DRAIN_S + 5 < DEADLINE_S
    assert running.counts["COMPLETED"] == running.counts["CANCELLED"] == 1
    assert batches.server.running == 0


def test_a_budget_of_calls_is_never_exceeded(batches: Batches) -> None:
    batches.put("b", *[4] * 6, budget={"max_calls": 10})
    running = decide(batches, window=4)
    assert sum(batches.server.asked.values()) == 10
    assert running.counts["COMPLETED"] == 10
    assert str(running.admission.stopped).startswith("budget: 10 of 10 calls")
    assert batches.body("b")["error"] == running.admission.stopped


@pytest.mark.parametrize("seconds", [1.5, 2.5, 3.5])
def test_nor_over_the_runs_of_a_batch(batches: Batches, seconds: float) -> None:
    """What agendas took that an earlier run came to the end of is used."""
    batches.put("b", *[2] * 8, budget={"max_calls": 9})
    killed(batches, seconds, window=2)
    in_flight = sum(batches.server.asked.values()) - batches.answers
    running = decide(batches, window=2, run="run-2")
    assert running.counts["COMPLETED"] == 9
    assert sum(batches.server.asked.values()) == 9 + in_flight
    assert running.admission.ledger.used.calls == 9


@pytest.mark.parametrize("is_killed", [False, True])
def test_rows_that_were_to_be_asked_again_stay_what_they_came_to_where_the_budget_ends(
    batches: Batches, is_killed: bool
) -> None:
    """They count as failed; also in a run that follows."""
    batches.server.kinds["task-2"] = ("away", 9)
    batches.put("b", 2, 2, budget={"max_calls": 4})
    if is_killed:
        killed(batches, 3)
    running = decide(batches, run="run-2")
    counts = {name: count for name, count in running.counts.items() if count}
    told = dict(batches.told("b"))
    assert Counter(told.values()) == {
        name: counts[name] for name in ("COMPLETED", "FAILED", "CANCELLED") if name in counts
    }
    assert counts["COMPLETED"] == 3
    assert counts["decided"] + counts.get("CANCELLED", 0) == 4


def test_its_time_counts_over_its_runs(batches: Batches) -> None:
    from datetime import UTC, datetime, timedelta

    from tasks.batch.ending import begin_batch
    from tasks.batch.store import note

    batches.put("b", 1, budget={"max_s": 60})
    first = batches.run(begin_batch(batches.record, "b", "run-1"))
    assert first.elapsed_s == 0
    ago = (datetime.now(UTC) - timedelta(seconds=50)).isoformat()
    batches.run(note(batches.record, "b", {"started_at": ago}))
    again = batches.run(begin_batch(batches.record, "b", "run-2"))
    assert 50 <= again.elapsed_s < 60
    assert again.batch.body["started_at"] == ago


def test_its_council_is_that_of_its_first_run(batches: Batches) -> None:
    """Whatever its block has become since."""
    from tasks.batch import ending
    from tasks.council.exceptions import InvalidRequest

    batches.put("b", 1)
    first = batches.run(ending.begin_batch(batches.record, "b", "run-1"))
    batches.council = batches.council.model_copy(update={"deadline_s": 5.0})
    assert batches.run(ending.begin_batch(batches.record, "b", "run-2")).council == first.council
    with pytest.raises(InvalidRequest, match="no batch 'none' is on the record"):
        batches.run(ending.begin_batch(batches.record, "none", "run-3"))


def test_what_a_deliberation_raises_ends_the_run_and_its_tasks(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blocks.exceptions import AgentsUnavailable

    batches.put("b", *[2] * 4)
    ask = batches.ask

    async def fails(record: Any, session: Any, admission: Any) -> Any:
        if session.plan.id == "b-0002":
            raise AgentsUnavailable("no host has room")
        return await ask(record, session, admission)

    monkeypatch.setattr(batches, "ask", fails)
    with pytest.raises(AgentsUnavailable):
        decide(batches, window=2)
    assert batches.server.running == 0
