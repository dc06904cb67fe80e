"""The feed of events, whatever is stored while it is read: each event once, the end last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.record.arrivals import Arrivals
from blocks.record.envelope import Event
from tasks.deliberations.feed import Cursor, Feed
from tests.conftest import cases
from tests.fakes.memory_nats import matches

ONE = "d"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Streams:
    """Two streams that are read slowly: each read takes its turns before it looks, and before it tells."""

    def __init__(self, turns: Iterator[int]) -> None:
        self._turns, self.reads = turns, 0
        self._stored: dict[str, list[Event]] = {"answers": [], "decisions": []}
        self._clock = 0

    def store(self, subject: str) -> None:
        stream = self._stored["answers" if subject.startswith("answers.") else "decisions"]
        self._clock += 1
        at = BEGAN + timedelta(seconds=self._clock)
        stream.append(Event(subject, len(stream) + 1, {"n": self._clock, "plan": {"n": self._clock}}, at))

    async def next(self, pattern: str, after: int, direct: bool = True, lenient: bool = False) -> Event | None:
        self.reads += 1
        await self._pass()
        stream = self._stored["answers" if pattern.startswith("answers.") else "decisions"]
        found = [event for event in stream if event.sequence > after and matches(pattern, event.subject)]
        await self._pass()
        return found[0] if found else None

    async def _pass(self) -> None:
        for _ in range(next(self._turns, 0)):
            await asyncio.sleep(0)


COURSE = ("plan", "epoch", "started", "progress", "closed.task.propose", "progress")
REST = [
    *(f"deliberations.{ONE}.{name}" for name in COURSE),
    *(f"answers.{ONE}.task.propose.m{number}" for number in range(3)),
    f"decisions.{ONE}.task",
    f"deliberations.other.{COURSE[0]}",
    "answers.other.task.propose.m1",
]


async def heard(feed: Feed, breaks: Iterator[int]) -> list[tuple[str, int]]:
    """What a listener hears who leaves after so many events and comes back with the last cursor, again and again."""
    found: list[tuple[str, int]] = []
    cursor = Cursor()
    while not await feed.is_over(ONE, cursor):
        left = next(breaks, 1_000)
        events = feed.of(ONE, cursor)
        async for told in events:
            found.append((told.kind, json.loads(told.data)["n"]))
            cursor = Cursor.read(str(told.cursor))
            left -= 1
            if left <= 0:
                break
        await events.aclose()
    return found


async def stored_and_heard(order: list[str], pauses: list[int], turns: list[int], breaks: list[list[int]]) -> Any:
    streams = Streams(iter(turns))
    arrivals = Arrivals(None)  # type: ignore[arg-type]
    feed = Feed(streams, arrivals)  # type: ignore[arg-type]
    listeners = [asyncio.create_task(heard(feed, iter(one))) for one in breaks]
    for subject, pause in zip([*order, f"deliberations.{ONE}.finished"], pauses, strict=True):
        for _ in range(pause):
            await asyncio.sleep(0)
        streams.store(subject)
        asyncio.get_running_loop().call_later(0, arrivals._wake, subject.split(".")[1], None)
    async with asyncio.timeout(10):
        return await asyncio.gather(*listeners), arrivals, feed


@settings(max_examples=cases(300))
@given(
    order=st.permutations(REST),
    pauses=st.lists(st.integers(0, 6), min_size=len(REST) + 1, max_size=len(REST) + 1),
    turns=st.lists(st.integers(0, 5), max_size=120),
    breaks=st.lists(st.lists(st.integers(1, 4), max_size=12), min_size=1, max_size=4),
)
def test_whatever_is_stored_meanwhile_each_event_is_heard_once_and_the_end_last(
    order: list[str], pauses: list[int], turns: list[int], breaks: list[list[int]]
) -> None:
    found, arrivals, feed = asyncio.run(stored_and_heard(order, pauses, turns, breaks))
    shown = sum(".other." not in one and not one.endswith(".epoch") for one in order) + 1
    for one in found:
        assert len({n for _, n in one}) == len(one) == shown
        assert one[-1][0] == "finished"
        for kinds in (("answer",), ("decision",), ("plan", "started", "progress", "stage", "finished")):
            numbers = [n for kind, n in one if kind in kinds]
            assert numbers == sorted(numbers)
    assert arrivals._waiting == {}
    assert feed._reading == {}


def test_nobody_shares_a_read_that_began_before_what_it_has_seen() -> None:
    """One who sees the end learns of no answer from a read that another had begun before that answer was stored."""

    async def run() -> tuple[Any, Any]:
        streams = Streams(iter([]))
        arrivals = Arrivals(None)  # type: ignore[arg-type]
        feed = Feed(streams, arrivals)  # type: ignore[arg-type]
        slow, go = asyncio.Event(), asyncio.Event()
        read = streams.next

        async def held(pattern: str, *arguments: Any, **options: Any) -> Any:
            found = await read(pattern, *arguments, **options)
            if pattern.startswith("answers.") and not slow.is_set():
                slow.set()
                await go.wait()
            return found

        streams.next = held  # type: ignore[method-assign]
        first = asyncio.create_task(heard(feed, iter([])))
        await slow.wait()
        streams.store(f"answers.{ONE}.task.propose.m1")
        streams.store(f"deliberations.{ONE}.finished")
        second = asyncio.create_task(heard(feed, iter([])))
        for _ in range(10):
            await asyncio.sleep(0)
        go.set()
        arrivals._wake(ONE, None)
        async with asyncio.timeout(5):
            return await first, await second

    first, second = asyncio.run(run())
    assert [kind for kind, _ in first] == [kind for kind, _ in second] == ["answer", "finished"]


def test_who_is_woken_as_the_streams_are_followed_anew_shares_no_earlier_read() -> None:
    """What was stored meanwhile is told of by nobody else."""

    async def run() -> list[str]:
        streams = Streams(iter([]))
        arrivals = Arrivals(None)  # type: ignore[arg-type]
        feed = Feed(streams, arrivals)  # type: ignore[arg-type]
        one, other = (asyncio.create_task(heard(feed, iter([]))) for _ in range(2))
        slow, go = asyncio.Event(), asyncio.Event()
        read = streams.next

        async def held(pattern: str, *arguments: Any, **options: Any) -> Any:
            found = await read(pattern, *arguments, **options)
            if not slow.is_set():
                slow.set()
                await go.wait()
            return found

        streams.next = held  # type: ignore[method-assign]
        await slow.wait()
        streams.store(f"deliberations.{ONE}.finished")
        arrivals._wake(*arrivals._waiting)
        go.set()
        async with asyncio.timeout(5):
            return [kind for found in (await one, await other) for kind, _ in found]

    assert asyncio.run(run()) == ["finished", "finished"]


@given(st.text())
def test_what_is_no_cursor_is_said_to_be_none(text: str) -> None:
    from tasks.council.exceptions import InvalidRequest

    try:
        Cursor.read(text, "starting_after")
    except InvalidRequest as error:
        assert error.field == "starting_after"


@given(st.builds(Cursor, *[st.integers(0, (1 << 63) - 1)] * 3))
def test_a_cursor_is_read_back(cursor: Cursor) -> None:
    assert Cursor.read(str(cursor)) == cursor
