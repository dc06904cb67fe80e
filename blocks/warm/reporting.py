"""When a host tells Prefect how its task runs stand: in its pauses, and never much later than it happened.

Prefect's client sends two events for a task run before its code begins. Where its server stands on the same machine,
sending them and taking them in holds up the code of the task runs that begin just then. Events carry the time at which
they happened, and Prefect orders them by that.

Imported after Prefect's settings stand, by the host alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event

PAUSE_S = 0.2
"""An event is sent once for so long no task run was taken here, or ended."""
LATEST_S = 1.0
"""So long after it happened an event is sent in any case."""
REPLACED = "in_pauses"
"""Marks the method that waits."""


def report_in_pauses(active_at: Callable[[], float]) -> None:
    """Let Prefect's client of its event stream wait for a pause before each event, in this process.

    The method is replaced: `emit_event`, in `prefect/events/utilities.py`, sends nothing by a subclass.

    Args:
        active_at: When a task run was last taken here, or ended, by the clock `time.monotonic`.
    """
    send = PrefectEventsClient.emit
    if hasattr(send, REPLACED):
        return

    async def emit(client: PrefectEventsClient, event: Event) -> None:
        occurred = event.occurred.timestamp()
        while (left := _left_s(occurred, active_at())) > 0:  # noqa: ASYNC110  # it grows while runs begin
            await asyncio.sleep(left)
        await send(client, event)

    setattr(emit, REPLACED, True)
    PrefectEventsClient.emit = emit  # type: ignore[method-assign, assignment]


def _left_s(occurred: float, active_at: float) -> float:
    """Seconds until an event of that time is due, 0 or less where it is."""
    age = time.time() - occurred
    if age < 0:  # the clock was set back: nothing tells how long it has waited
        return 0.0
    return min(active_at + PAUSE_S - time.monotonic(), LATEST_S - age)
