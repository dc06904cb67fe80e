"""The tally rules by name, for what has to know no more of them; the rules are in `tasks/council/voting/rules/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

TallyName = Literal["borda", "copeland", "schulze"]
DEFAULT_TALLY: TallyName = "borda"
SCORES: Mapping[TallyName, str] = {
    "borda": "mean share of others ranked below",
    "copeland": "pairs won",
    "schulze": "strongest paths",
}
"""What each gives a proposal, as a form says it."""
assert tuple(SCORES) == get_args(TallyName)
