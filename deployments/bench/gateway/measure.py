"""What is measured of the gateway, each figure from outside, over HTTP."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import psutil

from blocks.background import background
from deployments.client import AsyncClient
from deployments.stack import StackStatus

TARGETS = {
    "post_p50_ms": 3.0,
    "post_p99_ms": 10.0,
    "draining_post_p99_ms": 20.0,
    "result_p99_ms": 5.0,
    "idle_listeners_mb": 100.0,
    "events_wrong": 0.0,
    "posts_refused": 0.0,
    "draining_posts_refused": 0.0,
}
"""At most so much."""
LEFT_OUT = "posts_left_out_percent"
MOST_LEFT_OUT = 10.0
"""Percent of the POSTs that may be left out; where it is more, what the others took is no judgement."""
LOOK_S = 0.002
HELD_S = 0.005
WARM = 200
READS = 2_000
KEYED_S = 10.0
SETTLE_S = 3.0
EVENTS = ("finished",)
"""What a cancelled deliberation that never began has to tell."""

Say = Callable[[str], None]


class Asked(NamedTuple):
    """What is to be measured."""

    rate: float
    seconds: float
    listeners: int
    idle: int


@dataclass
class Posts:
    """What POSTs took, and what was said to those that were not taken.

    Client and stack share the cores. A POST that was under way while the client itself did not get one for longer than
    `HELD_S` tells nothing of the gateway; it is counted, and left out.
    """

    taken: list[tuple[float, float]] = field(default_factory=list)
    """When each was due, and when its answer was there."""
    held: list[tuple[float, float]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    def told(self) -> list[float]:
        """Seconds of those that tell something of the gateway, from when they were due."""
        return [ended - due for due, ended in self.taken if not self._was_held(due, ended)]

    @property
    def left_out(self) -> float:
        """The share of the others, in percent."""
        return 100 * (1 - len(self.told()) / max(1, len(self.taken)))

    def _was_held(self, due: float, ended: float) -> bool:
        return any(begun < ended and due < until for begun, until in self.held)


async def measured(found: StackStatus, asked: Asked, say: Say) -> dict[str, float]:
    """All figures of the gateway of this stack, in milliseconds and megabytes."""
    url, token = os.environ["CONCLAVE_URL"], os.environ["CONCLAVE_TOKEN"]
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
        await _posts(session, asked.rate, WARM / asked.rate)
        say(f"{asked.rate:g} requests a second for {asked.seconds:g} s")
        posts = await _posts(session, asked.rate, asked.seconds)
        for refusal, count in posts.refusals.items():
            say(f"  refused {count} times: {refusal}")
        told = posts.told()
        figures = {"post_p50_ms": _percentile(told, 50), "post_p99_ms": _percentile(told, 99)}
        figures["post_p99_with_the_clients_waits_ms"] = _percentile([end - due for due, end in posts.taken], 99)
        figures[LEFT_OUT] = posts.left_out
        figures["posts_refused"] = float(posts.refusals.total())
        if asked.listeners:
            say(f"the same for {KEYED_S:g} s, each with an Idempotency-Key")
            keyed = await _posts(session, asked.rate, KEYED_S, keyed=True)
            figures["posts_refused"] += float(keyed.refusals.total())
            told = keyed.told()
            figures |= {"post_keyed_p50_ms": _percentile(told, 50), "post_keyed_p99_ms": _percentile(told, 99)}
            await asyncio.sleep(SETTLE_S)
            figures["result_p99_ms"] = _percentile(await _reads(session), 99)
            say(f"{asked.listeners} listeners at once")
            figures["events_wrong"] = float(await _listen(url, token, asked.listeners))
        if asked.idle:
            say(f"{asked.idle} idle listeners")
            figures["idle_listeners_mb"] = await _idle(found, session, asked.idle)
    return figures


def judged(figures: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Which targets were reached, missed, or cannot be judged."""
    return {
        name: {"at_most": bound, "verdict": _verdict(name, bound, figures)}
        for name, bound in TARGETS.items()
        if name in figures
    }


