"""The stages of a strategy, by the names that they have in subjects and call ids.

`propose-0`; for each round of revision a review and `revise-n`; a last review where ballots decide; `synthesize`
where a chairman writes the decision. So `review-n` judges the texts of `revise-n`, and `review-0` the first ones.
"""

from __future__ import annotations

from typing import Literal

Strategy = Literal["propose", "rank", "synthesize"]

PROPOSE = "propose-0"
SYNTHESIZE = "synthesize"
REVIEW, REVISE = "review", "revise"
"""Kinds of stages that come more than once."""
MAX_ROUNDS = 3


def stages_of(strategy: Strategy, rounds: int = 0) -> tuple[str, ...]:
    """The stages that an item goes through, in order."""
    stages = [PROPOSE]
    for number in range(rounds):
        stages += [f"{REVIEW}-{number}", f"{REVISE}-{number + 1}"]
    if strategy != "propose":
        stages.append(f"{REVIEW}-{rounds}")
    if strategy == "synthesize":
        stages.append(SYNTHESIZE)
    return tuple(stages)


def kind_of(stage: str) -> str:
    """`propose`, `review`, `revise` or `synthesize`."""
    return stage.partition("-")[0]
