"""Texts of models and users inside a prompt: each is data, and cannot pose as anything else.

A text stands between tags that carry a mark drawn from all texts, which no author can know before the texts are
final, so none can close its own fence or open another. What poses as such a tag, as a token of a chat template, or
hides in invisible characters is shown in another form. This holds the form of the prompt. It does not keep a model
from believing a text that praises itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from tasks.council.base import digest

MAX_PROPOSAL = 20_000
"""Characters of one proposal that a prompt shows of it."""

GIVEN = "given"
"""Tag of what a task brings along: its text, context, rubric, requirements."""

_UNSEEN = r"\u200c\u200d\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f"
_GAP = rf"[\s{_UNSEEN}]{{0,40}}"
_SPECIAL = (
    r"s|[BE]OS_TOKEN|bos|eos|pad|unk|sop|eop|eod|eot|(?:start|end|begin)_of_[a-z]+|fim_(?:prefix|middle|suffix|pad)|seed:\w+"
    r"|tool_calls?|tool_responses?|unused\d+|extra_id_\d+|reserved_\d+|SPECIAL_\d+"
)
_BRACKETED = r"[gs]MASK|/?THINK|TOOL_CONTENT|/?MODEL_SETTINGS|/?CALL_ID|IMG_BREAK|IMG_END|BEGIN_AUDIO"
_POSING = re.compile(
    rf"[<\ufe64\uff1c](?=(?:{_GAP}[/\uff0f]{_GAP}|[{_UNSEEN}]*)(?:proposals?|critiques?|{GIVEN}|think(?:ing)?)\b)"
    rf"|<(?=/?(?-i:{_SPECIAL})>)"
    r"|<(?=[|\uff5c][^|\uff5c<>\n]{1,200}[|\uff5c]>)"
    r"|<(?=\|/?[a-z_]{1,40}>)|<(?=/?[a-z_]{1,40}\|>)"
    r"|<(?=/?minimax:\w{1,40}>)|\](?=<\][a-z_]{1,40}\[>\[)|\[(?=@(?-i:[BE]OS)@\])"
    r"|<(?=</?SYS>>)"
    r"|<(?=/?role>(?-i:(?:HUMAN|ASSISTANT|SYSTEM|OBSERVATION)</role>))"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\])"
    rf"|\[(?=(?-i:{_BRACKETED})\])"
    r"|\[(?=\|(?-i:system|user|assistant|tool|endofturn)\|\])"
    r"|\](?=(?-i:~!?b)[\[\]])|\[(?=(?-i:e~)\[)",
    re.IGNORECASE,
)
"""Tags of the fence or of thinking, and the tokens of chat templates: a tokenizer takes those for the real ones.

Tokens in angle or square brackets are listed by their words, since tags, generics and indices of ordinary code look
like them: `<tool_call>` is Qwen's, `<div>` and `a[PREFIX]` are nobody's turn.
"""
_SHOWN_AS = {"<": "\u2039", "\ufe64": "\u2039", "\uff1c": "\u2039", "[": "\u27e6", "]": "\u27e7"}
_JOINERS = frozenset("\u200c\u200d")
"""Joiners that scripts and emoji need; every other invisible character is named."""
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_SELECTORS = range(0xE0100, 0xE01F0)


def mark_of(texts: Iterable[str], salt: str) -> str:
    """The mark of an item's fences: 16 hex digits of a digest of all its texts, found in none of them."""
    listed = sorted(texts)
    number = 0
    while True:
        mark = digest(["mark", salt, number, listed])[:16]
        if not any(mark in text.lower() for text in listed):
            return mark
        number += 1


def fence(label: str, text: str, mark: str, limit: int = MAX_PROPOSAL, tag: str = "proposal") -> str:
    """A text between its tags, at most `limit` characters of it, and a note of how many are left out."""
    cut = f"\n[{len(text) - limit} more characters are not shown]" if len(text) > limit else ""
    return f'<{tag}-{mark} label="{label}">\n{neutral(text[:limit])}{cut}\n</{tag}-{mark}>'


def given(label: str, text: str, mark: str) -> str:
    """What a task brings along, between its tags and whole."""
    return fence(label, text, mark, limit=len(text), tag=GIVEN)


def neutral(text: str) -> str:
    """The text with nothing in it that poses as a tag or a template's token, and nothing invisible."""
    seen = re.sub(r"\r\n?|[\u0085\u2028\u2029\v\f]", "\n", text)
    if not seen.isascii():
        seen = _show_invisible(seen)
    return _POSING.sub(lambda posing: _SHOWN_AS[posing[0]], seen)


def _show_invisible(text: str) -> str:
    """Every run of invisible characters as a note of how many there are."""
    hidden = {char for char in set(text) if _is_invisible(char)}
    if not hidden:
        return text
    run = re.compile(f"[{''.join(map(re.escape, sorted(hidden)))}]+")
    return run.sub(lambda found: f"[{len(found[0])} invisible]", text)


def _is_invisible(char: str) -> bool:
    if char in _JOINERS:
        return False
    return unicodedata.category(char) in ("Cf", "Co", "Cs") or char in _BLANK or ord(char) in _SELECTORS
