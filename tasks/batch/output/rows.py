"""One finished row, as whoever asks the councils hands it over to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from tasks.council.decisions import ItemResult

INVALID: Final = "INVALID"
"""Status of a bad row of the input, which nobody was asked about."""
NOT_ASKED: Final = "PENDING"
"""Status of a row that was not asked, such as for want of budget; its error says why."""


class RowCopy(NamedTuple):
    """A row that asks the same as another one, whose result is its own, too."""

    id: str
    row: int
    line: int
    key: str


@dataclass(frozen=True)
class RowResult:
    """What became of one row of the input.

    `row` is its number from 1, `line` the one that it begins on. `key` is the hexadecimal digest of what was asked:
    rows with one id and one key are one row, of which the last result holds. Where two such are kept apart
    (`--duplicate-ids keep`) the key has to say which it is. A row without a key, such as a bad one, is told from others
    by its id and its number.
    """

    id: str
    row: int
    line: int
    key: str = ""
    item_id: str | None = None
    deliberation_id: str | None = None
    council_digest: str | None = None
    copied_from: str | None = None
    """Id of the row that was asked in its place."""
    error: str | None = None
    status: str = NOT_ASKED
    """Holds where there is no result."""
    result: ItemResult | None = None
