"""Questions whose answers can be checked: one JSON object a line, each with the check that says what is right.

Checks read a text and never run it. `exact` and `numeric` look at its closed answer, the line `ANSWER: ...`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from tasks.council.base import MAX_TEXT, NAME_RULE, Frozen, Name, Text
from tasks.council.closed_answers import (
    MAX_DIGITS,
    AnswerFormat,
    AnswerText,
    Choice,
    Number,
    TextExact,
    answer_of,
    can_be_given,
)
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import MAX_ITEMS, Brief
from tasks.council.problems import first_problem

MAX_LINE = 4_000_000
"""Characters of a line, which is read in one go."""
FLAGS = {letter: re.RegexFlag[letter] for letter in "AIMSX"}

_TYPES = {"check": "exact, numeric, regex, predicate", "answer_format": "choice, number, text-exact"}
_KINDS = {
    "missing": "is missing",
    "string_type": "has to be a text",
    "tuple_type": "has to be a list",
    "dict_type": "has to be an object",
    "model_type": "has to be an object",
    "model_attributes_type": "has to be an object",
}
"""What is wrong, by pydantic's name for it."""

Numeral = Annotated[Decimal, Field(max_digits=MAX_DIGITS)]


class Verdict(NamedTuple):
    """Whether a text passed its check; `problem` says why the check could not tell, which counts as wrong."""

    right: bool
    problem: str | None = None


class Exact(Frozen):
    """The closed answer is this one; with `options` it is one of them, and case does not matter."""

    type: Literal["exact"]
    answer: AnswerText
    options: tuple[AnswerText, ...] | None = None

    @field_validator("options")
    @classmethod
    def _distinct(cls, options: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return options and Choice(options=options).options
        except ValidationError as error:
            raise ValueError(first_problem(error).text) from error

    @property
    def form(self) -> AnswerFormat:
        """The form that it gives to the answer."""
        return Choice(options=self.options) if self.options else TextExact()


class Numeric(Frozen):
    """The closed answer is a number no further than `tolerance` from this one."""

    type: Literal["numeric"]
    answer: Numeral
    tolerance: Annotated[Numeral, Field(ge=0)] = Decimal(0)

    @property
    def form(self) -> AnswerFormat:
        """The form that it gives to the answer."""
        return Number()

    @property
    def can_be_met(self) -> bool:
        """Whether a number that members can give lies within the tolerance."""
        places = self.answer.quantize(Number.STEP, context=Context(prec=2 * MAX_DIGITS))
        nearest = max(-Number.LARGEST, min(places, Number.LARGEST))
        return self.is_met_by(nearest)

    def is_met_by(self, given: Decimal | str) -> bool:
        """Whether a number lies within the tolerance."""
        return abs(Fraction(given) - Fraction(self.answer)) <= Fraction(self.tolerance)


class Regex(Frozen):
    """The pattern is found in the text, of which the last 100 000 characters are searched.

    `flags` are letters of Python's inline flags: a, i, m, s, x. A pattern may take for ever to be compiled, and to be
    searched for: both are done in a process that can be ended, and nothing is here, where a file is read.
    """

    type: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=10_000)
    flags: str = ""

    @field_validator("flags")
    @classmethod
    def _known(cls, flags: str) -> str:
        if unknown := sorted({letter for letter in flags if letter.upper() not in FLAGS}):
            raise ValueError(f"{', '.join(unknown)} is unknown; the flags are a, i, m, s and x")
        return flags

    def found_in(self, text: str) -> bool:
        """Whether it is found. Raises as `compiled` does."""
        return self.compiled().search(text[-MAX_TEXT:]) is not None

    def compiled(self) -> re.Pattern[str]:
        """The pattern. Raises re.error, ValueError, RecursionError or OverflowError where it is none."""
        flags = re.NOFLAG
        for letter in self.flags:
            flags |= FLAGS[letter.upper()]
        return re.compile(self.pattern, flags)


class Predicate(Frozen):
    """A function of the user's own says so: `checks.py:is_valid`, the path relative to the questions' folder."""

    type: Literal["predicate"]
    function: str

    @field_validator("function")
    @classmethod
    def _named(cls, function: str) -> str:
        path, _, name = function.rpartition(":")
        if not path.endswith(".py") or not name.isidentifier():
            raise ValueError(f"{function!r} names no function; one is named like checks.py:is_valid")
        return function

    @property
    def file(self) -> str:
        """The path of its file."""
        return self.function.rpartition(":")[0]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.rpartition(":")[2]


Check = Annotated[Exact | Numeric | Regex | Predicate, Field(discriminator="type")]


