"""An `up` that is interrupted leaves nothing behind, however far it has come."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from deployments.stack.processes import family
from tests.faults.conftest import PATIENCE_S, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


@pytest.mark.parametrize("so_far", ["nats ready", "councils ready"], ids=["while parts start", "while it is furnished"])
async def test_an_interrupted_up_leaves_nothing_behind(tmp_path: Path, so_far: str) -> None:
    """One SIGINT: exit code 130, and no process of that home is left."""
    stack = Stack(tmp_path / "home")
    coming = await stack.start("up", "--detach", "--simulate")
    try:
        assert coming.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while so_far.encode() not in await coming.process.stderr.readline():
                pass
        coming.process.send_signal(signal.SIGINT)
        ended = await coming.end()
        assert ended.code == 130
        assert "interrupted: what was started here is ended" in ended.err
        assert family(stack.settings.home).everyone == set()
    finally:
        stack.down()
