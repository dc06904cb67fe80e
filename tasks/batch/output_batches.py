"""The batches that were asked for one output: kept beside it, so that a run which was killed is gone on with."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tasks.batch.output.folder import OutputFolder
from tasks.council.budget import USED_UP

STATE = "batches"
"""Name of the output's state that has them."""


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


class OutputBatches:
    """The batches of an output, the earliest first: each with its id, how far it is written, and what it used."""

    def __init__(self, output: OutputFolder) -> None:
        self._output = output

    def __bool__(self) -> bool:
        return bool(self._all())

    @property
    def not_ended(self) -> list[tuple[str, str | None]]:
        """Ids of those that are not written to their end, each with the place up to which it is."""
        return [(batch["id"], batch.get("after")) for batch in self._all() if "ended" not in batch]

    @property
    def spent(self) -> Spent:
        """What all of them used, as far as they have ended."""
        return Spent.of(self._all())

    def new_id(self) -> str:
        """An id for the next one. None is drawn twice: rows may have been sent under one that never began."""
        return f"{self._output.batch}-{len(self._all()) + 1}-{secrets.token_hex(2)}"

    def add(self, batch_id: str) -> None:
        """Keep one that begins. Raises BatchFileError."""
        self._keep([*self._all(), {"id": batch_id}])

    def written(self, batch_id: str, after: str | None) -> None:
        """Its rows are on disk up to this place. Raises BatchFileError."""
        self._note(batch_id, after=after)

    def ended(self, batch_id: str, body: Mapping[str, Any] | None = None) -> None:
        """Nothing more of it is to be written; `body` says what it used, and is none of one that never began.

        Raises BatchFileError.
        """
        spent = {} if body is None else {"spent": {name: int(body.get(name) or 0) for name in ("calls", "tokens")}}
        self._note(batch_id, ended=True, **spent)

    def _all(self) -> list[dict[str, Any]]:
        return [dict(batch) for batch in self._output.states.get(STATE, ())]

    def _note(self, batch_id: str, **told: Any) -> None:
        batches = self._all()
        for batch in batches:
            if batch["id"] == batch_id:
                batch.update(told)
        self._keep(batches)

    def _keep(self, batches: list[dict[str, Any]]) -> None:
        self._output.state(STATE, batches)
