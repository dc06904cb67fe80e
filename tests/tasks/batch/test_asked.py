"""What a batch asks: the bounds of its request and of its agendas, and the keys by which rows are found again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch import asked
from tasks.batch.asked import (
    FIRST_ROWS,
    MAX_ROWS,
    AgendaBody,
    AskedRow,
    BatchRequest,
    agenda_id,
    agendas_of,
    check_batch_id,
    content_key,
    row_key,
)
from tasks.council.council import CouncilSpec, Member
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import ItemRequest
from tests.tasks.batch.world import row


def council(**fields: Any) -> CouncilSpec:
    """Three members."""
    members = tuple(Member(agent_id=f"m{number}", role="DEV") for number in (1, 2, 3))
    return CouncilSpec(**{"name": "dev", "members": members, **fields})


# --- the request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agendas": 0}, "agendas"),
        ({"agendas": 100_001}, "agendas"),
        ({"agendas": None}, "agendas"),
        ({"agendas": "two"}, "agendas"),
        ({"council": "a b"}, "council"),
        ({"strategy": "luck"}, "strategy"),
        ({"rounds": 9}, "rounds"),
        ({"members": 0}, "members"),
        ({"quorum": 0}, "quorum"),
        ({"grace_s": -1}, "grace_s"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"rubric": ""}, "rubric"),
        ({"requirements": ["x"] * 101}, "requirements"),
        ({"requirements": ["x" * 100_000] * 3}, "requirements"),
        ({"context": []}, "context"),
        ({"answer_format": {"type": "poem"}}, "answer_format"),
        ({"budget": {"max_calls": 0}}, "budget.max_calls"),
        ({"window": 0}, "window"),
        ({"window": 4_097}, "window"),
        ({"row_tries": 0}, "row_tries"),
        ({"row_tries": 6}, "row_tries"),
        ({"task": "x"}, "task"),
        ({"priority": "batch"}, "priority"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_request_is_told_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        BatchRequest.read({"agendas": 1, **fields})
    assert refused.value.field.partition(".")[0] == field.partition(".")[0]
    assert field.startswith(refused.value.field) or refused.value.field.startswith(field)


def test_what_is_left_out_is_the_councils_own() -> None:
    request = BatchRequest.read({"agendas": 3, "council": None, "window": None})
    assert (request.council, request.strategy, request.window, request.row_tries) == ("dev", None, None, 3)


def test_an_agenda_is_asked_what_is_said_for_all() -> None:
    """And nothing of how the batch runs, so that the same rows in another batch are the same request."""
    request = BatchRequest.read(
        {"agendas": 7, "rubric": "short", "members": 2, "budget": {"max_calls": 9}, "window": 5, "row_tries": 1}
    )
    made = request.of_items([ItemRequest(id="a", task="x")])
    assert (made.rubric, made.members, made.budget) == ("short", 2, None)
    assert [item.id for item in made.items or ()] == ["a"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("run", "is a name of ours"),
        ("x" * 49, "has 49 characters; 48 are taken"),
        ("a.b", "is no id"),
        ("", "is no id"),
    ],
)
def test_an_id_that_none_can_be_is_refused(value: str, told: str) -> None:
    """Those of its agendas are made of it, and keys of ours stand beside it."""
    with pytest.raises(InvalidRequest, match=told):
        check_batch_id(value)


def test_ids_of_agendas_are_ids() -> None:
    from tasks.council.models import check_id

    assert check_batch_id("x" * 48) == "x" * 48
    assert agenda_id("b", 7) == "b-0007"
    check_id(agenda_id("x" * 48, asked.MAX_AGENDAS))


# --- its rows -------------------------------------------------------------------------------------


def body(**fields: Any) -> dict[str, Any]:
    """A row as it is sent."""
    return {"id": "r1", "row": 1, "line": 2, "key": "0" * 32, "item": {"id": "i1", "task": "x"}, **fields}


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([], "rows"),
        (None, "rows"),
        ("rows", "rows"),
        ([body()] * 1_001, "rows"),
        ([body(), body(item={"id": "i2"})], "rows.1.item.task"),
        ([body(item={"id": "i1", "task": ""})], "rows.0.item.task"),
        ([body(item={"id": "a.b", "task": "x"})], "rows.0.item.id"),
        ([body(item={"task": "x"})], "rows.0.item.id"),
        ([body(item={"id": "i1", "task": "x", "more": 1})], "rows.0.item.more"),
        ([body(), body()], "rows"),
        ([body(id="x" * 513)], "rows.0.id"),
        ([body(id=7)], "rows.0.id"),
        ([body(row=0)], "rows.0.row"),
        ([body(line=-1)], "rows.0.line"),
        ([body(key="xyz")], "rows.0.key"),
        ([body(tries=6)], "rows.0.tries"),
        ([body(more=1)], "rows.0.more"),
    ],
)
def test_what_is_wrong_with_rows_is_told_by_its_field(rows: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AgendaBody.read({"rows": rows})
    assert refused.value.field == field


def test_rows_that_are_too_much_together_are_told_by_the_one_that_is() -> None:
    """An agenda's bounds are those of a request."""
    context = {"k": "x" * 100_000}
    rows = [body(item={"id": f"i{number}", "task": "x", "context": context}) for number in range(700)]
    with pytest.raises(InvalidRequest) as refused:
        AgendaBody.read({"rows": rows})
    assert refused.value.field.startswith("rows.6")
    assert "bytes" in refused.value.problem