def _verdict(name: str, bound: float, figures: dict[str, float]) -> str:
    kind, is_time, _ = name.partition("post_p")
    if is_time and figures.get(f"{kind}{LEFT_OUT}", 0.0) > MOST_LEFT_OUT:
        return "not judged"
    return "reached" if figures[name] <= bound else "missed"


async def _posts(session: aiohttp.ClientSession, rate: float, seconds: float, keyed: bool = False) -> Posts:
    """POST at a rate, each when it is due, however long those before it take."""
    posts = Posts()

    async def post(due: float, number: int) -> None:
        body = {"task": f"Name the service {number}", "metadata": {"bench": "gateway"}}
        headers = {"Idempotency-Key": uuid.uuid4().hex} if keyed else {}
        async with session.post("/v1/deliberations", json=body, headers=headers) as answer:
            told = await answer.json()
            if answer.status != 202:
                posts.refusals[f"{answer.status} {told.get('type')}"] += 1
        posts.taken.append((due, time.perf_counter()))

    with _uncollected():
        async with background(_note_when_held(posts.held)):
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as under_way:
                for number in range(int(rate * seconds)):
                    due = begun + number / rate
                    if (early := due - time.perf_counter()) > 0:
                        await asyncio.sleep(early)
                    under_way.create_task(post(due, number))
    return posts


async def _note_when_held(held: list[tuple[float, float]]) -> None:
    """Note from when to when this process's loop did not run, though it had something to do."""
    while True:
        due = time.perf_counter() + LOOK_S
        await asyncio.sleep(LOOK_S)
        now = time.perf_counter()
        if now - due > HELD_S:
            held.append((due, now))


@contextmanager
def _uncollected() -> Generator[None, None, None]:
    """No collection of this process's garbage, whose 0.2 s would be taken for the gateway's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _reads(session: aiohttp.ClientSession) -> list[float]:
    """Seconds that each GET of a result took, one after another."""
    async with session.post("/v1/deliberations", json={"task": "Name one"}) as answer:
        one = (await answer.json())["id"]
    await (await session.delete(f"/v1/deliberations/{one}")).read()
    took = []
    for _ in range(READS):
        begun = time.perf_counter()
        async with session.get(f"/v1/deliberations/{one}") as answer:
            await answer.read()
        took.append(time.perf_counter() - begun)
    return took


async def _listen(url: str, token: str, count: int) -> int:
    """How many of so many listeners did not hear every event of a deliberation once."""
    async with AsyncClient(url, token) as client:
        one = (await client.submit(task="Name one", delay_s=60)).id

        async def hear() -> tuple[str, ...]:
            return tuple([event.kind async for event in client.events(one)])

        hearing = [asyncio.create_task(hear()) for _ in range(count)]
        await asyncio.sleep(SETTLE_S)
        await client.cancel(one)
        heard = await asyncio.gather(*hearing)
    return sum(kinds != EVENTS for kinds in heard)


async def _idle(found: StackStatus, session: aiohttp.ClientSession, count: int) -> float:
    """Megabytes that gateway and NATS take more with so many listeners that hear nothing."""
    async with session.post("/v1/deliberations", json={"task": "Name one", "delay_s": 3600}) as answer:
        one = (await answer.json())["id"]
    before = _resident_mb(found)
    open_ = [await session.get(f"/v1/deliberations/{one}/events") for _ in range(count)]
    await asyncio.sleep(SETTLE_S)
    more = _resident_mb(found) - before
    for answer in open_:
        answer.close()
    return more


def _resident_mb(found: StackStatus) -> float:
    pids = [found.parts[part].pid for part in ("gateway", "nats")]
    processes: list[psutil.Process] = []
    for pid in filter(None, pids):
        process = psutil.Process(pid)
        processes += [process, *process.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 1e6


def _percentile(seconds: list[float], share: int) -> float:
    """Milliseconds below which so many of a hundred lie."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
