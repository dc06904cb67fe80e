"""Slots among those that start: bounded over processes, freed by the run itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployments import starts
from deployments.starts import at_will, starting


async def test_no_more_start_at_once_than_there_are_slots(tmp_path: Path) -> None:
    """Those who wait get in as others say that they have started, long before these end."""
    inside, most, ended = 0, 0, asyncio.Event()

    async def run() -> None:
        nonlocal inside, most
        async with starting(tmp_path, slots=2) as started:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1
            started()
            await ended.wait()

    async with asyncio.timeout(30):
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(run()) for _ in range(6)]
            while most < 2 or inside:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            ended.set()
        assert all(run.done() for run in runs)
    assert most == 2


async def test_a_slot_falls_with_whoever_holds_it(tmp_path: Path) -> None:
    """Also where it never came to start."""
    with pytest.raises(RuntimeError):
        async with starting(tmp_path, slots=1):
            raise RuntimeError
    async with asyncio.timeout(30), starting(tmp_path, slots=1) as started:
        started()
        started()


async def test_a_run_is_not_held_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it starts without a slot."""
    monkeypatch.setattr(starts, "PATIENCE_S", 0.2)
    async with asyncio.timeout(30), starting(tmp_path, slots=1), starting(tmp_path, slots=1) as started:
        started()


async def test_nobody_waits_where_nothing_bounds() -> None:
    """As on PostgreSQL."""
    async with at_will() as started, at_will():
        started()
