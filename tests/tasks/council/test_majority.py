"""The vote on closed answers."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tasks.council.closed_answers import (
    FRAME,
    MIN_REASON,
    AnswerFormat,
    Choice,
    Number,
    TextExact,
    answer_instruction,
    answer_of,
    answer_schema,
    format_of,
    written_out,
)
from tasks.council.voting.majority import majority

YES_NO = Choice(options=("Yes", "No"))
Form = Choice | Number | TextExact


@pytest.mark.parametrize(
    ("line", "form", "answer"),
    [
        ("ANSWER: yes", YES_NO, "Yes"),
        ("answer : No.", YES_NO, "No"),
        ("**ANSWER:** `YES`", YES_NO, "Yes"),
        ("**ANSWER: no**", YES_NO, "No"),
        ("> ## **Answer**: 'no'", YES_NO, "No"),
        ("ANSWER: maybe", YES_NO, None),
        ("ANSWER:", YES_NO, None),
        ("The answer is: yes", YES_NO, None),
        ("ANSWER: 1,234.50", Number(), "1234.5"),
        ("ANSWER: $ 1234.5", Number(), "1234.5"),
        ("ANSWER: **-0.0**", Number(), "0"),
        ("ANSWER: 1e3", Number(), "1000"),
        ("ANSWER: \u22125", Number(), "-5"),
        ("ANSWER: .5", Number(), "0.5"),
        ("ANSWER: 42.", Number(), "42"),
        ("ANSWER: 12,34", Number(), None),
        ("ANSWER: 1e999999999", Number(), None),
        ("ANSWER: " + "9" * 61, Number(), None),
        ("ANSWER: NaN", Number(), None),
        ("ANSWER: about 5", Number(), None),
        ("ANSWER: __init__", TextExact(), "__init__"),
        ("ANSWER:  two   words ", TextExact(), "two words"),
        ("ANSWER: `x*`", TextExact(), "x*"),
        (r"ANSWER: \boxed{42}", Number(), "42"),
        (r"ANSWER: $\boxed{\text{yes}}$.", YES_NO, "Yes"),
        (r"Therefore \boxed{1,234} it is", Number(), "1234"),
        (r"\boxed{1} or \boxed{2}", Number(), "2"),
        ("ANSWER: *yes*", YES_NO, "Yes"),
        ("ANSWER: ***yes***", YES_NO, "Yes"),
        ("* ANSWER: 42", Number(), "42"),
        ("- **Answer:** no", YES_NO, "No"),
        ("3. ANSWER: no", YES_NO, "No"),
        ("Final answer: no", YES_NO, "No"),
        ("**Final Answer:** (b) no", YES_NO, "No"),
        ("ANSWER: a) yes", YES_NO, "Yes"),
        ("ANSWER: b", YES_NO, None),
        ("ANSWER: A) B", Choice(options=("A", "B")), None),
        ("ANSWER: 42 km", Number(), "42"),
        ("ANSWER: 9.81 m/s2", Number(), "9.81"),
        ("ANSWER: 37 \u00b0C", Number(), "37"),
        *(
            (f"ANSWER: {odd}", Number(), None)
            for odd in ("5 million", "5 m", "1/2", "3x2", "7 mod3", "3 quarters", "5i")
        ),
        ("ANSWER: \u201cno\u201d.", YES_NO, "No"),
        ("ANSWER: 42 or 43", Number(), None),
        ("ANSWER: _private_", TextExact(), "_private_"),
    ],
)
def test_an_answer_is_read_from_its_line(line: str, form: Form, answer: str | None) -> None:
    """Markdown around it and the way of writing it do not matter; anything else is no answer."""
    assert answer_of(f"Because of this.\n\n{line}\n", form) == answer


@pytest.mark.parametrize(
    ("text", "form", "answer"),
    [
        ("Yes.", YES_NO, "Yes"),
        (" 42 ", Number(), "42"),
        ("yes or no", YES_NO, None),
        ("Yes\nno", YES_NO, None),
        ("yes", TextExact(), None),
    ],
)
def test_a_text_that_is_nothing_but_an_answer_is_one(text: str, form: Form, answer: str | None) -> None:
    """Where a form says what an answer looks like; any text could be an exact one."""
    assert answer_of(text, form) == answer


def test_the_last_answer_counts() -> None:
    """Also if it cannot be read: an earlier one was withdrawn."""
    assert answer_of("ANSWER: yes\nOn second thought:\nANSWER: no", YES_NO) == "No"
    assert answer_of("ANSWER: yes\nANSWER: perhaps", YES_NO) is None


def test_the_majority_wins_and_its_best_proposal_is_the_decision() -> None:
    """The checks' first proposal may be in the minority."""
    texts = {"a": "ANSWER: no", "b": "ANSWER: yes", "c": "none", "d": "ANSWER: Yes"}
    result = majority(["a", "d", "b", "c"], texts, YES_NO)
    assert result is not None
    assert (result.answer, result.winner_id, result.unanimous, result.tied) == ("Yes", "d", False, False)
    assert result.votes == {"Yes": ("d", "b"), "No": ("a",)}
    assert result.silent == ("c",)


