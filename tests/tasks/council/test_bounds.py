"""What a request may weigh: whatever is accepted can be digested, dumped, stored and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.base import MAX_DEPTH, MAX_INTEGER, MAX_JSON, MAX_NODES, MAX_TEXT, size_of
from tasks.council.council import CouncilSpec, Member
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import MAX_AGENDA, Deliberation, DeliberationRequest, check_id
from tasks.council.plain import SHOWN_BRIEFLY, SHOWN_ERROR, SHOWN_INPUT, error_line, shortened
from tests.conftest import cases

COUNCIL = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))
ANY_TEXT = st.text(st.characters(), max_size=9)
"""Lone surrogates and NUL among its characters."""
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4) | st.builds(
    lambda deep, value: nested(deep, value), st.integers(1, 400), ANY_JSON
)
ITEMS = st.fixed_dictionaries({"task": ANY_TEXT}, optional={"context": OBJECTS, "requirements": st.lists(ANY_TEXT)})


def nested(depth: int, value: Any = 1) -> dict[str, Any]:
    """An object with so many levels."""
    for _ in range(depth - 1):
        value = {"a": value}
    return {"a": value}


@settings(deadline=None, max_examples=cases(300))
@given(
    st.fixed_dictionaries({"task": ANY_TEXT}, optional={"context": OBJECTS, "metadata": OBJECTS})
    | st.fixed_dictionaries({"items": st.lists(ITEMS, max_size=3)}, optional={"context": OBJECTS, "rubric": ANY_TEXT})
)
def test_what_is_accepted_can_be_digested_dumped_stored_and_read_back(fields: dict[str, Any]) -> None:
    """Or it is refused with a short text; nothing in between."""
    try:
        request = DeliberationRequest.read(fields)
    except InvalidRequest as error:
        assert len(str(error)) <= SHOWN_ERROR + SHOWN_INPUT + 100
        return
    plan = Deliberation.plan("d", request, COUNCIL)
    for one in (request, plan):
        stored = json.dumps(one.model_dump(mode="json"), allow_nan=False).encode()
        assert type(one).model_validate(json.loads(stored)) == one
        assert type(one).model_validate_json(one.model_dump_json()) == one
    assert DeliberationRequest.read(json.loads(json.dumps(request.model_dump(mode="json")))).digest == request.digest


@pytest.mark.parametrize(
    ("depth", "taken"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (256, False), (100_000, False)]
)
@pytest.mark.parametrize("field", ["context", "metadata"])
def test_depth_is_bounded(field: str, depth: int, taken: bool) -> None:
    """On both sides of the limit, and where a reader that recurses would have failed long before."""
    value = nested(depth)
    try:
        request = DeliberationRequest.read({"task": "t", field: value})
    except InvalidRequest as error:
        assert (taken, error.field, error.problem) == (False, field, f"is nested more than {MAX_DEPTH} deep")
    else:
        assert taken
        assert request.digest
    while value:  # Python frees what is nested deeply by recursion
        value = value.pop("a") if isinstance(value, dict) else {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": [0] * MAX_NODES}, "has more than 20,000 values"),
        ({"a": "x" * MAX_JSON}, "bytes as JSON"),
        ({"a": MAX_INTEGER + 1}, "64 bits"),
        ({"a": 10**5000}, "64 bits"),
        ({"a": float("inf")}, "finite"),
        ({"a": "\ud800"}, "is no JSON"),
        ({"a": "\0"}, "NUL"),
        ({"a": [{"\0": 1}]}, "NUL"),
        ({"a": {1: "x"}}, "which is no text"),
    ],
)
def test_a_value_that_somebody_could_not_take_is_refused_by_its_field(value: dict[str, Any], problem: str) -> None:
    """Databases take no NUL and no more than 64 bits."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"task": "t", "context": value})
    assert caught.value.field == "context"
    assert problem in caught.value.problem


def test_lists_that_share_their_parts_are_counted_before_they_are_unfolded() -> None:
    """Nine levels of ten times the same list are a thousand million values."""
    value: list[Any] = [0] * 10
    for _ in range(9):
        value = [value] * 10
    with pytest.raises(ValueError, match="more than 20,000 values"):
        size_of(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    """It has no end."""
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(ValueError, match="nested more than"):
        size_of(value)


def test_the_sum_of_an_agenda_is_bounded_with_what_all_items_share() -> None:
    """Each item is stored with the shared brief: a small request would be a plan of gigabytes."""
    shared = {"rubric": "x" * MAX_TEXT}
    most = MAX_AGENDA // MAX_TEXT
    items = [{"task": "t"}] * (most + 1)
    DeliberationRequest.read({"items": items[: most - 1], **shared})
    with pytest.raises(InvalidRequest, match=rf"^items\.{most - 1}|^items\.{most}: with the items before"):
        DeliberationRequest.read({"items": items, **shared})


def test_a_context_that_is_too_large_only_with_the_shared_one_is_refused_by_its_item() -> None:
    """The door says so, not the plan."""
    half = {"x" * 10: "y" * (MAX_JSON * 2 // 3)}
    with pytest.raises(InvalidRequest, match=r"^items\.0\.context: with the request's"):
        DeliberationRequest.read({"items": [{"task": "t", "context": {"a": half}}], "context": half})


def test_requirements_are_bounded_together() -> None:
    """Every proposal is checked against all of them."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"task": "t", "requirements": ["x" * MAX_TEXT] * 3})
    assert caught.value.field == "requirements"


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "t", "council": "x" * 10**6},
        {"task": "t", "x" * 10**6: 1},
        {"task": "t", "strategy": "x" * 10**6},
        {"task": "t", "members": 10**4000},
        {"task": "t", "answer_format": {"type": "x" * 10**6}},
        {"items": [{"task": "t", "id": "x" * 10**6}]},
    ],
)
def test_no_refusal_repeats_a_large_input(fields: dict[str, Any]) -> None:
    """A text of a megabyte would go to the log, the status and the final event."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read(fields)
    assert len(str(caught.value)) < 1000


def test_a_bad_id_is_shown_in_brief() -> None:
    """With how much of it is left out."""
    with pytest.raises(InvalidRequest, match="more characters") as caught:
        check_id("x" * 10**6)
    assert len(str(caught.value)) < 400
    assert shortened("abc", 2) == "ab [and 1 more characters]"
    assert shortened("ab", 2) == "ab"


def test_an_error_is_told_in_one_short_plain_line() -> None:
    """Whatever its text has in it; one without a text is told by its class."""
    assert error_line(KeyError("engine")) == "KeyError: 'engine'"
    assert error_line(TimeoutError()) == "TimeoutError"
    line = error_line(ValueError("a\n\x1b[31mb " + "x" * 10**6))
    assert line.startswith("ValueError: a [31mb x")
    assert len(line) < SHOWN_BRIEFLY + 50
