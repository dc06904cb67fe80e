"""The command `conclave` as a user runs it, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

CONCLAVE = str(Path(sys.executable).with_name("conclave"))
OF_THE_STACK = (
    *("NATS_URL", "PREFECT_API_URL", "RAY_ADDRESS", "VLLM_URL", "VLLM_MODEL"),
    *("CONCLAVE_URL", "CONCLAVE_TOKEN", "CONCLAVE_GRPC_TARGET"),
)


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


Started = asyncio.subprocess.Process


async def start(*arguments: str, stdin: str = "", **environment: str) -> Started:
    """Begin a command; a variable that is empty counts as unset."""
    process = await asyncio.create_subprocess_exec(
        CONCLAVE,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert process.stdin is not None
    process.stdin.write(stdin.encode())
    process.stdin.close()
    return process


async def end(process: Started) -> Ended:
    """Wait for a command to end by itself."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def conclave(*arguments: str, **environment: str) -> Ended:
    """Run a command to its end."""
    return await end(await start(*arguments, **environment))
