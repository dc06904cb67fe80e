"""What stands behind answers: vllm, openai, the simulator."""

from __future__ import annotations

from collections.abc import Iterable

SIMULATOR = "simulator"
UNKNOWN = "unknown"


def engine_of(engines: Iterable[str]) -> str:
    """The engine of a whole; one part that the simulator made makes it a rehearsal."""
    known = set(engines) - {UNKNOWN}
    if SIMULATOR in known:
        return SIMULATOR
    return ",".join(sorted(known)) or UNKNOWN
