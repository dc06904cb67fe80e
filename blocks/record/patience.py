"""Outlasting a server that is away: what is worth another try, and for how long it is tried."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.errors
import nats.js.errors

from blocks.exceptions import ConclaveError, RecordError, RecordFull, RecordUnavailable

T = TypeVar("T")

AGAIN_S = 0.25
STREAM_FULL = 10077
"""JetStream's error code where a stream that discards new messages has as many as it may (`errors.json`)."""


class Unsettled(ConclaveError):
    """The fence refused a publish, but the event that it refused it for cannot be read yet."""


TRANSIENT = (
    Unsettled,
    nats.errors.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.NoRespondersError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    OSError,
)


class Patience:
    """How long an absent server is outlasted, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def outlast(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat an attempt while the server is away. Raises RecordError."""
        until = time.monotonic() + self._seconds
        while True:
            try:
                return await attempt()
            except (nats.errors.Error, *TRANSIENT) as error:
                if getattr(error, "err_code", None) == STREAM_FULL:  # also a 503, which trying again does not mend
                    raise RecordFull(f"JetStream takes no more: {words(error)}") from error
                if not isinstance(error, TRANSIENT):
                    raise RecordError(f"JetStream refused: {words(error)}") from error
                if time.monotonic() > until:
                    told = f"JetStream did not answer for {self._seconds:g} s: {words(error)}"
                    raise RecordUnavailable(told) from error
                await asyncio.sleep(AGAIN_S)


def words(error: BaseException) -> str:
    """What an error says; the name of its class where it says nothing."""
    return str(error) or type(error).__name__
