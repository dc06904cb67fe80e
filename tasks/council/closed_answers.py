"""Closed answers: the form that a task gives to its answer, and how the answer of a proposal is read, strictly.

Where a task says what form its answer has (`answer_format`), its members are told to end with a line
`ANSWER: ...`, and the last such line of a proposal is its answer.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Context, Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tasks.council.base import Frozen
from tasks.council.exceptions import WrongUse

MAX_ANSWER = 1000
"""Characters of an answer; a longer line is none."""
MAX_DIGITS = 60

_LINE = re.compile(r"^[ \t>#-]*([*_`]*)answer[*_`]*[ \t]*[:\uff1a](.*)$", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d*)?(?:e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_EXACT = Context(prec=4 * MAX_DIGITS)

AnswerText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ANSWER)]


class Choice(Frozen):
    """One of the options; case, surrounding quotes and a final full stop do not matter."""

    type: Literal["choice"] = "choice"
    options: tuple[AnswerText, ...] = Field(min_length=2, max_length=100)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        folded = [_folded(option) for option in self.options]
        if len(set(folded)) < len(folded) or not all(folded):
            raise ValueError("options: they have to differ in more than case, quotes and a final full stop")
        return self

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return f"one of {', '.join(' '.join(option.split()) for option in self.options)}"

    def normalise(self, text: str) -> str | None:
        """The option that is meant, None if it is none of them."""
        folded = _folded(text)
        return next((option for option in self.options if _folded(option) == folded), None)


class Number(Frozen):
    """A decimal number; commas between thousands, trailing zeros and a currency or per cent sign do not matter."""

    type: Literal["number"] = "number"

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return "a decimal number without a unit"

    def normalise(self, text: str) -> str | None:
        """The number without exponent, thousands marks or trailing zeros; None if it is none."""
        bare = _bare(text).replace("\u2212", "-").strip("$\u20ac\u00a3% \u00a0")
        if len(bare) > MAX_DIGITS or not _NUMBER.fullmatch(bare):
            return None
        try:
            value = Decimal(bare.replace(",", "")).normalize(_EXACT)
        except InvalidOperation:
            return None
        if value == 0:
            return "0"  # and not -0
        if abs(value.adjusted()) > MAX_DIGITS:
            return str(value)  # with its exponent, which written out would be any number of zeros
        return f"{value:f}"


class TextExact(Frozen):
    """Text that has to be the same, but for the amount of white space."""

    type: Literal["text-exact"] = "text-exact"

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return "the exact text of your answer, on this one line"

    def normalise(self, text: str) -> str | None:
        """The text with single blanks; None if nothing is left."""
        return " ".join(text.split()) or None


AnswerFormat = Annotated[Choice | Number | TextExact, Field(discriminator="type")]
"""What `answer_format` of a task may be: `{"type": "choice", "options": [...]}`, `number` or `text-exact`."""


def format_of(text: str) -> dict[str, Any]:
    """The `answer_format` that a command line means: `number`, `text-exact`, or a choice's options, `yes,no`.

    Raises WrongUse.
    """
    if text in (kinds := ("number", "text-exact")):
        return {"type": text}
    options = [option.strip() for option in text.split(",") if option.strip()]
    if len(options) < 2:
        known = f"neither {' nor '.join(kinds)}, nor the options of a choice, such as yes,no"
        raise WrongUse(f"answer_format: {text!r} is {known}")
    return {"type": "choice", "options": options}


def answer_instruction(form: AnswerFormat) -> str:
    """What the members of a closed task are told, so that their answer can be read."""
    return f"End your text with one line `ANSWER: ` followed by {form.wanted}."


def answer_of(text: str, form: AnswerFormat) -> str | None:
    """The normalised answer on the last line `ANSWER: ...` of a proposal; None without one that can be read."""
    lines = _LINE.findall(text)
    said = _without_emphasis(*lines[-1]) if lines else ""
    return form.normalise(said) if 0 < len(said) <= MAX_ANSWER else None


def without_answer(text: str) -> str:
    """The text without its `ANSWER: ...` lines."""
    return _LINE.sub("", text)


def _without_emphasis(opened: str, text: str) -> str:
    """What stands behind `ANSWER:`, without the Markdown around it or around the whole line."""
    said = text.strip()
    if opened and said.startswith(opened):
        said = said.removeprefix(opened).strip()
    elif opened:
        said = said.removesuffix(opened).strip()
    for mark in ("**", "`"):
        if len(said) > 2 * len(mark) and said.startswith(mark) and said.endswith(mark):
            said = said.removeprefix(mark).removesuffix(mark).strip()
    return said


def _bare(text: str) -> str:
    """The text in its plain form, without surrounding quotes, brackets and a final full stop."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return plain.strip("\"'`()[]{}\u2018\u2019\u201c\u201d ").removesuffix(".").strip("\"'` ")


def _folded(text: str) -> str:
    return _bare(text).casefold()
