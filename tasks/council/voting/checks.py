"""Deterministic checks of a proposal, and the ranking that they give.

They see form and vocabulary, not truth: whether the words of the task are taken up, whether code and
configuration parse, whether the text is whole. Each says in its evidence what it saw. Text of a model is
parsed and never executed, and every parser works on a bounded amount of it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from textwrap import dedent

import yaml

from tasks.council.closed_answers import without_answer
from tasks.council.fences import Block, fenced_blocks
from tasks.council.models import Item
from tasks.council.proposal import Check, Proposal, RankedProposal
from tasks.council.replies import visible_tags

COVERED = 0.6
"""Share of the significant words from which on something counts as covered."""
USUAL_WORD = 40
"""Characters."""
MIN_WORDS = 80
MAX_WORDS = 20_000
MAX_CODE = 60_000
"""Characters of code, and as many of YAML, that are parsed in one proposal; blocks beyond them fail."""
BLOCK_COST = 100
"""Characters that a block counts for beside its own."""
MAX_DEPTH = 100
"""Nesting of YAML; its scanner takes quadratic time in the depth."""
NAMED_WORDS = 5
MAX_COMPARED = 100_000
"""Characters of a text that is compared with another."""

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[^\w\s]|_")
TURNING = frozenset(["no", "not", "never", "none", "nor", "neither", "without", "cannot", "yes", "false", "true", "t"])
"""Words of which one turns a sentence round; `t` is what is left of `don't`."""
_STOP_TEXT = """
a about all also an and any are as at be been but by can could do does each for from has have how if in
include includes including into is it its make may more most must need needs no not of on one only or our
out over provide provides shall should so some such than that the their them then there these they this
those to up use used uses using via was we what when where which while who will with would you your
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_PYTHON = ("python", "py", "python3")
_YAML = ("yaml", "yml")
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

Parser = Callable[[str], None]
"""Raises where the text does not parse."""
Words = Mapping[str, Sequence[tuple[str, str]]]
"""The significant words of each text of an item, with their stems."""


