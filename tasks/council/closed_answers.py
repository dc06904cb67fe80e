"""Closed answers: the form that a task gives to its answer, and how the answer of a proposal is read.

Where a task says what form its answer has (`answer_format`), its members are asked for structured output: a short
reason, then the answer, which no server that knows such output can leave out or cut off. It is written out as a text
that ends with a line `ANSWER: ...`, and the last such line of a proposal is its answer; one in a quotation or in a code
fence may be another's, and counts only where there is no other. Models write that line in many ways; each that means
one thing is read, and none that could mean two.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from tasks.council.base import Frozen, digest, without_nul
from tasks.council.exceptions import WrongUse
from tasks.council.fences import outside_fences, outside_quotes

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
_UNITS = (
    *("mm", "cm", "km", "mi", "miles", "ft", "feet", "in", "inches", "metres", "meters", "kilometres", "kilometers"),
    *("mg", "g", "kg", "grams", "kilograms", "lb", "oz", "ml", "cl", "l", "litres", "liters"),
    *("ms", "s", "sec", "seconds", "min", "minutes", "h", "hours", "days", "weeks", "months", "years"),
    *("m2", "m3", "cm2", "cm3", "km2", "m/s", "m/s2", "km/h", "mph", "\u00b0", "\u00b0C", "\u00b0F", "degrees"),
    *("J", "kJ", "W", "kW", "V", "A", "Hz", "N", "Pa", "USD", "EUR", "dollars", "euros", "pounds", "percent"),
)
_RAISED_AFTER = ("m", "s")
"""Letters that a unit's power stands behind."""
_UNIT = re.compile(rf"^(\S+?)\s?(?:{'|'.join(map(re.escape, _UNITS))})$")
"""A number with a unit that does not change it; `5 m` may be metres or millions, and `1/2` is a half."""
_NUMBER = re.compile(
    r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d*)?(?:e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII
)
_SIGNED_CURRENCY = re.compile(r"^([+-])[$\u20ac\u00a3] ?(?=[\d.])")
_EXACT = Context(prec=4 * MAX_DIGITS)
REASON = 300
"""Characters of the reason before a structured answer."""
MIN_REASON = 20
SHORT_TEXT = 200
"""Characters of a structured answer that is an exact text."""
FRAME = 40
"""Tokens of a structured answer beside its reason and the answer; of these, a character may take one."""

AnswerText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ANSWER),
    AfterValidator(without_nul),
]


class Choice(Frozen):
    """One of the options; case, surrounding quotes and a final full stop do not matter."""

    type: Literal["choice"] = "choice"
    options: tuple[AnswerText, ...] = Field(fail_fast=True, min_length=2, max_length=100)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        folded = [_folded(option) for option in self.options]
        if len(set(folded)) < len(folded) or not all(folded):
            raise ValueError("options: they have to differ in more than case, quotes and a final full stop")
        return self

    @property
    def value_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return {"type": "string", "enum": list(self.options)}

    @property
    def longest(self) -> int:
        """Characters of the longest answer of that schema."""
        return max(map(len, self.options))

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return f"one of {', '.join(' '.join(option.split()) for option in self.options)}"

    def shown_to(self, reader: str) -> Choice:
        """The same choice in an order of this reader's own: so no place in the list gains from what many prefer."""
        drawn = sorted(self.options, key=lambda option: digest(["option", reader, option]))
        return self.model_copy(update={"options": tuple(drawn)})

    def normalise(self, text: str) -> str | None:
        """The option that is meant, None if it is none of them; a letter before it, as in `b) no`, does not matter."""
        known = {_folded(option): option for option in self.options}
        if (meant := known.get(_folded(text))) is not None:
            return meant
        lettered = _LETTERED.match(_bare(text))
        if lettered is None:
            return None
        named = {known.get(lettered[1].casefold()), known.get(_folded(lettered[2]))} - {None}
        return named.pop() if len(named) == 1 else None  # with a letter for an option it may name two


