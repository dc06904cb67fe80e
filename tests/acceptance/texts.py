"""What is looked for in proposals: words, and how much they have in common."""

from __future__ import annotations

import re
from itertools import combinations
from statistics import mean
from typing import Any


def contents(result: dict[str, Any]) -> list[str]:
    """The texts of the proposals, best first."""
    return [entry["proposal"]["content"] for entry in result["results"]]


def mentioned(text: str, *words: str) -> set[str]:
    """Those of the words that a word of the text begins with, whatever the case; `a|b` counts as one."""
    return {word for word in words if re.search(rf"\b(?:{word})", text, re.IGNORECASE)}


def distance(texts: list[str]) -> float:
    """Mean pairwise Jaccard distance of the texts' word triples: 0 the same, 1 not three words in a row shared."""
    triples = [set(zip(words, words[1:], words[2:], strict=False)) for words in map(_words, texts)]
    return mean(1 - len(one & other) / len(one | other) for one, other in combinations(triples, 2))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