class Checks:
    """The checks of an item's proposals, each made once: a text takes 1 ms."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._words: Words = {text: _significant(text) for text in (item.task, item.rubric, *item.requirements) if text}
        self._made: dict[Proposal, tuple[Check, ...]] = {}

    def of(self, proposal: Proposal) -> tuple[Check, ...]:
        """All checks that apply to a proposal; those that have nothing to look at are left out."""
        if proposal not in self._made:
            self._made[proposal] = _made(proposal, self.item, self._words)
        return self._made[proposal]


def _made(proposal: Proposal, item: Item, wanted: Words) -> tuple[Check, ...]:
    """Which answer a closed task gets is no merit: its line is left out of the vocabulary."""
    text = proposal.content
    words = _WORD.findall(without_answer(text) if item.answer_format else text)
    found = {_stem(word) for word in {word.casefold() for word in words}}
    blocks, balanced = fenced_blocks(text)
    checks = (
        _requirements(item.requirements, wanted, found),
        _coverage("rubric", item.rubric, wanted, found),
        _coverage("task_words", item.task, wanted, found),
        _parsing("code", 2, blocks, {**dict.fromkeys(_PYTHON, _parse_python), "json": _parse_json}),
        _parsing("yaml", 1, blocks, dict.fromkeys(_YAML, _parse_yaml)),
        _length(len(words)),
        _no_thinking(text),
        _complete(proposal.finish_reason, balanced),
    )
    return tuple(check for check in checks if check is not None)


def alike(texts: Sequence[str], task: str) -> bool:
    """Whether each two share three quarters of their tokens (Jaccard), and all words that turn a sentence round.

    The task's own words tell nothing, and are left out; texts without others are not alike. Signs count as words do:
    in code one of them may be the difference.
    """
    known = _tokens(task)
    found = [_tokens(text[:MAX_COMPARED]) for text in texts]
    if any(tokens & TURNING != found[0] & TURNING for tokens in found):
        return False
    own = [tokens - known for tokens in found]
    return all(own) and all(_share_most(one, other) for one, other in combinations(own, 2))


def _share_most(one: set[str], other: set[str]) -> bool:
    return 4 * len(one & other) >= 3 * len(one | other)


def _tokens(text: str) -> set[str]:
    return set(_TOKEN.findall(text.casefold()))


def total(checks: Iterable[Check]) -> float:
    """Weighted mean of the scores, 0 to 1."""
    listed = tuple(checks)
    weight = sum(check.weight for check in listed)
    return round(sum(check.score * check.weight for check in listed) / weight, 4) if listed else 0.0


def rank_proposals(proposals: Sequence[Proposal], checks: Checks, salt: str) -> tuple[RankedProposal, ...]:
    """The proposals, best first: whole ones before others, then by score.

    Equal ones are ordered by the SHA-256 of `salt:item:author`, which does not depend on who came first or
    how the council is listed, and which favours nobody over many items.
    """
    scored = [(proposal, made := checks.of(proposal), total(made)) for proposal in proposals]

    def order(entry: tuple[Proposal, tuple[Check, ...], float]) -> tuple[bool, float, str]:
        proposal, _, score = entry
        drawn = hashlib.sha256(f"{salt}:{checks.item.id}:{proposal.author_id}".encode()).hexdigest()
        return proposal.finish_reason != "stop", -score, drawn

    return tuple(
        RankedProposal(proposal=proposal, score=score, rank=rank, checks=made)
        for rank, (proposal, made, score) in enumerate(sorted(scored, key=order), start=1)
    )


# --- words ----------------------------------------------------------------------------------------


def _stem(word: str) -> str:
    """The stem of a word; those of words of a usual length are kept, since they come again and again."""
    return _kept_stem(word) if len(word) <= USUAL_WORD else _rough_stem(word)


def _rough_stem(word: str) -> str:
    """A rough stem: plural, -ing, -ed, final e and doubled letters go, so that forms of a word agree."""
    for ending, instead in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ings", ""), ("ed", ""), ("s", "")):
        start = word.removesuffix(ending)
        if start != word and len(start) >= 3 and not start.endswith("s" if ending == "s" else "e"):
            word = start + instead
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


_kept_stem = lru_cache(maxsize=20_000)(_rough_stem)


def _significant(text: str) -> list[tuple[str, str]]:
    """The significant words of a text; all count if none is significant."""
    words = dict.fromkeys(word.casefold() for word in _WORD.findall(text))
    return [(word, _stem(word)) for word in ([word for word in words if word not in _STOP_WORDS] or words)]


def _missing(wanted: Sequence[tuple[str, str]], found: set[str]) -> tuple[float, list[str]]:
    """Share of the wanted words that were found, and the others."""
    missing = [word for word, stem in wanted if stem not in found]
    return (1 - len(missing) / len(wanted) if wanted else 1.0), missing


def _named(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED_WORDS} more" if len(words) > NAMED_WORDS else ""
    return ", ".join(word[:40] for word in words[:NAMED_WORDS]) + more


def _requirements(requirements: Sequence[str], wanted: Words, found: set[str]) -> Check | None:
    if not requirements:
        return None
    shares = [_missing(wanted[requirement], found) for requirement in requirements]
    covered = sum(share >= COVERED for share, _ in shares)
    evidence = f"{covered} of {len(shares)} requirements covered"
    worst = min(range(len(shares)), key=lambda index: shares[index][0])
    if shares[worst][1]:
        evidence += f"; {requirements[worst][:60]!r} lacks {_named(shares[worst][1])}"
    score = sum(share for share, _ in shares) / len(shares)
    return Check(name="requirements", passed=covered == len(shares), score=score, weight=3, evidence=evidence)


def _coverage(name: str, text: str | None, wanted: Words, found: set[str]) -> Check | None:
    if text is None:
        return None
    share, missing = _missing(wanted[text], found)
    evidence = f"{share:.0%} of its words found" + (f"; not {_named(missing)}" if missing else "")
    return Check(name=name, passed=share >= COVERED, score=share, weight=1, evidence=evidence)


# --- code and configuration -----------------------------------------------------------------------


def _parsing(name: str, weight: float, blocks: Iterable[Block], parsers: Mapping[str, Parser]) -> Check | None:
    """The share of the blocks in some languages that parse, and the first one that does not."""
    listed = [block for block in blocks if block.language in parsers]
    if not listed:
        return None
    errors: list[str] = []
    left = MAX_CODE
    for block in listed:
        cost = len(block.code) + BLOCK_COST
        if cost > left:
            error = f"line {block.line}: too much to check"
        else:
            left -= cost
            error = _error_in(block, parsers[block.language])
        if error:
            errors.append(f"{block.language}, {error}")
    good = len(listed) - len(errors)
    evidence = f"{good} of {len(listed)} blocks parse" + (f"; {errors[0]}" if errors else "")
    return Check(name=name, passed=not errors, score=good / len(listed), weight=weight, evidence=evidence)


def _error_in(block: Block, parse: Parser) -> str:
    """The first error of a block with its line in the proposal; empty if it parses."""
    try:
        parse(dedent(block.code))
    except (SyntaxError, json.JSONDecodeError) as error:
        return f"line {block.line + (error.lineno or 1) - 1}: {error.msg[:80]}"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        return f"line {block.line + line}: {(error.problem or 'not YAML')[:80]}"
    except (ValueError, RecursionError, MemoryError, yaml.YAMLError) as error:
        return f"line {block.line}: {str(error)[:80] or type(error).__name__}"
    return ""


def _parse_python(code: str) -> None:
    with warnings.catch_warnings():  # an odd escape is no error, also where warnings are errors
        warnings.simplefilter("ignore")
        ast.parse(code)


def _parse_json(code: str) -> None:
    json.loads(code)


def _parse_yaml(code: str) -> None:
    """Read the events of every document: no object is built, so tags mean nothing and aliases cannot grow."""
    anchors: set[str] = set()
    depth = 0
    for event in yaml.parse(code, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.DocumentStartEvent):
            anchors.clear()
        elif isinstance(event, yaml.AliasEvent) and event.anchor not in anchors:
            raise ValueError(f"undefined alias {event.anchor!r}")
        elif isinstance(event, yaml.NodeEvent) and event.anchor:
            anchors.add(event.anchor)


# --- form -----------------------------------------------------------------------------------------


def _length(words: int) -> Check:
    score = min(1.0, words / MIN_WORDS, MAX_WORDS / max(words, 1))
    evidence = f"{words} words; {MIN_WORDS} to {MAX_WORDS} are expected"
    return Check(name="length", passed=score == 1.0, score=score, weight=1, evidence=evidence)


def _no_thinking(text: str) -> Check:
    tags = visible_tags(text)
    evidence = f"{len(tags)} thinking tags outside code, the first is {tags[0]}" if tags else "no thinking tags"
    return Check(name="no_thinking", passed=not tags, score=float(not tags), weight=1, evidence=evidence)


def _complete(finish_reason: str, balanced: bool) -> Check:
    whole = finish_reason == "stop"
    evidence = f"finish_reason is {finish_reason[:64]!r}; " + (
        "every code fence is closed" if balanced else "a code fence stays open"
    )
    score = (0.5 + 0.5 * balanced) if whole else 0.0
    return Check(name="complete", passed=whole and balanced, score=score, weight=2, evidence=evidence)
