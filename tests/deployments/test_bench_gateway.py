"""The benchmark of the gateway: what a POST took, and how much of it the client had no processor."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from blocks.background import background
from deployments.bench.gateway import measure
from deployments.bench.gateway.measure import Posts, judged


def test_what_a_post_took_is_told_with_the_clients_own_waits_and_without() -> None:
    posts = Posts(taken=[(0.0, 0.1), (1.0, 1.5), (2.0, 2.4), (3.0, 3.2)], waits=[(1.4, 1.6), (1.9, 2.1), (3.2, 3.3)])
    assert [round(seconds, 3) for seconds in posts.took()] == [0.1, 0.5, 0.4, 0.2]
    assert [round(seconds, 3) for seconds in posts.took_without_waits()] == [0.1, 0.4, 0.3, 0.2]


def test_the_bound_is_judged_with_them() -> None:
    figures = {"draining_post_p99_ms": 21.0, "draining_post_p99_without_the_clients_waits_ms": 9.0}
    assert judged(figures) == {"draining_post_p99_ms": {"at_most": 20.0, "verdict": "missed"}}


@pytest.mark.parametrize("used", [0.0, 1.0], ids=["without a processor", "at work"])
async def test_a_loop_that_is_held_up_by_its_own_work_has_not_waited(
    monkeypatch: pytest.MonkeyPatch, used: float
) -> None:
    """The processor's clock is ours here: how long a process waits for one is the machine's."""
    clock: Any = iter(range(1_000_000))
    monkeypatch.setattr(measure.time, "process_time", lambda: used * next(clock))
    waits: list[tuple[float, float]] = []
    async with background(measure._note_waits(waits)):
        await asyncio.sleep(0.02)
        time.sleep(0.1)  # this holds the loop up
        await asyncio.sleep(0.02)
    assert bool(waits) is (used == 0.0)
