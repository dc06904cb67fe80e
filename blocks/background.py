"""Ending background tasks for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN_S = 0.1


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raised is theirs.

    A cancel can get lost: `asyncio.wait_for` of Python 3.11 swallows one that arrives together with its result
    (CPython issue 86296), and nats-py waits with it. So it is repeated until the task has ended.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
