"""How often a batch was tried: tries count only where no row was decided between them."""

from __future__ import annotations

import pytest

from tests.tasks.batch.world import Batches


def tries(batches: Batches, run: str = "run-1") -> int:
    """Another try, and which one since rows were decided last."""
    from tasks.batch.tries import count_try

    return batches.run(count_try(batches.record, run))


def decide(batches: Batches, count: int, batch_id: str = "b") -> None:
    """So many rows of the batch are decided by now."""
    from tasks.batch.store import note

    batches.run(note(batches.record, batch_id, {"counts": {"decided": count}}))


def test_tries_begin_anew_where_rows_were_decided(batches: Batches) -> None:
    from tasks.batch.tries import note_batch_of

    batches.put("b", 3)
    assert [tries(batches), tries(batches)] == [1, 2]
    batches.run(note_batch_of(batches.record, "run-1", "b"))
    assert [tries(batches), tries(batches), tries(batches)] == [1, 2, 3]
    decide(batches, 1)
    assert [tries(batches), tries(batches)] == [1, 2]
    decide(batches, 1)
    assert tries(batches) == 3
    assert tries(batches, "run-2") == 1


def test_another_batch_of_a_run_is_progress(batches: Batches) -> None:
    """A folder's files are one batch after another."""
    from tasks.batch.tries import batch_of, note_batch_of

    for name in ("b", "c"):
        batches.put(name, 1)
        batches.run(note_batch_of(batches.record, "run-1", name))
        assert batches.run(batch_of(batches.record, "run-1")) == name
        assert [tries(batches), tries(batches)] == [1, 2]


def test_a_try_of_a_worker_that_is_replaced_does_not_count(batches: Batches) -> None:
    from tasks.batch.tries import take_back_try

    batches.run(take_back_try(batches.record, "run-1"))
    assert [tries(batches), tries(batches)] == [1, 2]
    batches.run(take_back_try(batches.record, "run-1"))
    assert tries(batches) == 2


def test_a_run_is_bound_to_the_first_host_that_took_it(batches: Batches) -> None:
    from tasks.batch.tries import host_of, note_batch_of

    assert batches.run(host_of(batches.record, "run-1", "ant")) == "ant"
    batches.put("b", 1)
    batches.run(note_batch_of(batches.record, "run-1", "b"))
    tries(batches)
    assert batches.run(host_of(batches.record, "run-1", "bee")) == "ant"
    assert batches.run(host_of(batches.record, "run-2", "bee")) == "bee"


@pytest.mark.parametrize(("status", "goes"), [("PENDING", True), ("IN_PROGRESS", True), ("COMPLETED", False)])
def test_a_run_that_failed_goes_on_with_a_batch_that_has_not_ended(batches: Batches, status: str, goes: bool) -> None:
    from tasks.batch.store import note
    from tasks.batch.tries import goes_on, note_batch_of

    assert batches.run(goes_on(batches.record, "run-1")) is False
    batches.run(note_batch_of(batches.record, "run-1", "b"))
    assert batches.run(goes_on(batches.record, "run-1")) is False
    batches.put("b", 1)
    batches.run(note(batches.record, "b", {"status": status}))
    assert batches.run(goes_on(batches.record, "run-1")) is goes


def test_one_that_nobody_will_run_ends_failed_and_one_that_has_ended_stays_so(batches: Batches) -> None:
    """Named by its request, or by the run that was at it."""
    from tasks.batch.tries import fail_batch, note_batch_of

    batches.put("b", 1)
    batches.put("c", 1)
    batches.run(fail_batch(batches.record, None, None, "nobody"))
    batches.run(fail_batch(batches.record, "run-1", "none", "nobody"))
    batches.run(fail_batch(batches.record, None, "b", "it was\nrefused"))
    assert (batches.body("b")["status"], batches.body("b")["error"]) == ("FAILED", "it was refused")
    batches.run(note_batch_of(batches.record, "run-1", "c"))
    batches.run(fail_batch(batches.record, "run-1", None, "given up"))
    assert batches.body("c")["error"] == "given up"
    batches.run(fail_batch(batches.record, "run-1", None, "again"))
    assert batches.body("c")["error"] == "given up"
