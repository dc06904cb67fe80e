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
from typing import Any

_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*+[}\]])', re.DOTALL)


def first_object(text: str, decoder: json.JSONDecoder) -> Any:
    """The one JSON object in a text, whatever stands around it. Raises ValueError where there is none, or another."""
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no object")
    try:
        found, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        text = text[:start] + _STRING_OR_COMMA.sub(lambda match: match[1] or "", text[start:])
        found, end = decoder.raw_decode(text, start)
    if "{" in text[end:]:
        raise ValueError("there is more than one object")
    return found


def mended(answer: Any, labels: Collection[str], criteria: Collection[str], max_reason: int, max_critique: int) -> Any:
    """The answer with labels as they were shown, whole scores, texts within their bounds and no further keys."""
    if not isinstance(answer, dict):
        return answer
    shown = {label.casefold(): label for label in labels}
    known = {name: answer[name] for name in ("opinions", "ranking") if name in answer}
    if isinstance(opinions := known.get("opinions"), dict):
        told = _renamed(opinions, shown)
        known["opinions"] = {label: _opinion(one, criteria, max_reason, max_critique) for label, one in told.items()}
    if isinstance(ranking := known.get("ranking"), list):
        known["ranking"] = [_label(one, shown) for one in ranking]
    return known


def _opinion(opinion: Any, criteria: Collection[str], max_reason: int, max_critique: int) -> Any:
    if not isinstance(opinion, dict):
        return opinion
    known = {name: opinion[name] for name in ("scores", "critique") if name in opinion}
    if isinstance(scores := known.get("scores"), dict):
        asked = {key: one for key, one in scores.items() if key in criteria}
        known["scores"] = {key: _score(one, max_reason) for key, one in asked.items()}
    _mend(known, "critique", lambda text: _cut(text, max_critique))
    return known


def _score(score: Any, max_reason: int) -> Any:
    if not isinstance(score, dict):
        return score
    known = {name: score[name] for name in ("score", "reason") if name in score}
    _mend(known, "score", _whole)
    _mend(known, "reason", lambda text: _cut(text, max_reason))
    return known


def _mend(fields: dict[str, Any], name: str, mend: Callable[[Any], Any]) -> None:
    if name in fields:
        fields[name] = mend(fields[name])


def _whole(value: Any) -> Any:
    """A score as a whole number: a half counts down, as if its last half had not been earned."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,2}(?:\.\d{1,4})?", value.strip(), re.ASCII):
        value = float(value)
    if isinstance(value, float) and math.isfinite(value):
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
