"""What is mended in Prefect's server on SQLite. Once it ends "as it is" as it does "mended", the mend can go."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

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

asyncio.run(main(f"{sys.argv[1]}/as-it-is.db"))
close_what_fails()
asyncio.run(main(f"{sys.argv[1]}/mended.db"))
"""
"""One connection waits for the write lock while garbage with a failed statement of its own is collected."""


REFUSED = """
import asyncio, sqlite3, sys
from contextlib import suppress
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from infra.prefect_server import lock_first

async def main(path):
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE t (i INTEGER)")
    prefect = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{path}")
    engine = await prefect.engine()
    async with await prefect.session(engine) as session:
        try:
            async with prefect.begin_transaction(session):
                await session.execute(text("SELECT i FROM t"))
                with suppress(sqlite3.OperationalError):
                    other.execute("INSERT INTO t VALUES (1)")
                await session.execute(text("INSERT INTO t VALUES (2)"))
            print("written")
        except OperationalError:
            print("locked")
    await engine.dispose()

asyncio.run(main(f"{sys.argv[1]}/as-it-is.db"))
lock_first()
asyncio.run(main(f"{sys.argv[1]}/mended.db"))
"""
"""A transaction of Prefect reads, somebody else would write, and it writes."""


@pytest.mark.parametrize("trouble", [STANDSTILL, REFUSED], ids=["standstill", "refused"])
async def test_a_write_is_not_given_up(tmp_path: Path, trouble: str) -> None:
    """Garbage does not stop the loop, so that the lock is let go of; and what was read may be written."""
    command = (sys.executable, "-W", "error::ResourceWarning", "-c", trouble, str(tmp_path))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode().split()) == (0, ["locked", "written"])


def test_a_sound_schema_is_checked_once_and_another_every_time(importable_prefect: None) -> None:
    """What Prefect's server says of a run's parameters stays the same."""
    import jsonschema
    from jsonschema.validators import Draft202012Validator, extend

    from infra.prefect_server import check_schemas_once

    kind, checked = extend(Draft202012Validator), []
    check = kind.check_schema
    kind.check_schema = staticmethod(lambda schema, **options: (checked.append(schema), check(schema, **options)))
    check_schemas_once(kind)
    sound, unsound = {"properties": {"a": {"type": "number"}}}, {"properties": {"a": {"type": "no such"}}}
    for _ in range(3):
        jsonschema.validate({"a": 1}, sound, kind)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"a": "x"}, {**sound}, kind)
        with pytest.raises(jsonschema.SchemaError):
            jsonschema.validate({"a": 1}, unsound, kind)
    assert checked == [sound, unsound, unsound, unsound]
    with pytest.raises(jsonschema.SchemaError):
        kind.check_schema(unsound, format_checker=None)
