"""What a model server returned, read strictly: the answer, the thinking, and whether it may be used.

Thinking is told from the answer by its tags, also where a server without a reasoning parser left them in,
and where the prompt's template opened them. Tags in a closed code fence or in inline code belong to the
answer. One pass over the tokens that matter (tags, fences, backticks) keeps the time linear. Model families begin
their answers with marks of their own, which `_in_tags` translates first: Mistral's Magistral, Cohere's Command, Kimi,
Seed, and the channels of gpt-oss (OpenAI's Harmony format).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.council.base import Frozen
from tasks.council.fences import FENCE, can_close
from tasks.council.models import MemberStatus

_TAG = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
_FAMILIES = (
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<seed:think>", "</seed:think>"),
)
"""Other marks of thinking, by how their models begin an answer; anywhere else they are text like any other."""
_CHANNEL = re.compile(
    r"(?:\A|<\|start\|>[a-z]{0,32})<\|channel\|>(?P<name>[a-z]{1,32})[^<]{0,200}"
    r"(?:<\|constrain\|>[a-z]{0,32})?<\|message\|>"
    r"|<\|(?:end|return|call)\|>"
)
"""Where a channel of Harmony begins and ends; `final` is the answer, all others are thinking."""
_HARMONY = ("<|channel|>", "<|start|>")
_TOKEN = re.compile(
    r"(?P<tag></?think(?:ing)?>)"
    rf"|{FENCE}"
    r"|(?P<run>`+)",
    re.IGNORECASE | re.MULTILINE,
)
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_UNSAFE = {**_CONTROLS, **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
_PASSES = 3


class Reply(Frozen):
    """One model answer; `reason` says in a sentence why it is not ok."""

    status: MemberStatus
    content: str
    reasoning: str | None
    reason: str | None


def read_reply(content: str | None, finish_reason: str | None, reasoning: str | None = None) -> Reply:
    """Read the `content`, `finish_reason` and `reasoning` of one choice; None counts as no text."""
    answer, thinking = split_thinking(_in_tags(_clean(content)))
    thoughts = [part for part in (_clean(reasoning).strip(), thinking) if part]
    status, reason = _judge(answer, finish_reason, thought=bool(thoughts))
    return Reply(status=status, content=answer, reasoning="\n\n".join(thoughts) or None, reason=reason)


def split_thinking(text: str) -> tuple[str, str]:
    """The answer in a text and the thinking in it, both without surrounding blanks.

    All before a closing tag that nothing opened is thinking, and all after an opening one that is never
    closed. Cutting can put a new tag together, so the answer is read again; what is still there after three
    readings was put there to be found, and every tag goes.
    """
    thoughts: list[str] = []
    for _ in range(_PASSES):
        if not _TAG.search(text):
            break
        text, found = _cut(text)
        if not found:
            break
        thoughts += found
    else:
        text = _TAG.sub(" ", text)
    return text.strip(), "\n\n".join(part for thought in thoughts if (part := thought.strip()))


def visible_tags(text: str) -> list[str]:
    """The thinking tags in a text that do not stand in code."""
    return [tag[0] for _, tag in _live_tags(text)] if _TAG.search(text) else []


def _clean(text: str | None) -> str:
    """The text without control characters, encodable as UTF-8."""
    return (text or "").translate(_UNSAFE)


def _in_tags(text: str) -> str:
    """The text with another family's marks of thinking, where it begins with them, as tags."""
    begun = text.lstrip()
    if begun.startswith(_HARMONY):
        return _without_channels(begun)
    for opened, closed in _FAMILIES:
        if begun.startswith(opened):
            return "<think>" + begun.removeprefix(opened).replace(closed, "</think>", 1)
    return text


def _without_channels(text: str) -> str:
    """A text in Harmony's channels: what is not in `final` stands between tags of thinking."""
    pieces: list[str] = []
    start, thinking = 0, False
    for mark in _CHANNEL.finditer(text):
        pieces += [text[start : mark.start()], "</think>" if thinking else ""]
        thinking = mark["name"] not in (None, "final")
        pieces.append("<think>" if thinking else "")
        start = mark.end()
    return "".join([*pieces, text[start:]])


def _judge(answer: str, finish_reason: str | None, *, thought: bool) -> tuple[MemberStatus, str | None]:
    nothing = "only thinking and no answer" if thought else "no text"
    if finish_reason == "length":
        came = "" if answer else f"; there was {nothing} before it"
        return MemberStatus.TRUNCATED, f"The answer was cut off at the token limit{came}."
    if finish_reason is None:
        return MemberStatus.INVALID, "The server gave no finish_reason, so the answer may not be whole."
    if finish_reason != "stop":
        return MemberStatus.INVALID, f"The server ended the answer with finish_reason {finish_reason[:64]!r}."
    if not answer:
        return MemberStatus.EMPTY, f"The model returned {nothing}."
    return MemberStatus.OK, None


def _cut(text: str) -> tuple[str, list[str]]:
    """One reading: what is left of the text, and the stretches of thinking that were cut out."""
    kept: list[str] = []
    thoughts: list[str] = []
    start = previous = 0
    for depth, tag in _live_tags(text):
        stretch = text[start : tag.start()]
        if depth < 0:  # a closing tag that nothing opened: the template did, so all before it is thinking
            thoughts += [*kept, stretch]
            kept.clear()
        else:
            (thoughts if previous > 0 else kept).append(stretch)
        previous, start = max(depth, 0), tag.end()
    found = start > 0
    (thoughts if previous > 0 else kept).append(text[start:])
    return "\n".join(kept), thoughts if found else []


def _live_tags(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """The tags that count, each with the depth of thinking behind it; -1 where nothing was open."""
    tokens = list(_TOKEN.finditer(text))
    ends = _code_ends(text, tokens)
    depth = index = 0
    while index < len(tokens):
        token = tokens[index]
        if token["tag"] is None:
            index = index + 1 if depth else ends.get(index, index) + 1
            continue
        if not (depth and text[token.start() - 1] == "`" == text[token.end() : token.end() + 1]):
            depth += -1 if token[0].startswith("</") else 1
            yield depth, token
            depth = max(depth, 0)
        index += 1


def _code_ends(text: str, tokens: list[re.Match[str]]) -> dict[int, int]:
    """For every token that opens code, the one that closes it; without a closing one it opens nothing."""
    return _fence_ends(text, tokens) | _run_ends(text, tokens)


def _fence_ends(text: str, tokens: list[re.Match[str]]) -> dict[int, int]:
    ends: dict[int, int] = {}
    closing: list[tuple[str, int]] = []  # fences that can close one, the nearest last
    for index in range(len(tokens) - 1, -1, -1):
        fence = tokens[index]["fence"]
        if not fence:
            continue
        closes = next((at for mark, at in reversed(closing) if mark.startswith(fence)), None)
        if closes is not None:
            ends[index] = closes
        if can_close(text, tokens[index]):
            while closing and fence.startswith(closing[-1][0]):
                closing.pop()
            closing.append((fence, index))
    return ends


def _run_ends(text: str, tokens: list[re.Match[str]]) -> dict[int, int]:
    """Of code in a line, which a run of as many backticks closes."""
    ends: dict[int, int] = {}
    runs: dict[str, int] = {}
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index]
        if not (run := token["run"]):
            continue
        other = runs.get(run)
        if other is not None and text.find("\n", token.end(), tokens[other].start()) < 0:
            ends[index] = other
        runs[run] = index
    return ends
