"""The window of calls that may be in flight at one model server: it begins full, and follows what the server shows.

Halved where the server refuses calls, or lets some wait for longer than a moment; then it grows back, by doubling up to
nearly where it was halved and by one a round beyond: additive increase, multiplicative decrease (Chiu and Jain, 1989),
with the slow start of RFC 5681. A server that tells how many calls run and how many wait is followed at once: beginning
small would cost more than anything that is gained by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST = 256
"""Calls in flight at the beginning, where nothing is known of the server."""
MOST = 4_096
"""Calls in flight at most."""
STAYS = 3
"""Looks in a row at which calls wait, after which the window is too large."""
SPARE = 16
"""A sixteenth of the window may wait at the server, so that a slot which is free there is taken at once."""
LEAST_SPARE = 2
CUT_S = 1.0
"""Refusals within so many seconds of a cut, or within the time that an answer takes, belong to it."""


@dataclass
class Window:
    """Calls in flight at one model server: how many there may be, and how many there are."""

    size: float = FIRST
    most: int = MOST
    in_flight: int = 0
    _threshold: float = field(default=float(MOST))
    """Up to here it grows by doubling."""
    _cut_until: float = 0.0
    _answer_s: float = 0.0
    _waited: int = 0
    _is_told: bool = False
    """Whether the server's metrics say how it is; then answers say nothing more."""

    @property
    def room(self) -> int:
        """Calls that may be begun now; less than 0 where it has shrunk under those in flight."""
        return int(self.size) - self.in_flight

    @property
    def spare(self) -> int:
        """Calls that may wait at the server."""
        return max(LEAST_SPARE, int(self.size) // SPARE)

    def begun(self, calls: int) -> None:
        """So many calls are made."""
        self.in_flight += calls

    def over(self, calls: int) -> None:
        """So many calls came to an end, or are not made."""
        self.in_flight = max(0, self.in_flight - calls)

    def answered(self, answer_s: float) -> None:
        """A call was answered within so many seconds: where the window is what bounds, it grows."""
        self._answer_s = answer_s if not self._answer_s else 0.8 * self._answer_s + 0.2 * answer_s
        if self._is_told or self.in_flight < self.size - max(1.0, self.size / 8):
            return
        grown = 1.0 if self.size < self._threshold else 1.0 / self.size
        self.size = min(float(self.most), self.size + grown)

    def refused(self, now: float) -> bool:
        """A call was refused, or came to nothing, since the server has no place for it; whether that is news."""
        if now < self._cut_until:
            return False
        held = min(self.size, max(1.0, self.in_flight))
        self._cut(held / 2, now)
        self._threshold = held - held / SPARE
        return True

    def looked(self, running: int, waiting: int, now: float) -> None:
        """The server says how many calls run there and how many wait, whoever's they are."""
        self._is_told = True
        if waiting > self.spare:
            self._waited += 1
            if self._waited >= STAYS:
                serves = max(1, self.in_flight - waiting)
                self._cut(max(self.size / 2, serves + max(LEAST_SPARE, serves // SPARE)), now)
            return
        self._waited = 0
        is_full = min(self.in_flight, running) >= 0.75 * self.size  # else it is not the window that bounds
        if waiting == 0 and is_full and now >= self._cut_until:
            self.size = min(float(self.most), 2 * self.size)

    def _cut(self, size: float, now: float) -> None:
        self.size = max(1.0, min(self.size, size))
        self._waited = 0
        self._cut_until = now + max(CUT_S, self._answer_s)
