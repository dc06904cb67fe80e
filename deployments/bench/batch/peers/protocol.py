"""What every side of the benchmark is: a program that prepares, waits for the word, works, and tells the result.

On standard input it gets a job as one line of JSON, then a line that says go, then the end; on standard output it tells
that it is ready, and the result, a line each. What its libraries print goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEY = "CONCLAVE_LLM_API_KEY"
"""Where the model server's key is taken from, since everybody can read a command line."""


@dataclass(frozen=True)
class Job:
    """What a side is to do: `calls` is the file of calls, `slots` how many at once. Times are seconds."""

    url: str
    model: str
    calls: str
    rows: int
    slots: int
    folder: str
    council: dict[str, Any]
    reviews: bool = False
    follow: bool = False
    """Whether the server's slots change, and have to be asked for."""

    @property
    def endpoint(self) -> str:
        """Where chats are completed."""
        return f"{self.url}/v1/chat/completions"

    def text(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    def lines(self) -> Iterator[tuple[dict[str, str], bytes]]:
        """The calls, read one by one: item, member and request's id, and the body as it is sent."""
        with Path(self.calls).open("rb") as file:
            for line in file:
                head, _, body = line.rstrip().partition(b"\t")
                yield json.loads(head), body


Work = Callable[[], Awaitable[int]]
"""Makes all calls; gives how many were answered."""
Side = Callable[[Job], AbstractAsyncContextManager[Work]]


def authorization() -> dict[str, str]:
    """The header that the model server asks for; none where there is no key."""
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def serve(side: Side) -> None:
    """Be such a program."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = Job(**json.loads(sys.stdin.readline()))
    try:
        asyncio.run(_serve(side, job, lambda said: told.write(json.dumps(said) + "\n")))
    except BaseExceptionGroup as failed:
        raise _first(failed) from None  # so that the last line says what went wrong


def _first(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed


async def _serve(side: Side, job: Job, tell: Callable[[dict[str, Any]], object]) -> None:
    async with side(job) as work:
        tell({"ready": True})
        sys.stdin.readline()
        started = time.time()
        answered = await work()
        tell({"seconds": time.time() - started, "started": started, "answered": answered})
        sys.stdin.readline()