def test_the_order_of_the_checks_breaks_a_tie() -> None:
    """And the result says that it did."""
    texts = {"a": "ANSWER: 1", "b": "ANSWER: 2", "c": "ANSWER: 2.0", "d": "ANSWER: 1.00"}
    for standing, answer in ((["a", "b", "c", "d"], "1"), (["c", "d", "a", "b"], "2")):
        result = majority(standing, texts, Number())
        assert result is not None
        assert (result.answer, result.winner_id, result.tied) == (answer, standing[0], True)


def test_all_agree_only_if_all_answer() -> None:
    """A silent proposal may be of another opinion."""
    same = majority(["a", "b"], {"a": "ANSWER: 5", "b": "ANSWER: 5.0"}, Number())
    part = majority(["a", "b"], {"a": "ANSWER: 5", "b": "five"}, Number())
    assert same is not None
    assert part is not None
    assert (same.unanimous, part.unanimous) == (True, False)
    assert majority(["a"], {"a": "five"}, Number()) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_a_number_is_the_same_however_it_is_written(value: object) -> None:
    """With marks between thousands, with an exponent, with zeros."""
    plain = answer_of(f"ANSWER: {value}", Number())
    assert plain is not None
    assert {answer_of(f"ANSWER: {written}", Number()) for written in (f"{value:,}", f"{value:e}", f"{value}00")} == {
        plain
    }


@given(st.text(max_size=200), st.sampled_from([YES_NO, Number(), TextExact()]))
def test_an_answer_once_read_reads_as_itself(text: str, form: Form) -> None:
    """Normalising is stable, whatever a model writes."""
    answer = form.normalise(text)
    if answer is not None:
        assert form.normalise(answer) == answer


@pytest.mark.parametrize("form", [YES_NO, Number(), TextExact()])
def test_members_are_told_how_to_answer(form: Form) -> None:
    """In the form that is read."""
    assert "`ANSWER: `" in answer_instruction(form)


def test_a_format_is_told_by_its_type_and_options_must_differ() -> None:
    """What a task may carry as `answer_format`."""
    read = TypeAdapter(AnswerFormat).validate_python
    assert read({"type": "choice", "options": ["Yes", "No"]}) == YES_NO
    assert read({"type": "number"}) == Number()
    for wrong in ({"type": "choice", "options": ["a", "A."]}, {"type": "list"}, {"type": "number", "unit": "m"}):
        with pytest.raises(ValidationError):
            read(wrong)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["\n", " ", "> ", "*", "answer", "answer:", "ANSWER: 1\n", "1,", "\u2028"])
def test_a_hostile_text_is_read_in_bounded_time(part: str) -> None:
    """100 000 characters of anything; what takes quadratic time would run into the limit."""
    text = part * (100_000 // len(part))
    for form in (YES_NO, Number(), TextExact()):
        assert answer_of(text, form) in (None, "1")


def test_a_command_line_names_a_format_in_one_word() -> None:
    """Or by its options."""
    assert format_of("number") == {"type": "number"}
    assert format_of("yes, no,") == {"type": "choice", "options": ["yes", "no"]}
    for text in ("", "numbers", ","):
        with pytest.raises(ValueError, match=r"answer_format: .* is neither number nor text-exact"):
            format_of(text)


@pytest.mark.parametrize(
    ("text", "form", "written"),
    [
        ('{"reason": "It is so.", "answer": "yes"}', YES_NO, "It is so.\n\nANSWER: yes"),
        ('{"answer": "42"}', Number(), "ANSWER: 42"),
        ('{"reason": " ", "answer": 42.5}', Number(), "ANSWER: 42.5"),
        ('{"reason": "x", "answer": "perhaps"}', YES_NO, '{"reason": "x", "answer": "perhaps"}'),
        ('{"reason": "x", "answer": true}', YES_NO, '{"reason": "x", "answer": true}'),
        ("ANSWER: yes", YES_NO, "ANSWER: yes"),
        ("[1]", Number(), "[1]"),
        ("[" * 100_000, Number(), "[" * 100_000),
    ],
)
def test_a_structured_answer_is_written_out_as_a_text_with_its_line(text: str, form: Form, written: str) -> None:
    """So all that reads answers reads it, an older version too; what is none stays as it came."""
    assert written_out(text, form) == written


@pytest.mark.parametrize("form", [YES_NO, Number(), TextExact(), Choice(options=("a", "b" * 900))])
@pytest.mark.parametrize("max_tokens", [64, 400, 2048])
def test_the_longest_answer_that_a_schema_allows_fits_into_the_limit(form: Form, max_tokens: int) -> None:
    """At a token a character; options and numbers cannot give way, where the limit is below them."""
    properties = answer_schema(form, max_tokens)["properties"]
    reason, answer = properties["reason"]["maxLength"], properties["answer"].get("maxLength", form.longest)
    longest = len(json.dumps({"reason": "x" * reason, "answer": "x" * answer}, separators=(",", ":")))
    has_room = not isinstance(form, Choice | Number) or form.longest + MIN_REASON + FRAME <= max_tokens
    assert longest <= max_tokens or not has_room
    assert has_room or reason == MIN_REASON
    assert list(answer_schema(form, max_tokens)["properties"]) == ["reason", "answer"]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_the_schema_of_a_number_takes_numbers(value: object) -> None:
    """As a text with a bounded pattern: models write digits without end where any number will do."""
    schema = Number().value_schema
    assert re.fullmatch(schema["pattern"], str(value))
    assert not re.fullmatch(schema["pattern"], "9" * 40)
