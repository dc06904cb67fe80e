"""The benchmark of the gateway: what a POST took, without the time in which its client had no processor."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from blocks.background import background
from deployments.bench.gateway import measure
from deployments.bench.gateway.measure import Posts, judged


def test_the_clients_own_waits_are_no_part_of_what_a_post_took() -> None:
    posts = Posts(taken=[(0.0, 0.1), (1.0, 1.5), (2.0, 2.4), (3.0, 3.2)], waits=[(1.4, 1.6), (1.9, 2.1), (3.2, 3.3)])
    assert [round(seconds, 3) for seconds in posts.took()] == [0.1, 0.4, 0.3, 0.2]
    assert [round(seconds, 3) for seconds in posts.took_with_waits()] == [0.1, 0.5, 0.4, 0.2]
    assert posts.with_waits == 50


def test_a_slow_gateway_stays_slow_whatever_the_client_waits_for() -> None:
    """No POST is left out: the slow ones are the likeliest to meet a wait."""
    taken = [(number / 10, number / 10 + 0.002) for number in range(980)]
    slow = [(100.0 + number, 100.04 + number) for number in range(20)]
    waits = [(100.03 + number, 100.036 + number) for number in range(20)]
    took = sorted(Posts(taken=taken + slow, waits=waits).took())
    assert len(took) == 1000
    assert took[990] > 0.03


def test_where_nobody_waited_everything_is_as_it_was() -> None:
    posts = Posts(taken=[(0.0, 9.0)])
    assert (posts.took(), posts.with_waits) == ([9.0], 0)


@pytest.mark.parametrize(("with_waits", "verdict"), [(0.0, "missed"), (10.0, "missed"), (10.1, "not judged")])
@pytest.mark.parametrize("kind", ["", "draining_"])
def test_where_the_client_waited_too_often_times_are_not_judged(kind: str, with_waits: float, verdict: str) -> None:
    name = f"{kind}post_p99_ms"
    figures = {name: 99.0, f"{kind}{measure.WITH_WAITS}": with_waits, f"{kind}posts_refused": 1.0}
    found = judged(figures)
    assert found[name]["verdict"] == verdict
    assert found[f"{kind}posts_refused"]["verdict"] == "missed"


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
