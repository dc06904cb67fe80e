"""The stages of a strategy, by the names that they have in subjects and call ids.

`propose-0`; for each round of revision a review and `revise-n`; a last review where ballots decide; `synthesize`
where a chairman writes the decision. So `review-n` judges the texts of `revise-n`, and `review-0` the first ones.

`escalate` asks in waves, each a stage of its own: `propose-0` the first members, `propose-1` the first one again,
`propose-2` and `propose-3` the others, and a review at last. Who of those that a wave may ask is asked, and whether it
is held at all, depends on the answers until then (`progress/escalation.py`).
"""

from __future__ import annotations

from typing import Literal

Strategy = Literal["propose", "rank", "synthesize", "escalate"]

PROPOSE = "propose-0"
SYNTHESIZE = "synthesize"
SECOND_SAMPLE = "propose-1"
"""The stage in which the first member is asked again."""
REVIEW, REVISE, PROPOSAL = "review", "revise", "propose"
"""Kinds of stages that come more than once."""
BARE = "bare"
"""Kind of the stages of an evaluation in which the task is asked without a council; no strategy has them."""
WAVES = {PROPOSE: slice(0, 2), SECOND_SAMPLE: slice(0, 1), "propose-2": slice(1, 3), "propose-3": slice(3, None)}
"""Which members, by their place in the council, a wave of `escalate` may ask."""
MAX_ROUNDS = 3


def stages_of(strategy: Strategy, rounds: int = 0) -> tuple[str, ...]:
    """The stages that an item goes through, in order."""
    if strategy == "escalate":
        return (*WAVES, f"{REVIEW}-0")
    stages = [PROPOSE]
    for number in range(rounds):
        stages += [f"{REVIEW}-{number}", f"{REVISE}-{number + 1}"]
    if strategy != "propose":
        stages.append(f"{REVIEW}-{rounds}")
    if strategy == "synthesize":
        stages.append(SYNTHESIZE)
    return tuple(stages)


def kind_of(stage: str) -> str:
    """`propose`, `review`, `revise`, `synthesize` or `bare`."""
    return stage.partition("-")[0]
