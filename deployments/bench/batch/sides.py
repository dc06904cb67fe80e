"""Runs a side of the benchmark as a program of its own, and measures it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from blocks.background import background
from deployments.bench.batch.peers.protocol import Job
from deployments.bench.batch.usage import Groups, Meter, ray_groups, tree, used
from tasks.council.exceptions import ConclaveError

LOOK_S = 1.0
END_S = 20.0
MAX_LINE = 1 << 20
_WITHOUT = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that would lead a peer's own Ray to the stack's."""

Say = Callable[[str], None]


class SideFailed(ConclaveError):
    """A side did not make all of its calls; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What a side took: seconds, answered calls, processor seconds and memory (MiB at the end) by group.

    `more` has what only some sides have.
    """

    seconds: float
    calls: int
    cpu_s: Mapping[str, float]
    memory_mib: Mapping[str, float]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


MODULES = {
    "floor": "deployments.bench.batch.peers.plain_client",
    "langgraph": "deployments.bench.batch.peers.graphs",
    "prefect": "deployments.bench.batch.peers.stock_prefect",
    "raydata": "deployments.bench.batch.peers.ray_data",
}


def command_of(name: str) -> list[str]:
    """How the side of this name is started, where it runs in our own environment."""
    return [sys.executable, "-m", MODULES[name]]


async def measured(command: Sequence[str], job: Job, calls: int, patience_s: float, rays: bool = False) -> Outcome:
    """Let a side work, within `patience_s` from its start. Raises SideFailed."""
    log = Path(job.folder) / "side.log"
    async with _program(command, log) as process:
        try:
            async with asyncio.timeout(patience_s):
                await _send(process, job.text())
                await _told(process, log)
                meter = Meter(lambda: _groups(process.pid, rays))
                before = meter.cpu_s()
                await _send(process, "go")
                async with background(_keep_looking(meter)):
                    result = await _told(process, log)
        except TimeoutError:
            raise SideFailed(f"not done within {patience_s:g} s") from None
        after, memory = meter.cpu_s(), meter.memory_mib()
    if result["answered"] != calls:
        raise SideFailed(f"{result['answered']} of {calls} calls were answered")
    return Outcome(result["seconds"], calls, used(after, before), memory)


def _groups(pid: int, rays: bool) -> Groups:
    """The peer itself, with the processes that Ray runs its code in, and Ray's daemons beside it."""
    processes = tree(pid)
    if not rays:
        return {"itself": processes}
    found = ray_groups(processes[1:])
    return {"itself": [*processes[:1], *found["agent hosts"]], "Ray's daemons": found["Ray's daemons"]}


async def _keep_looking(meter: Meter) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        meter.cpu_s()


@asynccontextmanager
async def _program(command: Sequence[str], log: Path) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """The program, which is ended with all that it started."""
    environ = {name: value for name, value in os.environ.items() if name not in _WITHOUT}
    pipe = asyncio.subprocess.PIPE
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=file, env=environ, limit=MAX_LINE
        )
    try:
        yield process
    finally:
        known = tree(process.pid)
        if process.stdin is not None:
            process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
        for one in known:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        await process.wait()


async def _send(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):  # it has ended, which its silence tells
        process.stdin.write(f"{line}\n".encode())
        await process.stdin.drain()


async def _told(process: asyncio.subprocess.Process, log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        raise SideFailed(f"ended early: {_last_words(log)}") from None
    return told


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "without a word"
