"""The stages of a strategy, by the names that they have in subjects and call ids."""

from __future__ import annotations

from typing import Literal

Strategy = Literal["propose", "rank"]

PROPOSE = "propose-0"
REVIEW = "review-0"


def stages_of(strategy: Strategy) -> tuple[str, ...]:
    """The stages that an item goes through, in order."""
    return (PROPOSE, REVIEW) if strategy == "rank" else (PROPOSE,)
