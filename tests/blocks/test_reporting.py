"""A host tells Prefect how its task runs stand in its pauses, in order, and never much later than it happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest


class Telling:
    """The client with its connection left out: what it sends is kept, and runs begin while `busy`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
        from blocks.warm import reporting

        self.sent: list[Any] = []
        self.busy = busy

        async def keep(_client: Any, event: Any) -> None:
            self.sent.append(event)

        monkeypatch.setattr(reporting.PrefectEventsClient, "emit", keep)
        monkeypatch.setattr(reporting, "PAUSE_S", 0.02)
        reporting.report_in_pauses(self._active_at)
        reporting.report_in_pauses(self._active_at)  # a host that has to open anew
        self.client = reporting.PrefectEventsClient("http://127.0.0.1:9/api")

    def _active_at(self) -> float:
        return time.monotonic() if self.busy else 0.0


@pytest.fixture
def telling(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Telling]:
    """`telling(busy=True)`."""
    return lambda busy: Telling(monkeypatch, busy)


def _event(ago_s: float = 0.0) -> Any:
    return SimpleNamespace(occurred=datetime.now(UTC) - timedelta(seconds=ago_s))


async def test_an_event_waits_while_runs_begin_and_is_sent_in_the_pause(
    telling: Callable[..., Telling], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blocks.warm import reporting

    monkeypatch.setattr(reporting, "LATEST_S", 600.0)
    told, event = telling(busy=True), _event()
    emitting = asyncio.create_task(told.client.emit(event))
    await asyncio.sleep(0.2)
    assert not told.sent
    told.busy = False
    await asyncio.wait_for(emitting, 30)
    assert told.sent == [event]


@pytest.mark.parametrize("ago_s", [2.0, 3600.0, -3600.0], ids=["old", "very old", "the clock was set back"])
async def test_an_event_that_has_waited_long_enough_is_sent_while_runs_begin(
    telling: Callable[..., Telling], ago_s: float
) -> None:
    told, event = telling(busy=True), _event(ago_s)
    await asyncio.wait_for(told.client.emit(event), 30)
    assert told.sent == [event]


async def test_many_events_under_way_wait_together_and_not_one_after_the_other(
    telling: Callable[..., Telling],
) -> None:
    """Else a host that is never idle would send one a second."""
    told, events = telling(busy=True), [_event() for _ in range(60)]

    async def one_after_the_other() -> None:
        for event in events:
            await told.client.emit(event)

    await asyncio.wait_for(one_after_the_other(), 30)
    assert told.sent == events
