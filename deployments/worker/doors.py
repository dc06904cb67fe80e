"""Whether what a worker takes requests from still answers: it may run and be asked in vain, and then nothing comes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 30.0
"""How long a door may be asked in vain before the worker counts as unwell."""


class Door:
    """Something that is asked again and again. Written by one thread, and read by others."""

    def __init__(self, what: str, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._patience_s, self._clock = what, patience_s, clock
        self._asked_at: float | None = None
        """Since when it has been asked without an answer; None while it is not asked."""
        self._answered_at: float | None = None
        self._words = ""

    def asked(self) -> None:
        """It is being asked."""
        if self._asked_at is None:
            self._asked_at = self._clock()

    def answered(self) -> None:
        """It has answered."""
        self._answered_at = self._asked_at = self._clock()
        self._words = ""

    def failed(self, words: str) -> None:
        """It has answered with an error, or not at all."""
        self._words = words

    def idle(self) -> None:
        """It is not asked for now, as nothing could be taken."""
        self._asked_at = None

    @property
    def age_s(self) -> float | None:
        """Seconds since the last answer; None where there was none yet."""
        answered_at = self._answered_at
        return None if answered_at is None else round(self._clock() - answered_at, 1)

    @property
    def trouble(self) -> str | None:
        """What is wrong; None where all is well."""
        asked_at = self._asked_at
        if asked_at is None or (seconds := self._clock() - asked_at) < self._patience_s:
            return None
        return f"{self._what} has given no answer for {seconds:.0f} s{f': {self._words}' if self._words else ''}"
