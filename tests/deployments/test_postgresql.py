"""Prefect on PostgreSQL: a server of the test's own, the rest of the stack given from outside."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deployments.stack.ports import free_port
from tests.deployments.commands import conclave

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
INITDB = shutil.which("initdb") or (str(BINARIES[-1]) if BINARIES else None)
ROOT = os.geteuid() == 0  # PostgreSQL refuses to run as root

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        INITDB is None,
        reason="there is no PostgreSQL: `make test-stacks` installs it where it may, else install postgresql",
    ),
]


@pytest_asyncio.fixture
async def database() -> AsyncGenerator[str, None]:
    """The URL of a new database."""
    # Not in pytest's folder, which is closed to other users.
    with tempfile.TemporaryDirectory(prefix="conclave-postgresql-") as folder:
        async with database_in(Path(folder)) as url:
            yield url


@asynccontextmanager
async def database_in(folder: Path) -> AsyncGenerator[str, None]:
    """A server with its data in a folder."""
    port = free_port(15432)
    if ROOT:
        shutil.chown(folder, "postgres")
    data, command = folder / "data", Path(str(INITDB)).resolve()

    def run(program: str, *arguments: str) -> None:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if ROOT else {}
        called = [str(command.with_name(program)), "-D", str(data), *arguments]
        subprocess.run(called, check=True, capture_output=True, timeout=60, cwd=folder, **user)

    await asyncio.to_thread(run, "initdb", "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    await asyncio.to_thread(run, "pg_ctl", "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://postgres:s3cret@127.0.0.1:{port}/postgres"
    finally:
        await asyncio.to_thread(run, "pg_ctl", "-m", "immediate", "-w", "stop")


async def test_a_stack_keeps_prefects_data_in_postgresql(
    stack: Any, simulator: Any, database: str, tmp_path: Path, new_id: str
) -> None:
    """Only its Prefect is started; a council decides; the URL's password is nowhere on disk."""
    given = {"CONCLAVE_HOME": str(tmp_path / "home"), "CONCLAVE_PREFECT_DATABASE": database, "PREFECT_API_URL": ""}
    given |= {"PREFECT_HOME": ""}
    up = await conclave("up", "--detach", **given)
    try:
        assert up.code == 0, up.err
        status = await conclave("status", "--json", **given)
        decided = await conclave("deliberate", "--local", "Name the service", "--id", new_id, "--json", **given)
    finally:
        down = await conclave("down", **given)
    told = json.loads(status.out)
    assert (status.code, decided.code, down.code) == (0, 0, 0), decided.err
    assert told["database"] == "postgresql"
    assert told["parts"]["prefect"]["state"] == "running"
    assert json.loads(decided.out)["status"] == "COMPLETED"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert b"s3cret" not in kept


async def test_a_database_that_does_not_answer_ends_the_start_in_words(stack: Any, tmp_path: Path) -> None:
    """Exit code 6 with the end of Prefect's log, and nothing left running."""
    closed = f"postgresql://postgres:s3cret@127.0.0.1:{free_port(15532)}/postgres"
    given = {"CONCLAVE_HOME": str(tmp_path / "home"), "CONCLAVE_PREFECT_DATABASE": closed, "PREFECT_API_URL": ""}
    up = await conclave("up", "--detach", **given, PREFECT_HOME="")
    assert up.code == 6
    assert "prefect ended while it was starting" in up.err
    assert "s3cret" not in up.err
    assert (await conclave("status", **given)).code == 6
