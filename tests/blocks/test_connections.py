"""Connections of a loop: opened once, closed once, never kept when they failed."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import pytest


@pytest.fixture(autouse=True)
def _own_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's own connections stay out of it."""
    import blocks.connections

    monkeypatch.setattr(blocks.connections, "_pools", WeakKeyDictionary())


class Door:
    """Something that is opened and closed, slowly, and counts both."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals, self.opened, self.closed = refusals, 0, 0

    async def open(self) -> Any:
        """A connection of its own for each opening."""
        self.opened += 1
        number = self.opened
        await asyncio.sleep(0.01)
        if number <= self.refusals:
            raise ConnectionError(f"refused {number}")
        return f"connection {number}", self.close

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


async def test_concurrent_first_uses_share_one_opening() -> None:
    """Many callers, one connection; another key has its own."""
    from blocks.connections import connections, shared

    door = Door()
    async with connections():
        found = await asyncio.gather(*(shared("a", door.open) for _ in range(20)))
        other = await shared("b", door.open)

    assert (set(found), other) == ({"connection 1"}, "connection 2")
    assert (door.opened, door.closed) == (2, 2)


async def test_a_failed_opening_is_everyones_and_is_not_kept() -> None:
    """All who waited for it hear of it, and the next caller opens anew."""
    from blocks.connections import connections, shared

    door = Door(refusals=1)
    async with connections():
        found = await asyncio.gather(*(shared("a", door.open) for _ in range(3)), return_exceptions=True)
        again = await shared("a", door.open)

    assert [str(error) for error in found] == ["refused 1"] * 3
    assert again == "connection 2"
    assert (door.opened, door.closed) == (2, 1)


async def test_a_caller_that_leaves_does_not_take_the_opening_along() -> None:
    """Others still wait for it."""
    from blocks.connections import connections, shared

    door = Door()
    async with connections():
        first = asyncio.create_task(shared("a", door.open))
        await asyncio.sleep(0)
        second = asyncio.create_task(shared("a", door.open))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "connection 1"

    assert first.cancelled()
    assert (door.opened, door.closed) == (1, 1)


async def test_nested_scopes_close_once_at_the_outermost_end() -> None:
    """The inner scopes, also those of other tasks, leave everything open."""
    from blocks.connections import connections, shared

    door = Door()

    async def inner() -> None:
        async with connections():
            await shared("a", door.open)

    async with connections():
        await asyncio.gather(inner(), inner())
        async with connections():
            await shared("a", door.open)
        assert (door.opened, door.closed) == (1, 0)

    assert (door.opened, door.closed) == (1, 1)


async def test_the_last_of_overlapping_scopes_closes() -> None:
    """The one that began may end first."""
    from blocks.connections import connections, shared

    door, may_end = Door(), asyncio.Event()

    async def stays() -> None:
        async with connections():
            await may_end.wait()

    async with connections():
        staying = asyncio.create_task(stays())
        await asyncio.sleep(0)
        await shared("a", door.open)
    assert door.closed == 0
    may_end.set()
    await staying

    assert door.closed == 1


async def test_scopes_one_after_another_open_anew() -> None:
    """Nothing of an earlier scope is left."""
    from blocks.connections import connections, shared

    door, found = Door(), []
    for _ in range(2):
        async with connections():
            found.append(await shared("a", door.open))

    assert found == ["connection 1", "connection 2"]
    assert door.closed == 2


async def test_an_opening_that_hangs_does_not_keep_its_scope_open() -> None:
    """It is cancelled at the end."""
    from blocks.connections import connections, shared

    began, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> Any:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async with connections():
        waiting = asyncio.create_task(shared("a", hang))
        await began.wait()

    assert ended.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_one_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    """All are closed, and the error is not hidden."""
    from blocks.connections import connections, shared

    door = Door()

    async def broken() -> Any:
        async def close() -> None:
            raise OSError("broken pipe")

        return "broken", close

    with pytest.raises(OSError, match="broken pipe"):
        async with connections():
            await shared("a", door.open)
            await shared("b", broken)
            await shared("c", door.open)

    assert door.closed == 2


async def test_use_outside_of_a_scope_is_an_error() -> None:
    """Nobody would close what was opened there, and the error says what is missing."""
    from blocks.connections import shared

    door = Door()
    with pytest.raises(RuntimeError, match=r"connections\(\) scope"):
        await shared("a", door.open)

    assert door.opened == 0


async def test_a_task_that_swallows_a_cancel_still_ends() -> None:
    """A cancel can get lost in `asyncio.wait_for`; it is repeated until the task has ended."""
    from blocks.background import cancel_and_wait

    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1

    async def failing() -> None:
        raise ValueError("its own")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await cancel_and_wait(tasks)

    assert swallowed == 2
    assert [task.done() for task in tasks] == [True, True]
