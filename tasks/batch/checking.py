"""What a file of rows comes to before anything is asked: how many rows, what is wrong, how many calls."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from tasks.batch.records import Records
from tasks.batch.rows import Columns, Row, read_rows
from tasks.council.models import Deliberation, ItemRequest

SHOWN = 20
"""Bad rows that are kept to be shown; all are counted."""


@dataclass
class Checked:
    """Counts of rows, and the first bad ones."""

    rows: int = 0
    good: int = 0
    characters: int = 0
    """Of the tasks and contexts of good rows."""
    replaced: int = 0
    """Lone halves of characters that were replaced."""
    place: str = "line"
    """What the numbers of places count."""
    notes: Counter[str] = field(default_factory=Counter)
    """What else was seen that makes no row bad, each kind with its count."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Bad rows by field and reason."""
    first_good: ItemRequest | None = None
    """What would be asked first."""
    first_bad: list[Row] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """Rows that cannot be asked."""
        return self.rows - self.good


def check_rows(records: Records, columns: Columns, keep_duplicates: bool = False) -> Checked:
    """Look at every row, and keep none but the first bad ones. Raises BatchFileError as the rows do."""
    found = Checked(place=records.place)
    for row in read_rows(records, columns, keep_duplicates):
        found.rows += 1
        if row.item is not None:
            found.good += 1
            found.first_good = found.first_good or row.item
            found.characters += _characters(row.item)
        elif row.fault is not None:
            found.reasons[f"{row.fault.field} {row.fault.reason}"] += 1
            if len(found.first_bad) < SHOWN:
                found.first_bad.append(row)
    found.replaced, found.notes = records.replaced, records.notes
    return found


def _characters(item: ItemRequest) -> int:
    context = len(json.dumps(item.context, ensure_ascii=False)) if item.context else 0
    return len(item.task) + context


def calls_by_stage(plan: Deliberation, items: int) -> dict[str, int]:
    """How many calls so many items take at most, by stage, each asked as the plan says.

    Fewer where ballots can change nothing any more, or where waves agree.
    """
    return {stage: len(plan.called_for(stage)) * items for stage in plan.stages}
