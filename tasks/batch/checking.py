"""What a file of rows comes to before anything is asked: how many rows, what is wrong, how many calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.batch.rows import Row
from tasks.council.council import CouncilSpec
from tasks.council.models import Deliberation, DeliberationRequest, ItemRequest

SHOWN = 20
"""Bad rows that are kept to be shown; all are counted."""


@dataclass
class Checked:
    """Counts of rows, and the first bad ones."""

    rows: int = 0
    good: int = 0
    characters: int = 0
    """Of the tasks and contexts of good rows."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Bad rows by field and reason."""
    first_bad: list[Row] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """Rows that cannot be asked."""
        return self.rows - self.good


def check_rows(rows: Iterable[Row]) -> Checked:
    """Look at every row, and keep none but the first bad ones. Raises BatchFileError as the rows do."""
    found = Checked()
    for row in rows:
        found.rows += 1
        if row.item is not None:
            found.good += 1
            found.characters += _characters(row.item)
        elif row.fault is not None:
            found.reasons[f"{row.fault.field} {row.fault.reason}"] += 1
            if len(found.first_bad) < SHOWN:
                found.first_bad.append(row)
    return found


def _characters(item: ItemRequest) -> int:
    context = len(json.dumps(item.context, ensure_ascii=False)) if item.context else 0
    return len(item.task) + context


def calls_by_stage(request: DeliberationRequest, council: CouncilSpec, items: int) -> dict[str, int]:
    """How many calls so many items take at most, by stage, were each asked as the request is.

    Fewer where ballots can change nothing any more, or where waves agree. Raises InvalidRequest.
    """
    plan = Deliberation.plan("batch", request, council)
    return {stage: len(plan.called_for(stage)) * items for stage in plan.stages}
