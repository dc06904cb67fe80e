"""Prefect's own command, on SQLite without the standstills of a minute: `python -m infra.prefect_server server start`.

A statement that fails ("database is locked") leaves its cursor open in SQLAlchemy's dialect for aiosqlite (2.0.58,
`AsyncAdapt_aiosqlite_cursor.execute`), in a cycle with its traceback. The garbage collector frees it on the thread of
the event loop, and that waits for the mutex of the cursor's connection (`sqlite3_reset`), which by then another
statement may hold that waits for SQLite's write lock. Whoever has the write lock cannot commit, since the loop stands
still: until SQLite gives up, after Prefect's `busy_timeout` of 60 s. So a cursor is closed here as soon as a statement
fails, on the connection's own thread.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiosqlite

METHODS = ("execute", "executemany", "fetchall")
"""What SQLAlchemy calls."""


def close_what_fails(kind: type[aiosqlite.Cursor] = aiosqlite.Cursor) -> None:
    """Let a cursor close itself where one of its statements fails or is cancelled."""
    for name in METHODS:
        setattr(kind, name, _closing(getattr(kind, name)))


def _closing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def call(self: aiosqlite.Cursor, *arguments: Any) -> Any:
        try:
            return await method(self, *arguments)
        except BaseException:
            with suppress(Exception):  # a connection that is closed has closed its cursors
                await self.close()
            raise

    return call


if __name__ == "__main__":
    close_what_fails()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
