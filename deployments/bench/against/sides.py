"""The two sides of a comparison as the driver has them: processes that measure when they are asked to."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import deployments
from deployments.bench.against.side import ORDER_TIMEOUT_S
from deployments.bench.program import EXTERNAL, BenchError
from deployments.stack.paths import log_tail
from tasks.council.exceptions import WrongUse

Say = Callable[[str], None]

SIDE = Path("deployments/bench/against/side.py")
OURS = Path(deployments.__file__).resolve().parents[1]
UP_TIMEOUT_S = 600.0
DOWN_TIMEOUT_S = 240.0
KILL_TIMEOUT_S = 30.0
_OF_ANOTHER_STACK = ("PREFECT_", "RAY_", "NATS_", "VLLM_", "CONCLAVE_LLM_")
"""Beginnings of variables that lead to a stack, or log into one; each side makes its own."""


class NotUpError(BenchError):
    """A side's stack did not come up."""


class Side:
    """A checkout's stack with the process that measures it."""

    def __init__(self, name: str, process: Process, ready: Mapping[str, Any], log: Path) -> None:
        self.name, self.ready, self._process, self._log = name, ready, process, log

    @property
    def home(self) -> Path:
        """The home of its stack."""
        return Path(self.ready["home"])

    @property
    def pid(self) -> int:
        """The process that measures."""
        return self._process.pid

    @property
    def told(self) -> dict[str, Any]:
        """For the report: where its code is, and its versions."""
        return {name: self.ready.get(name) for name in ("root", "git", "python", "versions")}

    async def wall_s(self, peer: str, size: int) -> float:
        """Measure one council. Raises BenchError."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):  # its end is told by the answer that does not come
            self._process.stdin.write(json.dumps({"peer": peer, "size": size}).encode() + b"\n")
            await self._process.stdin.drain()
        whose = f"{self.name}, {peer} with {size} members"
        # a failed order ends the side, which takes its stack down before it does
        return float((await _answer(whose, self._process, self._log, ORDER_TIMEOUT_S + DOWN_TIMEOUT_S))["wall_s"])


@asynccontextmanager
async def side(name: str, checkout: Path, latency_s: float, folder: Path) -> AsyncGenerator[Side, None]:
    """The checkout's stack, up; it is down when the block ends. Raises BenchError."""
    log = folder / f"{name}.log"
    process = await _started(checkout, latency_s, log)
    try:
        try:
            ready = await _answer(name, process, log, UP_TIMEOUT_S)
        except BenchError as error:
            raise NotUpError(str(error)) from error
        if ready["root"] != str(checkout):
            raise BenchError(f"{name}: what was measured would be {ready['root']}, and not {checkout}")
        yield Side(name, process, ready, log)
    finally:
        await asyncio.shield(asyncio.ensure_future(_end(process)))


def checked(checkout: Path) -> Path:
    """The checkout's folder. Raises ValueError where it is none."""
    found = checkout.expanduser().resolve()
    if not (found / "deployments" / "bench" / "worker").is_dir():
        raise WrongUse(f"{found} is no checkout of Conclave that knows `conclave bench worker`")
    return found


def interpreter(checkout: Path) -> str:
    """The checkout's own Python, where it has an environment, else this one."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


async def _started(checkout: Path, latency_s: float, log: Path) -> Process:
    script = checkout / SIDE
    if not script.is_file():
        script = OURS / SIDE
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OF_ANOTHER_STACK)}
    environ = {name: value for name, value in environ.items() if name not in EXTERNAL}
    with log.open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            # -P: the script's own folder stays off the import path, on which the checkout comes first
            *(interpreter(checkout), "-P", str(script), str(latency_s)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            cwd=checkout,
            env={**environ, "PYTHONPATH": str(checkout)},
            start_new_session=True,  # Ctrl-C ends the orders, and with them the stack in its own order
        )


async def _answer(name: str, process: Process, log: Path, timeout_s: float) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
    except TimeoutError:
        raise BenchError(f"{name}: no answer for {timeout_s:.0f} s") from None
    if not line:
        raise BenchError(f"{name}: its process ended:\n{log_tail(log)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _end(process: Process) -> None:
    """Let it take its stack down, which it does when its orders end; not without bounds."""
    assert process.stdin is not None
    process.stdin.close()
    for end, timeout_s in ((None, DOWN_TIMEOUT_S), (process.terminate, KILL_TIMEOUT_S), (process.kill, KILL_TIMEOUT_S)):
        if end is not None:
            with suppress(ProcessLookupError):
                end()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), timeout_s)
            return
