"""The shortest time that calls can take: what no client can beat, whatever it costs. Pure functions."""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple


class Narrow(NamedTuple):
    """A server that has fewer slots for a while: from when on, and for how long, in seconds after its first call."""

    slots: int
    from_s: float
    for_s: float


def slots_at(moment_s: float, slots: int, narrow: Narrow | None) -> int:
    """The slots that a server has, so many seconds after its first call."""
    if narrow is None or not narrow.from_s <= moment_s < narrow.from_s + narrow.for_s:
        return slots
    return narrow.slots


def bound_s(calls: int, slots: int, latency_s: float, narrow: Narrow | None = None) -> float:
    """Seconds of so many calls, each of which takes `latency_s`: ceil(calls / slots) x latency at constant slots.

    Calls that run as slots become fewer are answered to their end.
    """
    if narrow is None:
        return math.ceil(calls / slots) * latency_s
    changes = [narrow.from_s, narrow.from_s + narrow.for_s]
    ends: list[float] = []
    now = 0.0
    left = calls
    while left:
        room = min(left, slots_at(now, slots, narrow) - len(ends))
        for _ in range(room):
            heapq.heappush(ends, now + latency_s)
        left -= max(0, room)
        if left:
            now = min([*ends[:1], *(change for change in changes if change > now)])
            while ends and ends[0] <= now:
                heapq.heappop(ends)
    return max(ends)