class Number(Frozen):
    """A decimal number; commas between thousands, trailing zeros, a unit, a currency or per cent sign do not matter."""

    type: Literal["number"] = "number"

    LARGEST: ClassVar[Decimal] = Decimal("999999999999999.999999999")
    STEP: ClassVar[Decimal] = Decimal("0.000000001")
    """Between two numbers that a structured answer can be."""

    @property
    def value_schema(self) -> dict[str, Any]:
        """JSON schema of the answer: a text, since models write digits without end where a number may have any."""
        return {"type": "string", "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$"}

    @property
    def longest(self) -> int:
        """Characters of the longest answer of that schema."""
        return len(f"-{self.LARGEST}")

    @property
    def wanted(self) -> str:
        """What members are told to write."""
        return "a decimal number without a unit"

    def normalise(self, text: str) -> str | None:
        """The number without exponent, thousands marks or trailing zeros; None if it is none."""
        if _has_raised_digits(text):
            return None
        bare = _bare(text).replace("\u2212", "-").strip("$\u20ac\u00a3% \u00a0")
        bare = _SIGNED_CURRENCY.sub(r"\1", bare)
        unit = None if _NUMBER.fullmatch(bare) else _UNIT.match(bare)
        if unit and _NUMBER.fullmatch(unit[1]):
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
    def value_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return {"type": "string", "minLength": 1, "maxLength": SHORT_TEXT}

    @property
    def longest(self) -> int:
        """Characters of the longest answer of that schema."""
        return SHORT_TEXT

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
    """What the members of a closed task are told where their server knows no structured output."""
    return f"End your text with one line `ANSWER: ` followed by {form.wanted}."


def can_be_given(answer: str, form: AnswerFormat) -> bool:
    """Whether members can give this answer: its line is read as it, and the schema of answers has room for it."""
    meant = form.normalise(answer)
    if meant is None or answer_of(f"ANSWER: {answer}", form) != meant:
        return False
    schema = form.value_schema
    return len(meant) <= schema.get("maxLength", MAX_ANSWER) and re.search(schema.get("pattern", ""), meant) is not None


def answer_schema(form: AnswerFormat, max_tokens: int) -> dict[str, Any]:
    """JSON schema of a structured answer, a reason first, since a model answers better once it has thought.

    The longest text that it allows fits into `max_tokens`, at a token a character: an exact text gives way before the
    reason is shorter than `MIN_REASON`, a choice and a number cannot.
    """
    answer = form.value_schema
    if "maxLength" in answer:
        answer = {**answer, "maxLength": max(1, min(answer["maxLength"], max_tokens - FRAME - MIN_REASON))}
    room = max_tokens - answer.get("maxLength", form.longest) - FRAME
    reason = {"type": "string", "minLength": 1, "maxLength": max(MIN_REASON, min(REASON, room))}
    properties = {"reason": reason, "answer": answer}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def written_out(text: str, form: AnswerFormat) -> str:
    """A structured answer as a text that ends with its line `ANSWER: ...`; any other text as it is."""
    try:
        found = json.loads(text, strict=False)
        answer = found["answer"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return text
    if isinstance(answer, float) and not isfinite(answer):
        return text
    said = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    if not isinstance(said, str) or form.normalise(said) is None:
        return text
    reason = found.get("reason")
    line = f"ANSWER: {' '.join(said.split())}"
    return f"{reason.strip()}\n\n{line}" if isinstance(reason, str) and reason.strip() else line


def closed_instruction(form: AnswerFormat) -> str:
    """What the members of a closed task are told where nothing else is asked of them."""
    return f"You answer with a short reason and then {form.wanted}."


def answer_of(text: str, form: AnswerFormat) -> str | None:
    """The normalised answer of a proposal; None without one that can be read.

    It stands on the last line `ANSWER: ...`, without one in the last `\\boxed{...}`; one that is quoted or fenced
    counts where there is no other. A text that is nothing but an option or a number is the answer by itself.
    """
    said = _said_in(outside_fences(outside_quotes(text)))
    if said is None:
        said = _said_in(text)
    if said is None:
        said = "" if isinstance(form, TextExact) or "\n" in text.strip() else text.strip()
    if isinstance(form, Choice) and (meant := form.normalise(said[:MAX_ANSWER])) is not None:
        return meant  # an option may itself begin and end with such marks, as __init__ does
    said = _within(said, _QUOTED if isinstance(form, TextExact) else _AROUND)
    return form.normalise(said) if 0 < len(said) <= MAX_ANSWER else None


def _said_in(text: str) -> str | None:
    """What stands in the place of an answer; None where there is no such place."""
    if lines := _LINE.findall(text):
        return _without_emphasis(*lines[-1])
    boxed: list[str] = _BOXED.findall(text)
    return boxed[-1] if boxed else None


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


def _has_raised_digits(text: str) -> bool:
    """Whether there are digits that their plain form makes others of: 10\u00b2 is not 102, though m\u00b2 is m2."""
    return any(
        unicodedata.category(sign) == "No" and text[max(0, place - 1) : place] not in _RAISED_AFTER
        for place, sign in enumerate(text)
    )


def _bare(text: str) -> str:
    """The text in its plain form, without surrounding quotes, brackets and a final full stop."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return plain.strip("\"'`()[]{}\u2018\u2019\u201c\u201d ").removesuffix(".").strip("\"'`\u2018\u2019\u201c\u201d ")


def _folded(text: str) -> str:
    return _bare(text).casefold()
