"""The benchmark of the gateway: what tells something of it, and what only says that the client had no processor."""

from __future__ import annotations

import asyncio
import time

import pytest

from blocks.background import background
from deployments.bench.gateway.measure import Posts, _note_when_held, judged


def test_a_post_during_which_the_client_was_held_up_tells_nothing_of_the_gateway() -> None:
    posts = Posts(taken=[(0.0, 0.1), (1.0, 1.5), (2.0, 2.4), (3.0, 3.2)], held=[(1.4, 1.6), (1.9, 2.1), (3.2, 3.3)])
    assert [round(seconds, 3) for seconds in posts.told()] == [0.1, 0.2]
    assert posts.left_out == 50


def test_nothing_is_left_out_where_the_client_ran() -> None:
    posts = Posts(taken=[(0.0, 9.0)])
    assert (posts.told(), posts.left_out) == ([9.0], 0)


@pytest.mark.parametrize(("left_out", "verdict"), [(0.0, "missed"), (10.0, "missed"), (10.1, "not judged")])
@pytest.mark.parametrize("kind", ["", "draining_"])
def test_where_too_many_are_left_out_times_are_not_judged(kind: str, left_out: float, verdict: str) -> None:
    name = f"{kind}post_p99_ms"
    figures = {name: 99.0, f"{kind}posts_left_out_percent": left_out, f"{kind}posts_refused": 1.0}
    found = judged(figures)
    assert found[name]["verdict"] == verdict
    assert found[f"{kind}posts_refused"]["verdict"] == "missed"


async def test_it_is_noted_when_the_client_does_not_run() -> None:
    held: list[tuple[float, float]] = []
    async with background(_note_when_held(held)):
        await asyncio.sleep(0.02)
        begun = time.perf_counter()
        time.sleep(0.1)  # this is what is noted
        ended = time.perf_counter()
        await asyncio.sleep(0.02)
    assert any(since < ended and until >= ended and since >= begun - 0.01 for since, until in held)
