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
LOOK_S = 0.002
WAIT_S = 0.005
"""From so long on the client's loop was held up."""
AT_WORK = 0.25
"""Where the client used more of that time than this share, it was at work, and did not wait for a processor."""
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

    Client and stack share the cores. While the client itself gets none, it neither sends nor reads; a figure without
    that is shown beside the one with it.
    """

    taken: list[tuple[float, float]] = field(default_factory=list)
    """When each was due, and when its answer was there."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """From when to when the client waited for a processor."""
    refusals: Counter[str] = field(default_factory=Counter)

    def took(self) -> list[float]:
        """Seconds of each from when it was due."""
        return [ended - due for due, ended in self.taken]

    def took_without_waits(self) -> list[float]:
        """The same without the client's own waits."""
        return [ended - due - self._waited(due, ended) for due, ended in self.taken]

    def _waited(self, due: float, ended: float) -> float:
        return sum(max(0.0, min(ended, until) - max(due, since)) for since, until in self.waits)


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
        took = posts.took()
        figures = {"post_p50_ms": _percentile(took, 50), "post_p99_ms": _percentile(took, 99)}
        figures["post_p99_without_the_clients_waits_ms"] = _percentile(posts.took_without_waits(), 99)
        figures["posts_refused"] = float(posts.refusals.total())
        if asked.listeners:
            say(f"the same for {KEYED_S:g} s, each with an Idempotency-Key")
            keyed = await _posts(session, asked.rate, KEYED_S, keyed=True)
            figures["posts_refused"] += float(keyed.refusals.total())
            took = keyed.took()
            figures |= {"post_keyed_p50_ms": _percentile(took, 50), "post_keyed_p99_ms": _percentile(took, 99)}
            await asyncio.sleep(SETTLE_S)
            figures["result_p99_ms"] = _percentile(await _reads(session), 99)
            say(f"{asked.listeners} listeners at once")
            figures["events_wrong"] = float(await _listen(url, token, asked.listeners))
        if asked.idle:
            say(f"{asked.idle} idle listeners")
            figures["idle_listeners_mb"] = await _idle(found, session, asked.idle)
    return figures


def judged(figures: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Which targets were reached."""
    verdicts = {}
    for name, bound in TARGETS.items():
        if name in figures:
            reached = figures[name] <= bound
            verdicts[name] = {"at_most": bound, "verdict": "reached" if reached else "missed"}
    return verdicts


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
        async with background(_note_waits(posts.waits)):
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as under_way:
                for number in range(int(rate * seconds)):
                    due = begun + number / rate
                    if (early := due - time.perf_counter()) > 0:
                        await asyncio.sleep(early)
                    under_way.create_task(post(due, number))
    return posts


async def _note_waits(waits: list[tuple[float, float]]) -> None:
    """Note from when to when this process's loop had something to do and no processor to do it."""
    while True:
        due, used = time.perf_counter() + LOOK_S, time.process_time()
        await asyncio.sleep(LOOK_S)
        now = time.perf_counter()
        if now - due > WAIT_S and time.process_time() - used < AT_WORK * (now - due):
            waits.append((due, now))


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
