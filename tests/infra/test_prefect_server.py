"""The mended cursors of Prefect's server on SQLite."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

STANDSTILL = """
import asyncio, gc, sqlite3, sys
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from infra.prefect_server import close_what_fails

async def main(path):
    gc.disable()
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 3})
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE t (i INTEGER UNIQUE)")
    writer.execute("INSERT INTO t VALUES (1)")
    async with engine.connect() as connection:
        failed = []
        try:
            await connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        except IntegrityError as error:
            failed.append((error, failed))
        del failed
        await connection.rollback()
        writer.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(connection.exec_driver_sql("INSERT INTO t VALUES (2)"))
        await asyncio.sleep(0.5)
        gc.collect()
        writer.execute("ROLLBACK")
        try:
            await waiting
            print("written")
        except OperationalError:
            print("locked")
    await engine.dispose()

if sys.argv[2] == "mended":
    close_what_fails()
asyncio.run(main(sys.argv[1]))
"""
"""One connection waits for the write lock while garbage with a failed statement of its own is collected."""


@pytest.mark.parametrize(
    ("cursors", "found"),
    [
        ("mended", "written"),
        ("as they are", "locked"),  # once this is "written", infra/prefect_server.py is not needed any more
    ],
)
async def test_garbage_does_not_stop_the_loop(tmp_path: Path, cursors: str, found: str) -> None:
    """The writer can let go of its lock before the waiting statement gives up."""
    command = (sys.executable, "-W", "error::ResourceWarning", "-c", STANDSTILL, str(tmp_path / "t.db"), cursors)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode().split()) == (0, [found])