class Question(Brief):
    """A task with its check."""

    id: Name
    task: Text
    check: Check

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check, form = self.check, self.form
        if isinstance(check, Exact):
            if self.answer_format and check.options:
                raise ValueError("check.options: the question has an answer_format already; give one of both")
            assert form is not None, "the check implies one"
            if not can_be_given(check.answer, form):
                raise ValueError(f"check.answer: {check.answer!r} can never be given; {_wanted(form)}")
        elif isinstance(check, Numeric):
            if not isinstance(form, Number):
                raise ValueError('answer_format: a numeric check needs {"type": "number"}, which it implies')
            if not check.can_be_met:
                raise ValueError(f"check.answer: no number that can be given is so near to it; {_wanted(form)}")
        return self

    @property
    def form(self) -> AnswerFormat | None:
        """The form of its closed answer: its own, or the one that its check implies; None where it is open."""
        if self.answer_format or not isinstance(self.check, Exact | Numeric):
            return self.answer_format
        return self.check.form

    def as_item(self) -> dict[str, Any]:
        """What a council is asked: the question without its check."""
        item = self.model_dump(mode="json", exclude={"check", "answer_format"}, exclude_defaults=True)
        return item | ({"answer_format": self.form.model_dump(mode="json")} if self.form else {})

    def is_right(self, text: str) -> bool:
        """Whether the text passes the check. Raises TypeError for a predicate, which only its own code can tell."""
        check, form = self.check, self.form
        if isinstance(check, Regex):
            return check.found_in(text)
        if form is None or isinstance(check, Predicate):
            raise TypeError(f"{self.id}: its check is a function of the user's")
        given = answer_of(text, form)
        if given is None:
            return False
        if isinstance(check, Exact):
            return given == form.normalise(check.answer)
        return check.is_met_by(given)


def _wanted(form: AnswerFormat) -> str:
    room = "" if isinstance(form, Choice) else f" of at most {form.longest} characters"
    return f"the form wants {form.wanted}{room}"


def read_questions(lines: Iterable[str], source: str = "questions") -> dict[int, Question]:
    """Questions by line number, from 1; blank lines are left out, a question without an id is called `line-N`.

    Raises InvalidRequest that names the source, the line and the field, and says what would be right.
    """
    questions: dict[int, Question] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        if len(line) > MAX_LINE:
            raise InvalidRequest(where, f"is longer than {MAX_LINE:,} characters")
        if len(questions) == MAX_ITEMS:
            raise InvalidRequest(source, f"more than {MAX_ITEMS} questions are too many to be asked at once")
        question = questions[number] = _read(line, number, where)
        if question.id in first:
            raise InvalidRequest(f"{where}: id", f"{question.id!r} is the id of line {first[question.id]} already")
        first[question.id] = number
    if not questions:
        raise InvalidRequest(source, 'there is no question; one is a line {"task": ..., "check": {"type": ...}}')
    return questions


def _read(line: str, number: int, where: str) -> Question:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()
        exact = json.loads(line, parse_float=Decimal)  # a check's numbers have the digits that they are written with
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(where, f"is no JSON; a question is one JSON object on one line ({error})") from error
    if not isinstance(fields, dict):
        raise InvalidRequest(where, 'is no JSON object; a question is {"task": ..., "check": {"type": ...}}')
    try:
        given = {"check": exact["check"]} if "check" in exact else {}
        return Question.model_validate({"id": f"line-{number}", **fields, **given})
    except ValidationError as error:
        raise InvalidRequest(*_in_words(error, where)) from error


_MODELS: dict[str, type[Frozen]] = {"exact": Exact, "numeric": Numeric, "regex": Regex, "predicate": Predicate}


def _in_words(error: ValidationError, where: str) -> tuple[str, str]:
    """Field and problem of the first thing that is wrong."""
    found = first_problem(error)
    kind, path = found.kind, [str(part) for part in found.path]
    problem = _KINDS.get(kind, found.text)
    model: type[Frozen] = Question
    if path[:1] == ["check"] and len(path) > 1:
        model = _MODELS[path.pop(1)]
    if kind == "extra_forbidden":
        what = f"a {path[0]}" if path[0] == "check" else "a question"
        problem = f"is no field of {what} like this; the fields are {', '.join(model.model_fields)}"
    elif kind in ("union_tag_not_found", "union_tag_invalid"):
        path, problem = [*path, "type"], f"is one of {_TYPES[path[-1]]}"
    elif kind == "string_pattern_mismatch":
        problem = f"{found.given!r} is no id; one is {NAME_RULE}"
    elif kind == "value_error":
        path, problem = _with_named_field(path, problem)
    return f"{where}: {'.'.join(path)}", problem


def _with_named_field(path: list[str], problem: str) -> tuple[list[str], str]:
    """The path with the field that a rule's message begins with, `check.options: ...`, and the message without it."""
    named = re.match(r"[a-z_.]+(?=: )", problem)
    if named is None:
        return path, problem
    field = named[0]
    if path[-1:] != [field]:
        path = path + field.split(".")
    return path, problem.removeprefix(f"{field}: ")
