"""Text of others as plain and short text: nothing in it acts on a terminal, a log or a database that it comes to."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

SHOWN_INPUT = 200
"""Characters of an input that a refusal repeats."""
SHOWN_BRIEFLY = 300
"""Characters of an error that is told beside others, of which there may be many."""
SHOWN_ERROR = 2_000
"""Characters of a refusal, or of another error's text."""


JOINERS = "\u200c\u200d"
"""Invisible, and needed: words of Persian and families of emoji fall apart without them."""


def plain(text: str) -> str:
    """Text without what a terminal would act on: no escapes or other controls, no marks that turn its direction.

    Blanks of other scripts (no-break, narrow, ideographic) become blanks, so that no words run together.
    """
    return text if text.isprintable() else "".join(map(_plain, text))


def _plain(char: str) -> str:
    if char.isprintable() or char in "\n\t" or char in JOINERS:
        return char
    return " " if unicodedata.category(char) == "Zs" else ""


def shortened(text: str, most: int = SHOWN_ERROR) -> str:
    """At most so many characters of a text, and a note of how many are left out."""
    return text if len(text) <= most else f"{text[:most]} [and {len(text) - most:,} more characters]"


def one_line(text: str, most: int = SHOWN_ERROR) -> str:
    """The beginning of a text as one plain line, for an error or a name; `most` characters of it."""
    return plain(" ".join(shortened(text, most).split()))


def error_line(error: BaseException, most: int = SHOWN_BRIEFLY) -> str:
    """The class of an error and `most` characters of its text, as one plain line."""
    name, text = type(error).__name__, one_line(str(error), most)
    return f"{name}: {text}" if text else name


def sound(text: str) -> str:
    """Text that every reader can take: halves of a character that stand together are joined, lone ones and NUL shown.

    JSON can hold the halves apart (`"\\ud83d"`), and a stream may bring them in two pieces.
    """
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")


def plain_json(value: Any) -> str:
    """A document for a terminal or a pipe: readable in every script, and what a terminal would act on is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(map(_readable, text))


def _readable(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    return json.dumps(char)[1:-1]
