"""The book of calls: what a client really sent, for tests that count and for timings seen from the server."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_CALLS = 20_000


@dataclass
class Call:
    """One request to `/v1/chat/completions`. Times are epoch seconds; null where it never came to that."""

    request_id: str
    received_at: float = field(default_factory=time.time)
    started_at: float | None = None
    sent_at: float | None = None
    status: int | None = None
    finish_reason: str | None = None
    aborted: bool = False
    asked: tuple[str, ...] = ()
    """Names of the fields that had a value; the form of the answer with its type."""

    def started(self) -> None:
        """It got its slot."""
        self.started_at = time.time()

    def sent(self, status: int) -> None:
        """The last byte of its answer was handed to the socket."""
        self.status = status
        self.sent_at = time.time()


class Calls:
    """The last MAX_CALLS requests."""

    def __init__(self) -> None:
        """An empty book."""
        self._calls: deque[Call] = deque(maxlen=MAX_CALLS)

    def received(self, request_id: str) -> Call:
        """Enters a request that has just come in."""
        call = Call(request_id)
        self._calls.append(call)
        return call

    def is_first(self, call: Call) -> bool:
        """Whether no earlier request came with the X-Request-Id of this one."""
        return next(known for known in self._calls if known.request_id == call.request_id) is call

    def clear(self) -> None:
        """Forgets all."""
        self._calls.clear()

    def listed(self) -> dict[str, Any]:
        """How often each X-Request-Id came, and every request in the order of arrival."""
        counts = Counter(call.request_id for call in self._calls)
        return {"calls": dict(counts), "requests": [asdict(call) for call in self._calls]}
