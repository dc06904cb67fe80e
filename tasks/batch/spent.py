"""What the batches of one output used of a budget, which holds for all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tasks.council.budget import USED_UP


@dataclass(frozen=True)
class Spent:
    """Calls and tokens that earlier batches of an output used."""

    calls: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, batches: Iterable[Mapping[str, Any]]) -> Self:
        """Those of batches as an output's state has them."""
        spent = [batch.get("spent", {}) for batch in batches]
        return cls(*(sum(one.get(name, 0) for one in spent) for name in ("calls", "tokens")))

    def left_of(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        """What of a budget is left; 0 or less of what is used up."""
        used = {"max_calls": self.calls, "max_tokens": self.tokens}
        bounded = {name: most for name, most in budget.items() if most is not None}
        return {name: most - used.get(name, 0) for name, most in bounded.items()}

    def used_up(self, budget: Mapping[str, Any]) -> str | None:
        """Why nothing more begins, where nothing of calls or tokens is left; None where something is."""
        for name, left in self.left_of(budget).items():
            if left <= 0:
                return f"{USED_UP}: {budget[name] - left:,} of {budget[name]:,} {name.removeprefix('max_')} are used"
        return None


def spent_in(body: Mapping[str, Any]) -> dict[str, int]:
    """What a batch used, by its body on the record."""
    return {name: int(body.get(name) or 0) for name in ("calls", "tokens")}
