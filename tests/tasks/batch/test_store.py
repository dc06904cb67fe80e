"""Batches on the record: put there once, by their owner, with their rows beside them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tasks.batch.world import Batches, row


def rows(*numbers: int) -> tuple[Any, ...]:
    """Rows to ask."""
    return tuple(map(row, numbers))


def refused(batches: Batches, work: Any) -> str:
    """What is told of what cannot be put there."""
    from tasks.council.exceptions import InvalidRequest

    with pytest.raises(InvalidRequest) as error:
        batches.run(work)
    return str(error.value)


def test_a_batch_stands_there_with_its_rows(batches: Batches) -> None:
    from tasks.batch.store import rows_of

    batch = batches.put("b", 2, 3, owner="a", budget={"max_calls": 7})
    assert (batch.id, batch.agendas, batch.has_ended) == ("b", 2, False)
    assert batch.request.budget.max_calls == 7
    assert {name: batch.body[name] for name in ("status", "owner", "rows")} == {
        "status": "PENDING",
        "owner": "a",
        "rows": 5,
    }
    assert batches.run(rows_of(batches.record, "b", 1)) == rows(1, 2)
    assert batches.run(rows_of(batches.record, "b", 2)) == rows(3, 4, 5)


def test_what_is_not_there_is_none(batches: Batches) -> None:
    from blocks.exceptions import RecordError
    from tasks.batch.store import ask_batch_to_stop, read_batch, rows_of

    assert batches.run(read_batch(batches.record, "b")) is None
    assert batches.run(ask_batch_to_stop(batches.record, "b")) is False
    assert batches.run(ask_batch_to_stop(batches.record, None)) is False
    with pytest.raises(RecordError, match="agenda 1 of batch b is not on the record any more"):
        batches.run(rows_of(batches.record, "b", 1))


def test_an_agenda_may_be_sent_again_with_the_same_rows_and_with_no_others(batches: Batches) -> None:
    from tasks.batch.store import put_agenda

    record = batches.record
    batches.run(put_agenda(record, "b", 1, rows(1, 2), "a"))
    batches.run(put_agenda(record, "b", 1, rows(1, 2), "a"))
    told = "agenda: 1 of 'b' was sent before, with other rows"
    assert refused(batches, put_agenda(record, "b", 1, rows(1, 3), "a")) == told
    assert refused(batches, put_agenda(record, "b", 1, rows(1, 2), "another")) == told


def test_a_batch_whose_agendas_are_not_there_is_refused(batches: Batches) -> None:
    from tasks.batch.asked import BatchRequest
    from tasks.batch.store import put_agenda, put_batch

    record, two = batches.record, BatchRequest(agendas=2)
    assert refused(batches, put_batch(record, "b", two, "a")) == "agendas: agenda 1 of 2 was not sent"
    batches.run(put_agenda(record, "b", 1, rows(1), "a"))
    assert refused(batches, put_batch(record, "b", two, "a")) == "agendas: agenda 2 of 2 was not sent"
    batches.run(put_agenda(record, "b", 2, rows(2), "another"))
    assert refused(batches, put_batch(record, "b", two, "a")) == "agendas: agenda 2 of 2 was not sent"
    assert refused(batches, put_batch(record, "b", BatchRequest(agendas=1), "a")) == "agendas: agenda 2 was sent, too"


def test_the_same_batch_again_is_none_and_another_one_is_refused(batches: Batches) -> None:
    """Also once it runs, and has agendas of rows that are asked again."""
    from tasks.batch.asked import BatchRequest
    from tasks.batch.store import note, put_agenda, put_batch

    batches.put("b", 1, 1, owner="a")
    batches.run(note(batches.record, "b", {"status": "IN_PROGRESS"}))
    batches.run(put_agenda(batches.record, "b", 3, rows(1), again_of=1))
    again = BatchRequest.read({"agendas": 2})
    assert batches.run(put_batch(batches.record, "b", again, "a")) is False
    assert batches.body("b")["status"] == "IN_PROGRESS"
    told = "id: 'b' was started before, with other fields or by another owner"
    assert refused(batches, put_batch(batches.record, "b", again, "another")) == told
    assert refused(batches, put_batch(batches.record, "b", BatchRequest.read({"agendas": 1}), "a")) == told


@pytest.mark.parametrize("owner", ["a", "another"])
def test_a_batch_that_was_started_gets_no_further_agendas(batches: Batches, owner: str) -> None:
    """Whoever sends one: it would stand where rows are put that are asked again."""
    from tasks.batch.store import agendas_again, put_agenda

    batch = batches.put("b", 1, owner="a")
    assert "was started already, with 1" in refused(batches, put_agenda(batches.record, "b", 2, rows(2), owner))
    batches.run(put_agenda(batches.record, "b", 1, rows(1), "a"))
    assert batches.run(agendas_again(batches.record, batch)) == {}


def test_an_agenda_that_slipped_in_is_none_of_rows_that_are_asked_again(batches: Batches) -> None:
    """As one that was sent in the moment of the start: the batch goes on without it."""
    from tasks.batch.store import agendas_again

    batch = batches.put("b", 1)
    batches.run(batches.record.batches.create("b.2", {"rows": 1, "owner": None, "body": "x"}))
    assert batches.run(agendas_again(batches.record, batch)) == {}


def test_rows_that_are_asked_again_know_in_which_agenda_they_failed(batches: Batches) -> None:
    from tasks.batch.store import agendas_again, put_agenda, rows_of

    batch = batches.put("b", 2, 2)
    batches.run(put_agenda(batches.record, "b", 3, (row(4, tries=2),), again_of=2))
    batches.run(put_agenda(batches.record, "b", 4, (row(1, tries=2),), again_of=1))
    assert batches.run(agendas_again(batches.record, batch)) == {3: 2, 4: 1}
    assert [one.tries for one in batches.run(rows_of(batches.record, "b", 3))] == [2]


def test_a_note_changes_what_it_names_and_makes_no_batch(batches: Batches) -> None:
    from tasks.batch.store import note

    batches.put("b", 1)
    body = batches.run(note(batches.record, "b", {"status": "IN_PROGRESS", "in_flight": 3}))
    assert (body["status"], body["in_flight"], body["rows"]) == ("IN_PROGRESS", 3, 1)
    assert batches.body("b") == body
    batches.run(note(batches.record, "none", {"status": "COMPLETED"}))
    assert batches.run(batches.record.batches.read("none")) is None


def test_who_asks_a_batch_to_stop_is_heard_until_it_has_ended(batches: Batches) -> None:
    from tasks.batch.store import ask_batch_to_stop, note

    batches.put("b", 1)
    assert batches.run(ask_batch_to_stop(batches.record, "b"))
    assert batches.body("b")["cancel_requested"] is True
    batches.run(note(batches.record, "b", {"status": "CANCELLED"}))
    assert not batches.run(ask_batch_to_stop(batches.record, "b"))


def test_whoever_repeats_what_was_broken_off_completes_it(batches: Batches) -> None:
    """The batch stands there, and its message may have been lost: it is put into the queue once."""
    from blocks.record import subjects
    from tasks.batch.submission import submit_batch

    request = batches.put("b", 1, owner="a").request
    for _ in range(3):
        assert batches.run(submit_batch(batches.record, "b", request, "a", "gateway")) is False
    queued = batches.run(batches.record.last(subjects.request("b", "batch"), direct=False))
    assert (queued.body["flow"], queued.body["parameters"]) == ("flows.batch.batch", {"batch_id": "b"})
    assert len(list(batches.nats.streams["CONCLAVE_REQUESTS"].messages())) == 1


def test_a_batch_that_has_ended_is_not_put_into_the_queue_again(batches: Batches) -> None:
    """Its message has gone: nothing would be done, and a flow run would be made for it."""
    from tasks.batch.store import note
    from tasks.batch.submission import submit_batch

    request = batches.put("b", 1).request
    batches.run(note(batches.record, "b", {"status": "COMPLETED"}))
    assert batches.run(submit_batch(batches.record, "b", request, None, "gateway")) is False
    assert list(batches.nats.streams["CONCLAVE_REQUESTS"].messages()) == []