def test_rows_are_read_as_they_were_sent() -> None:
    rows = tuple(row(number) for number in (1, 2, 3))
    sent = AgendaBody(rows=rows).model_dump(mode="json", exclude_defaults=True)
    assert AgendaBody.read(sent).rows == rows
    assert "tries" not in sent["rows"][0]


# --- keys -----------------------------------------------------------------------------------------


ITEM = {"id": "i1", "task": "Choose", "rubric": "short", "context": {"a": 1}, "requirements": ["it is"]}


def key(row_id: str = "r1", item: dict[str, Any] | None = None, of: CouncilSpec | None = None, **request: Any) -> str:
    """The key of a row that is asked so."""
    asks = BatchRequest.read({"agendas": 1, **request}).asks(of or council())
    return row_key(row_id, ItemRequest.model_validate({**ITEM, **(item or {})}), asks)


def test_the_same_row_has_the_same_key() -> None:
    """However many agendas there are, whatever the item is called, and whatever it may cost."""
    assert key() == key(item={"id": "another"}) == key(item={"context": {"a": 1}})
    assert key() == key(agendas=9, window=5, budget={"max_calls": 1}, row_tries=1, metadata={"team": "a"})
    assert key() == key(deadline_s=5, grace_s=1)
    assert key(strategy="rank") == key(of=council(strategy="rank"))


@pytest.mark.parametrize(
    "other",
    [
        {"row_id": "r2"},
        {"item": {"task": "Choose one"}},
        {"item": {"rubric": None}},
        {"item": {"context": {"a": "1"}}},
        {"item": {"requirements": []}},
        {"item": {"answer_format": {"type": "number"}}},
        {"strategy": "propose"},
        {"rounds": 2},
        {"members": 2},
        {"quorum": 3},
        {"rubric": "for all"},
        {"requirements": ["for all"]},
        {"context": {"k": 1}},
        {"answer_format": {"type": "number"}},
        {"of": council(members=(Member(agent_id="m1", role="QA"),))},
        {"of": council(members=tuple(Member(agent_id=f"m{n}", role="DEV", model="other") for n in (1, 2, 3)))},
        {"of": council(tally="schulze")},
        {"of": council(prompts={"version": "ours", "propose": "Be brief."})},
    ],
    ids=str,
)
def test_another_one_has_another(other: dict[str, Any]) -> None:
    """Another council, prompt, model, strategy or task is another question, and its answer another answer."""
    assert key(**other) != key()


def test_what_asks_the_same_has_the_same_content() -> None:
    """Whatever it is called."""
    one, same, other = (
        ItemRequest.model_validate({**ITEM, **more}) for more in ({}, {"id": "other"}, {"context": {"a": 2}})
    )
    assert content_key(one) == content_key(same) != content_key(other)


# --- agendas --------------------------------------------------------------------------------------


def test_the_first_agenda_is_a_small_one() -> None:
    """It is at work soon."""
    rows = [row(number) for number in range(1, FIRST_ROWS + MAX_ROWS + 2)]
    assert [len(agenda) for agenda in agendas_of(rows)] == [FIRST_ROWS, MAX_ROWS, 1]
    assert list(agendas_of([])) == []
    assert [len(agenda) for agenda in agendas_of(rows[:FIRST_ROWS])] == [FIRST_ROWS]


def test_an_agenda_takes_no_further_row_beyond_its_characters() -> None:
    """What has to be read at a time stays bounded, and is a request's."""
    rows = [row(number, "x" * 100_000) for number in range(1, 91)]
    sizes = [len(agenda) for agenda in agendas_of(rows)]
    assert sizes == [40, 40, 10]


@given(st.lists(st.integers(1, 100_000), max_size=60))
def test_agendas_have_all_rows_in_their_order(sizes: list[int]) -> None:
    rows = [row(number, "x" * size) for number, size in enumerate(sizes, 1)]
    agendas = list(agendas_of(rows))
    assert [one for agenda in agendas for one in agenda] == rows
    assert all(agendas)


def test_a_row_knows_how_often_it_was_asked() -> None:
    assert isinstance(row(1), AskedRow)
    assert row(1).tries == 1
