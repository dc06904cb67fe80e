"""Few flow runs start at once where Prefect keeps its data in SQLite: more only wait for one another's lock.

Measured before `infra/prefect_server.py` was: sixteen runs that start together took 17 s on SQLite and 5.5 s on
PostgreSQL; a few at a time take less than all at once. The slots are files of the stack's home, so they bound all
processes that use it together.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

SLOTS = 4
PATIENCE_S = 60.0
"""A run that got no slot for so long starts all the same."""
POLL_S = 0.05


@asynccontextmanager
async def starting(home: Path, slots: int = SLOTS) -> AsyncGenerator[Callable[[], None], None]:
    """Wait for a slot among those that start; the function that is given frees it once the run has started."""
    folder = home / "starts"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as held:
        files = [held.enter_context((folder / str(number)).open("w")) for number in range(slots)]
        slot = await _taken(files)

        def free() -> None:
            if slot is not None:
                fcntl.flock(slot, fcntl.LOCK_UN)

        yield free


@asynccontextmanager
async def at_will() -> AsyncGenerator[Callable[[], None], None]:
    """No bound: the database takes as many starts as come."""
    yield lambda: None


async def _taken(files: Sequence[IO[str]]) -> IO[str] | None:
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while loop.time() < until:
        for file in files:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return file
        await asyncio.sleep(POLL_S)
    return None
