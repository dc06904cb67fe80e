"""A budget of calls, tokens and time: claimed before a call is made, corrected once it is known what it took.

Used up, nothing new begins, and what has begun goes to its end. Claims are what an item takes at most, so that a budget
of calls is never exceeded; a budget of tokens is only by what an estimate of a prompt misses.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tasks.council.decisions import ItemResult
from tasks.council.models import Budget, Deliberation, Item
from tasks.council.proposal import Usage
from tasks.council.stages import PROPOSAL, REVIEW, kind_of

CHARACTERS_A_TOKEN = 3
"""Of a prompt, for its estimate: texts in English have four, source code fewer."""
CHARTER_TOKENS = 400
"""What a prompt has beside the task: the charter, the role, the form of an answer."""
USED_UP = "budget"
"""How the reason of an item begins that was not asked since the budget was used up."""


class Cost(NamedTuple):
    """Model calls, and tokens of their prompts and answers."""

    calls: int = 0
    tokens: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.calls + other.calls, self.tokens + other.tokens)

    def minus(self, other: Cost) -> Cost:
        """What this is more than the other."""
        return Cost(self.calls - other.calls, self.tokens - other.tokens)


NOTHING = Cost()


class Ledger:
    """What of a budget is claimed and used. Times are seconds of one monotonic clock."""

    def __init__(self, budget: Budget | None, began: float, used: Cost = NOTHING) -> None:
        self._budget, self._began = budget or Budget(), began
        self.used, self.claimed = used, NOTHING

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound that claims can meet."""
        return self._budget.max_calls is not None or self._budget.max_tokens is not None

    def claim(self, cost: Cost) -> bool:
        """Set so much aside for what begins now; False where that is not left."""
        wanted = self.used.plus(self.claimed).plus(cost)
        if _is_over(wanted.calls, self._budget.max_calls) or _is_over(wanted.tokens, self._budget.max_tokens):
            return False
        self.claimed = self.claimed.plus(cost)
        return True

    def correct(self, claimed: Cost, used: Cost) -> None:
        """What was claimed has come to its end, and took this."""
        self.claimed, self.used = self.claimed.minus(claimed), self.used.plus(used)

    def overtime(self, now: float) -> str | None:
        """Why nothing begins any more, where the time is over."""
        most = self._budget.max_s
        return f"{USED_UP}: {most:g} s are over" if most is not None and now - self._began >= most else None

    @property
    def used_up(self) -> str:
        """What there was of calls and tokens, where a claim is refused and nothing that is at work can give back."""
        bounds = {
            "calls": (self.used.calls, self._budget.max_calls),
            "tokens": (self.used.tokens, self._budget.max_tokens),
        }
        told = [f"{used:,} of {most:,} {what}" for what, (used, most) in bounds.items() if most is not None]
        return f"{USED_UP}: {' and '.join(told)} are used, and the next item takes more than is left"


def _is_over(wanted: int, most: int | None) -> bool:
    return most is not None and wanted > most


def cost_of(plan: Deliberation, item: Item) -> Cost:
    """What an item takes at most: every stage, everybody in it, and each ballot asked for twice."""
    given = _tokens_of(item)
    proposals = sum(member.max_tokens for member in plan.council.members)
    total = NOTHING
    for member, stage in plan.posts:
        times = 2 if kind_of(stage) == REVIEW else 1
        shown = given if kind_of(stage) == PROPOSAL else given + proposals
        total = total.plus(Cost(times, times * (shown + member.max_tokens)))
    return total


def used_by(result: ItemResult) -> Cost:
    """What an item took: the calls that were made, and their tokens as the servers counted them."""
    calls = sum(stage.called - stage.unneeded for stage in result.stages)
    return Cost(calls, _sum(result.usage))


def _sum(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def _tokens_of(item: Item) -> int:
    """An estimate of what an item's prompt has."""
    texts = (item.task, item.rubric or "", *item.requirements)
    context = len(json.dumps(item.context, ensure_ascii=False)) if item.context else 0
    return CHARTER_TOKENS + (sum(map(len, texts)) + context) // CHARACTERS_A_TOKEN
