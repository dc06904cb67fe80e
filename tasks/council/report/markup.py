"""Markdown around text of models and users, of which nothing is rendered as Markdown or HTML.

Such text stands in a fenced block whose fence is longer than any run of backticks inside, in an escaped table
cell, or one click away: then as one line of HTML, since a Markdown parser ends a block of HTML at a blank line
and Prefect's first UI lets a fenced block fall out of it. Line ends are character references in there.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence

from tasks.council.plain import plain

MAX_SHOWN = 20_000
"""Characters of one text that a report shows; the whole text is on the record."""
WIDTH = 76
"""Columns that both of Prefect's UIs show without scrolling."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~:$@.-])")
_ADDRESS = re.compile(r"\\:(?=/)|\bwww(?=\\\.)|\\@(?=\w)", re.IGNORECASE)
"""Where a bare address is parted: Prefect's second UI makes links of text whose characters are escaped."""
_CELL = str.maketrans("<>[]", "\u2039\u203a()")
_WRAP = textwrap.TextWrapper(width=WIDTH, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)


def escape(text: str, most: int | None = None) -> str:
    """Text for one line of Markdown, at most so many characters of it."""
    line = " ".join(_plain(text).split())
    cut = line if most is None or len(line) <= most else f"{line[:most]} [...]"
    return _ADDRESS.sub(r"\g<0><wbr>", html.escape(_SPECIAL.sub(r"\\\1", cut), quote=False))


def cell(text: str, most: int) -> str:
    """Text for a table artifact, whose cells are Markdown in one of the UIs and plain text in the other."""
    shown = " ".join(_plain(text).split())[:most].translate(_CELL)
    return re.sub(r":(?=//)|\bwww(?=\.)|@(?=\w)", "\\g<0>\u2060", shown, flags=re.IGNORECASE)


def fenced(text: str) -> str:
    """Text as a code block that it cannot leave, with long lines wrapped, since the block would not."""
    shown = wrapped(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def folded(summary: str, text: str, *inside: str) -> str:
    """A summary, behind it a text and further folded ones; one line of HTML.

    What is inside is set apart by its face alone, since neither margins nor lists show in both of the UIs.
    """
    line = _html(" ".join(_plain(summary).split()))
    head = f"<strong>{line}</strong>" if inside else line
    return f"<details><summary>{head}</summary><pre>{_html(wrapped(text))}</pre>{''.join(inside)}</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; a column whose name begins with `>` is flushed right."""
    names = [column.removeprefix(">") for column in columns]
    rule = [_rule(column) for column in columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *rows))


def _rule(column: str) -> str:
    return "---:" if column.startswith(">") else "---"


def wrapped(text: str) -> str:
    """Text cut to what is shown, its long lines wrapped where they have blanks."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n[...]"
    return "\n".join(map(_wrapped_line, _plain(cut).split("\n")))


def _wrapped_line(line: str) -> str:
    if len(line) <= WIDTH:
        return line  # as it is: filling would drop blanks at its end
    return _WRAP.fill(line)


def _html(text: str) -> str:
    return html.escape(text).replace("\n", "&#10;")


def _plain(text: str) -> str:
    """Text with one kind of line end and without characters that act on a reader's screen."""
    lines = map(plain, text.splitlines())
    return "\n".join(lines)
