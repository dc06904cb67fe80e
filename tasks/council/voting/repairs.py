"""What of a model's ballot is mended because it can mean one thing only: the form of it, and never the judgement.

Servers without structured output give JSON among prose, with a comma too many, labels in lower case, a score of 7.5, a
reason that is too long or a key that nobody asked for. The ranking is what counts, so none of these costs a ballot.
What could mean two things stays, and is refused: a label that was not shown or is ranked twice, a score out of bounds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+\\?(?:"|\Z))|,(?=\s*+[}\]])', re.DOTALL)
"""A string, also one that never ends, so that each character is looked at once; or a comma with nothing behind it."""


def only_object(text: str, decoder: json.JSONDecoder) -> Any:
    """The JSON object in a text, with prose around it. Raises ValueError where there is none, or something beside it.

    A second object or a list may be another ballot, or a correction.
    """
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no object")
    try:
        found, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        text = text[:start] + _STRING_OR_COMMA.sub(lambda match: match[1] or "", text[start:])
        found, end = decoder.raw_decode(text, start)
    if re.search(r"[{\[]", text[:start] + text[end:]):
        raise ValueError("there is something beside the object")
    return found


class Bounds(NamedTuple):
    """Of a ballot: its scores, and the characters of its reasons and critiques."""

    low: int
    high: int
    reason: int
    critique: int


def mended(answer: Any, labels: Collection[str], criteria: Collection[str], bounds: Bounds) -> Any:
    """The answer with labels as they were shown, whole scores, texts within their bounds and no further keys."""
    if not isinstance(answer, dict):
        return answer
    shown = {label.casefold(): label for label in labels}
    known = {name: answer[name] for name in ("opinions", "ranking") if name in answer}
    if isinstance(opinions := known.get("opinions"), dict):
        told = _renamed(opinions, shown)
        known["opinions"] = {label: _opinion(one, criteria, bounds) for label, one in told.items()}
    if isinstance(ranking := known.get("ranking"), list):
        known["ranking"] = [_label(one, shown) for one in ranking]
    return known


def mended_short(answer: Any, labels: Collection[str], most: int) -> Any:
    """The same for a short ballot, whose reason has `most` characters."""
    if not isinstance(answer, dict):
        return answer
    known = {name: answer[name] for name in ("reason", "ranking") if name in answer}
    if not isinstance(known.get("reason"), str):
        known.pop("reason", None)  # it is there for the model to think
    if isinstance(ranking := known.get("ranking"), list):
        shown = {label.casefold(): label for label in labels}
        known["ranking"] = [_label(one, shown) for one in ranking]
    _mend(known, "reason", lambda text: _cut(text, most))
    return known


def _opinion(opinion: Any, criteria: Collection[str], bounds: Bounds) -> Any:
    if not isinstance(opinion, dict):
        return opinion
    known = {name: opinion[name] for name in ("scores", "critique") if name in opinion}
    if isinstance(scores := known.get("scores"), dict):
        asked = {key: one for key, one in scores.items() if key in criteria}
        known["scores"] = {key: _score(one, bounds) for key, one in asked.items()}
    _mend(known, "critique", lambda text: _cut(text, bounds.critique))
    return known


def _score(score: Any, bounds: Bounds) -> Any:
    if not isinstance(score, dict):
        return score
    known = {name: score[name] for name in ("score", "reason") if name in score}
    _mend(known, "score", lambda value: _whole(value, bounds.low, bounds.high))
    _mend(known, "reason", lambda text: _cut(text, bounds.reason))
    return known


def _mend(fields: dict[str, Any], name: str, mend: Callable[[Any], Any]) -> None:
    if name in fields:
        fields[name] = mend(fields[name])


def _whole(value: Any, low: int, high: int) -> Any:
    """A score within its bounds as a whole number: a half counts down, as if its last half had not been earned."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,2}(?:\.\d{1,4})?", value.strip(), re.ASCII):
        value = float(value)
    if isinstance(value, float) and low <= value <= high:
        return math.floor(value) if value - math.floor(value) <= 0.5 else math.ceil(value)
    return value


def _cut(text: Any, most: int) -> Any:
    if not isinstance(text, str) or len(text.strip()) <= most:
        return text
    return text.strip()[: most - 1].rstrip() + "\u2026"


def _label(label: Any, shown: Mapping[str, str]) -> Any:
    return shown.get(label.strip().casefold(), label) if isinstance(label, str) else label


def _renamed(opinions: dict[str, Any], shown: Mapping[str, str]) -> dict[str, Any]:
    """By the labels that were shown; left as it is where two would become one."""
    renamed = {_label(label, shown): one for label, one in opinions.items()}
    return renamed if len(renamed) == len(opinions) else opinions
