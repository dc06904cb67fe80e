"""What a reviewer is asked: to judge the others' proposals, and to answer with a ballot.

Proposals are data, and stand fenced (`delimiters.py`). What the fence cannot do is keep a model from believing a text
that praises itself: against that stand the other reviewers, and the bound of one ballot among many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import BUILT_IN, Prompts
from tasks.council.prompts.delimiters import fence, given, mark_of, neutral
from tasks.council.prompts.propose import given_mark, role_of, task_sections
from tasks.council.voting.ballots import (
    ALL_ROOM,
    MAX_SCORE,
    MAX_SHORT_REASON,
    MIN_SCORE,
    Criterion,
    InvalidBallot,
    Room,
    Sheet,
)

SCORES = range(MIN_SCORE, MAX_SCORE + 1)
LISTED_RANKINGS = 4
"""Proposals up to which the schema lists every possible ranking (24), so that none can repeat a label."""


def short_review_messages(
    item: Item, sheet: Sheet, proposals: Mapping[str, str], salt: str, prompts: Prompts = BUILT_IN
) -> list[dict[str, str]]:
    """The chat that asks for a short ballot; reviewers of one order share most of it."""
    labels = ", ".join(sheet.labels)
    user = "\n\n".join(
        (
            task_sections(item),
            _proposals(sheet, proposals, salt),
            f"# Your ballot\nThe proposals are {labels}. {_WHICH[item.answer_format is None]} {SHORT_FORM}",
        )
    )
    return [{"role": "system", "content": prompts.short_review}, {"role": "user", "content": user}]


SHORT_FORM = (
    f"Answer with one JSON object: `reason` (one sentence, at most {MAX_SHORT_REASON} characters), then `ranking`, all "
    "these labels once, best first."
)
_WHICH = {False: "Which answer is right?", True: "Which proposal serves the task best?"}
"""By whether the task is open."""


def _proposals(sheet: Sheet, proposals: Mapping[str, str], salt: str) -> str:
    """The section of the proposals that a sheet shows."""
    mark = mark_of(proposals.values(), salt)
    fenced = "\n\n".join(fence(label, proposals[author], mark) for label, author in sheet.shown)
    return f"# Proposals\nThe mark of their tags is {mark}.\n\n{fenced}"


def review_messages(
    member: Member,
    item: Item,
    sheet: Sheet,
    proposals: Mapping[str, str],
    criteria: Sequence[Criterion],
    salt: str,
    prompts: Prompts = BUILT_IN,
    room: Room = ALL_ROOM,
) -> list[dict[str, str]]:
    """The chat that asks a member for its ballot; `proposals` is every author's text, the member's own too.

    All reviewers share the charter, task and criteria; those of one order also the proposals up to the first
    that one of them wrote. What only this member is told comes last.
    """
    named = "\n".join(f"- {criterion.key}: {' '.join(criterion.text.split())}" for criterion in criteria)
    user = "\n\n".join(
        (
            task_sections(item),
            f"# Criteria\n{given('criteria', named, given_mark(item))}",
            _proposals(sheet, proposals, salt),
            f"# Your ballot\nThe proposals are {', '.join(sheet.labels)}. {_form_told(room)}",
            f"# Your role\n{role_of(member, prompts)}",
        )
    )
    return [{"role": "system", "content": prompts.review}, {"role": "user", "content": user}]


def _form_told(room: Room) -> str:
    return (
        "Answer with one JSON object: `opinions` has for each label `scores`, with `score` "
        f"({MIN_SCORE} to {MAX_SCORE}, a whole number) and `reason` (one sentence, at most {room.reason} characters) "
        f"for each criterion, and a `critique` (at most {room.critique} characters); "
        "`ranking` lists all these labels once, best first."
    )


def ask_again(messages: Sequence[Mapping[str, str]], answer: str, problem: InvalidBallot) -> list[dict[str, str]]:
    """The same chat, so that its start stays cached, with the invalid answer and what was wrong with it."""
    told = f"This ballot cannot be counted. {problem}. Answer again with one JSON object of the given form."
    return [
        *map(dict, messages),
        {"role": "assistant", "content": neutral(answer[:4000]) or "{}"},
        {"role": "user", "content": told},
    ]


def ballot_schema(shown: Sequence[str], criteria: Sequence[Criterion], room: Room = ALL_ROOM) -> dict[str, Any]:
    """JSON schema of a ballot on some labels; no keyword in it that vLLM's backends refuse or ignore.

    A score is one of a list: where it is any integer between bounds, small models write digits without end. Opinions
    come before the ranking: a model ranks better once it has judged.
    """
    scored = _object({"score": {"enum": list(SCORES)}, "reason": _text(room.reason)})
    opinion = _object(
        {"scores": _object({one.key: scored for one in criteria}), "critique": _text(room.critique)},
    )
    opinions = _object({label: {"$ref": "#/$defs/opinion"} for label in shown})
    return {**_object({"opinions": opinions, "ranking": _rankings(shown)}), "$defs": {"opinion": opinion}}


def short_ballot_schema(shown: Sequence[str]) -> dict[str, Any]:
    """JSON schema of a short ballot on some labels: a reason, then the ranking."""
    return _object({"reason": _text(MAX_SHORT_REASON), "ranking": _rankings(shown)})


def _rankings(shown: Sequence[str]) -> dict[str, Any]:
    """Schema of a ranking.

    No backend of vLLM knows `uniqueItems`, so up to 4 labels every ranking is listed, and beyond that a repeated label
    is found when the ballot is read.
    """
    if len(shown) <= LISTED_RANKINGS:
        return {"enum": [list(one) for one in permutations(sorted(shown))]}
    label = {"type": "string", "enum": sorted(shown)}
    return {"type": "array", "items": label, "minItems": len(shown), "maxItems": len(shown)}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": most}
