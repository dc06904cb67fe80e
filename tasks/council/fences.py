"""Code fences of Markdown in a text (CommonMark 0.31, 4.5), in one pass over it."""

from __future__ import annotations

import re
from typing import NamedTuple

FENCE = r"(?:^|(?<=think>)|(?<=thinking>))[ \t>]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})"
"""The beginning of a line that opens or closes a fence, with re.IGNORECASE and re.MULTILINE.

What stands behind it is not captured: many on one line would capture the same text again and again.
"""
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_BLANK = re.compile(r"[^\S\n]*(?:\n|\Z)")
_FENCE = re.compile(FENCE, re.IGNORECASE | re.MULTILINE)


class Block(NamedTuple):
    """A closed code fence: its language in lower case, its text, and the line and character that the text starts at."""

    language: str
    code: str
    line: int
    start: int


def can_close(text: str, token: re.Match[str]) -> bool:
    """Whether nothing stands behind a fence in its line."""
    return _BLANK.match(text, token.end()) is not None


def fenced_blocks(text: str) -> tuple[list[Block], bool]:
    """The closed code fences of a text, and whether each is closed: by its own mark, or more of it."""
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    line = counted = 0
    for token in _FENCE.finditer(text):
        if opened is None:
            opened = token
        elif token["fence"].startswith(opened["fence"]) and can_close(text, token):
            end = text.find("\n", opened.end())
            start = end + 1 if end >= 0 else len(text)
            line += text.count("\n", counted, start)
            counted = start
            words = text[opened.end() : start].split()
            language = words[0].strip("{.}").lower() if words else ""
            blocks.append(Block(language, text[start : token.start()], line + 1, start))
            opened = None
    return blocks, opened is None


def outside_fences(text: str) -> str:
    """The text without what stands in its closed code fences."""
    kept, end = [], 0
    for block in fenced_blocks(text)[0]:
        kept.append(text[end : block.start])
        end = block.start + len(block.code)
    return "".join([*kept, text[end:]])


def outside_quotes(text: str) -> str:
    """The text without its lines that are quoted."""
    return _QUOTED.sub("", text)
