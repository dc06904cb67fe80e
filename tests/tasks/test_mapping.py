"""Mappings: an event becomes a request, or is passed over, or is refused with what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest
from tasks.deliberations.event_mapping import Mapping, MappingError
from tests.conftest import cases

EVENT = {"plan_id": "p-7", "title": "Login", "approved_by": "ann", "points": 3, "stories": [{"id": "a", "text": "A"}]}


def test_fields_are_found_where_the_mapping_says() -> None:
    """Expressions read the event, constants stand for themselves, and what is not there is left to its default."""
    request = {
        "task": "join(': ', ['Plan', title])",
        "council": {"value": "architect"},
        "context": "{plan: plan_id, points: points}",
        "rubric": "no.such.place",
    }
    asked = Mapping.read(request, when="approved_by != null", id_="plan_id").asked(EVENT)
    assert asked is not None
    context = {"plan": "p-7", "points": 3}
    assert asked.fields == {"task": "Plan: Login", "council": "architect", "context": context}
    assert asked.id == "p-7"


def test_an_agenda_comes_from_a_list() -> None:
    """Each story is an item."""
    asked = Mapping.read({"items": "stories[*].{id: id, task: text}"}).asked(EVENT)
    assert asked is not None
    assert (asked.fields, asked.id) == ({"items": [{"id": "a", "task": "A"}]}, None)


def test_what_does_not_meet_the_condition_is_passed_over() -> None:
    """No request, and no error."""
    mapping = Mapping.read({"task": "title"}, when="approved_by != null")
    assert mapping.asked({**EVENT, "approved_by": None}) is None


@pytest.mark.parametrize(
    ("request_", "others", "refusal"),
    [
        ({"tusk": "title"}, {}, "request.tusk: is no field of a request; the fields are answer_format, "),
        ({"council": "team"}, {}, "request.task: is missing"),
        ({"task": "title["}, {}, "request.task: 'title[' is no JMESPath expression"),
        ({"task": 7}, {}, "request.task: must be a JMESPath expression, such as title, or a constant"),
        ({"task": "title"}, {"when": "&&"}, "when: '&&' is no JMESPath expression"),
        ({"task": "title"}, {"id_": ["x"]}, "id: must be a JMESPath expression"),
    ],
)
def test_a_mapping_that_cannot_be_used_names_its_key(request_: Any, others: Any, refusal: str) -> None:
    """Found when it is read, not when an event comes."""
    with pytest.raises(MappingError) as refused:
        Mapping.read(request_, **others)
    assert str(refused.value).startswith(refusal)


@pytest.mark.parametrize(
    ("event", "refusal"),
    [
        ({**EVENT, "title": None}, "task: give either one task"),
        ({**EVENT, "title": 7}, "task: Input should be a valid string"),
        ({**EVENT, "plan_id": "a.b"}, 'id: the event gives "a.b", which is no id'),
        ({**EVENT, "plan_id": None}, "id: the event gives null, which is no id"),
        (["no", "object"], "task: "),
        ("text", "task: "),
        (None, "task: "),
    ],
)
def test_an_event_that_does_not_fit_is_refused_by_the_field(event: Any, refusal: str) -> None:
    """Whatever somebody else publishes, the refusal says which field of the request."""
    with pytest.raises(InvalidRequest) as refused:
        Mapping.read({"task": "title"}, id_="plan_id").asked(event)
    assert str(refused.value).startswith(refusal)


def test_a_function_on_the_wrong_type_is_a_refusal() -> None:
    """An expression that fails on an event refuses that event."""
    with pytest.raises(InvalidRequest, match="task: the event does not fit the mapping"):
        Mapping.read({"task": "join('', title)"}).asked({"title": 7})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcx"), inner, max_size=4),
    max_leaves=12,
)
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "c", "@", "`1`", "`[1, 2]`", "'x'", "a[*]", "*", "a[0]", "a[]", "a[::2]", "&a"]),
    lambda inner: st.one_of(
        st.builds("{}.{}".format, inner, st.sampled_from("abc")),
        st.builds("{} {} {}".format, inner, st.sampled_from(["||", "&&", "==", "!=", "<", ">=", "|"]), inner),
        st.builds("{}[?{} {} {}]".format, st.sampled_from("abc"), inner, st.sampled_from(["<", ">", "=="]), inner),
        st.builds("{{a: {}, b: {}}}".format, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds(
            "{}({})".format,
            st.sampled_from(
                [
                    "abs",
                    "avg",
                    "ceil",
                    "floor",
                    "keys",
                    "length",
                    "max",
                    "min",
                    "not_null",
                    "reverse",
                    "sort",
                    "sum",
                    "to_array",
                ]
            ),
            inner,
        ),
        st.builds("{}({})".format, st.sampled_from(["to_number", "to_string", "type", "values", "merge"]), inner),
        st.builds(
            "{}({}, {})".format,
            st.sampled_from(["contains", "ends_with", "join", "map", "max_by", "sort_by", "starts_with", "merge"]),
            inner,
            inner,
        ),
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=cases(300))
@given(JSON, EXPRESSIONS, EXPRESSIONS, EXPRESSIONS)
def test_any_event_under_any_expression_is_asked_passed_over_or_refused(
    event: Any, task: str, context: str, one: str
) -> None:
    """There is no third kind of error, and no refusal is long."""
    try:
        mapping = Mapping.read({"task": {"value": "t"}, "context": context, "rubric": task}, when=one, id_=one)
    except MappingError:
        return
    try:
        asked = mapping.asked(event)
    except InvalidRequest as error:
        assert len(str(error)) < 3_000
    else:
        assert asked is None or DeliberationRequest.read(asked.fields).digest


def test_a_refusal_repeats_no_large_value() -> None:
    """Neither an event's nor an expression's."""
    mapping = Mapping.read({"task": {"value": "t"}}, id_="a")
    for event in ({"a": "x" * 10**6}, {"a": 10**5_000}, {"a": ["x"] * 10**6}):
        with pytest.raises(InvalidRequest) as refused:
            mapping.asked(event)
        assert len(str(refused.value)) < 500
    with pytest.raises(MappingError) as unread:
        Mapping.read({"task": "[" * 100_000})
    assert len(str(unread.value)) < 1_000
