"""What is read often is read again beside those who ask; and what comes singly is taken in lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from blocks.background import batches
from blocks.refreshed import Refreshed


class Source:
    """Counts how often it is read; waits, and fails, where it is told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        await self.open.wait()
        if self.fails:
            raise OSError("away")
        return number


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved."""
    now = [1000.0]
    monkeypatch.setattr("blocks.refreshed.time.monotonic", lambda: now[0])
    return now


async def test_many_who_ask_at_once_read_once(source: Source) -> None:
    kept = Refreshed(source.read, 10)
    assert await asyncio.gather(*(kept.get() for _ in range(20))) == [1] * 20
    assert source.reads == 1


async def test_who_wants_it_anew_gets_what_began_to_be_read_later(source: Source, clock: list[float]) -> None:
    """Not what is being read already; all who want that share the next reading."""
    kept = Refreshed(source.read, 10)
    source.open.clear()
    before = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock[0] += 1
    anew = [asyncio.create_task(kept.anew()) for _ in range(20)]
    await asyncio.sleep(0)
    source.open.set()
    assert await before == 1
    assert await asyncio.gather(*anew) == [2] * 20
    source.fails = True
    clock[0] += 1
    with pytest.raises(OSError, match="away"):
        await kept.anew()


async def test_who_asks_in_the_second_half_waits_for_nobody(source: Source, clock: list[float]) -> None:
    kept = Refreshed(source.read, 10)
    await kept.get()
    clock[0] += 6
    source.open.clear()
    assert await kept.get() == 1
    source.open.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await kept.get(), source.reads) == (2, 2)


async def test_what_is_too_old_is_told_to_nobody(source: Source, clock: list[float]) -> None:
    """Its age counts from before it was read."""
    kept = Refreshed(source.read, 10)
    await kept.get()
    clock[0] += 10
    assert await kept.get() == 2


async def test_who_cannot_be_told_learns_why_and_the_next_one_asks_again(source: Source, clock: list[float]) -> None:
    kept = Refreshed(source.read, 10)
    source.fails = True
    with pytest.raises(OSError, match="away"):
        await kept.get()
    source.fails = False
    assert await kept.get() == 2
    source.fails = True
    clock[0] += 6
    assert await kept.get() == 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock[0] += 6
    with pytest.raises(OSError, match="away"):
        await kept.get()


async def test_one_who_leaves_takes_nothing_from_the_others(source: Source) -> None:
    kept = Refreshed(source.read, 10)
    source.open.clear()
    leaving, staying = asyncio.create_task(kept.get()), asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    source.open.set()
    assert await staying == 1


# --- in lists -------------------------------------------------------------------------------------


async def test_what_comes_together_is_in_one_list() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        for number in range(7):
            yield number

    async with aclosing(numbers()) as source:
        assert [batch async for batch in batches(source, 3, 0.001)] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_comes_singly_is_not_waited_for() -> None:
    came: asyncio.Queue[int] = asyncio.Queue()

    async def numbers() -> AsyncGenerator[int, None]:
        while True:
            yield await came.get()

    async with aclosing(numbers()) as source, aclosing(batches(source, 10, 0.001)) as found:
        came.put_nowait(1)
        assert await anext(found) == [1]
        came.put_nowait(2)
        came.put_nowait(3)
        assert await anext(found) == [2, 3]


async def test_what_came_before_an_error_is_given_before_it() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        raise OSError("away")

    found = []
    async with aclosing(numbers()) as source:
        with pytest.raises(OSError, match="away"):
            async for batch in batches(source, 1, 0.001):
                found += batch
    assert found == [1, 2]
