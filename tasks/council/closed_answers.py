"""Closed answers: the form that a task gives to its answer, and how the answer of a proposal is read.

Where a task says what form its answer has (`answer_format`), its members are told to end with a line
`ANSWER: ...`, and the last such line of a proposal is its answer. Models write that line in many ways; each that means
one thing is read, and none that could mean two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tasks.council.base import Frozen
from tasks.council.exceptions import WrongUse

MAX_ANSWER = 1000
"""Characters of an answer; a longer line is none."""
MAX_DIGITS = 60

_LINE = re.compile(
    r"^[ \t>#]*(?:(?:[-+\u2022]|\*(?=[ \t])|\d{1,3}[.)])[ \t]*)?"  # a quote, a heading, an entry of a list
    r"([*_`]*)(?:final[ \t]+)?answer[*_`]*[ \t]*[:\uff1a](.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\{((?:[^{}\n]|\{[^{}\n]{0,200}\}){1,400})\}")
_TEX = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}\n]{0,400})\}")
_QUOTED = (("**", "**"), ("`", "`"))
_AROUND = (*_QUOTED, ("__", "__"), ("*", "*"), ("_", "_"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
"""Marks of Markdown and TeX around an answer; an exact text may begin and end with most of them."""
_LETTERED = re.compile(r"^\(?([A-Za-z])[).:]\s+(.+)$")
_UNIT = re.compile(r"^(\S+)\s?([a-z\u00b0\u00b5/%]{1,12}[\u00b2\u00b32-3]?)$", re.IGNORECASE)
_MANY = frozenset(
    ("k", "m", "mn", "mio", "bn", "b", "t", "dozen", "hundred", "thousand", "million", "billion", "trillion")
)
"""Words behind a number that change it, or may: `5 m` are metres or millions."""
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
        """The option that is meant, None if it is none of them; a letter before it, as in `b) no`, does not matter."""
        known = {_folded(option): option for option in self.options}
        if (meant := known.get(_folded(text))) is not None:
            return meant
        lettered = _LETTERED.match(_bare(text))
        if lettered is None or lettered[1].casefold() in known:  # with a letter for an option it would name two
            return None
        return known.get(_folded(lettered[2]))


class Number(Frozen):
    """A decimal number; commas between thousands, trailing zeros, a unit, a currency or per cent sign do not matter."""

    type: Literal["number"] = "number"

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return "a decimal number without a unit"

    def normalise(self, text: str) -> str | None:
        """The number without exponent, thousands marks or trailing zeros; None if it is none."""
        bare = _bare(text).replace("\u2212", "-").strip("$\u20ac\u00a3% \u00a0")
        unit = None if _NUMBER.fullmatch(bare) else _UNIT.match(bare)
        if unit and unit[2].casefold() not in _MANY and _NUMBER.fullmatch(unit[1]):
            bare = unit[1]
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
    """The normalised answer of a proposal; None without one that can be read.

    It stands on the last line `ANSWER: ...`; without such a line in the last `\\boxed{...}`. A text that is nothing but
    an option or a number is the answer by itself.
    """
    if lines := _LINE.findall(text):
        said = _without_emphasis(*lines[-1])
    elif boxed := _BOXED.findall(text):
        said = boxed[-1]
    else:
        said = "" if isinstance(form, TextExact) or "\n" in text.strip() else text.strip()
    said = _within(said, _QUOTED if isinstance(form, TextExact) else _AROUND)
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
    return said


def _within(said: str, marks: Sequence[tuple[str, str]]) -> str:
    """An answer without what Markdown or TeX put around it, and without a full stop behind that."""
    if re.search(r"[$)\]}*_`]\.$", said):
        said = said.removesuffix(".")
    for _ in range(len(marks)):
        before = said
        if boxed := _BOXED.fullmatch(said):
            said = boxed[1].strip()
        for opened, closed in marks:
            if len(said) > len(opened) + len(closed) and said.startswith(opened) and said.endswith(closed):
                said = said.removeprefix(opened).removesuffix(closed).strip()
        if said == before:
            break
    return _TEX.sub(r"\1", said)


def _bare(text: str) -> str:
    """The text in its plain form, without surrounding quotes, brackets and a final full stop."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return plain.strip("\"'`()[]{}\u2018\u2019\u201c\u201d ").removesuffix(".").strip("\"'` ")


def _folded(text: str) -> str:
    return _bare(text).casefold()
