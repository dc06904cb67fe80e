"""Text of others as plain text: nothing in it acts on a terminal, a log or a database that it comes to."""

from __future__ import annotations

from tasks.council.base import SHOWN_ERROR, shortened


def plain(text: str) -> str:
    """Text without what a terminal would act on: no escapes or other controls, no marks that turn its direction."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def one_line(text: str, most: int = SHOWN_ERROR) -> str:
    """The beginning of a text as one plain line, for an error or a name; `most` characters of it."""
    return plain(" ".join(shortened(text, most).split()))


def sound(text: str) -> str:
    """Text that every reader can take: halves of a character that stand together are joined, lone ones and NUL shown.

    JSON can hold the halves apart (`"\\\\ud83d"`), and a stream may bring them in two pieces.
    """
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")
