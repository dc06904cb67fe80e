"""The tally rules by name, for what has to know no more of them; the rules are in `tasks/council/voting/rules/`."""

from __future__ import annotations

from typing import Literal

TallyName = Literal["borda", "copeland", "schulze"]
DEFAULT_TALLY: TallyName = "borda"
