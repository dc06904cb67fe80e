"""Tasks and flows for the tests of the warm runner, in a module that the agent hosts can import.

A flow's context travels to the hosts, so what a test does in a flow is not its code but is looked up here.
A task's function travels by value, with copies of the variables that it names; a plain function by reference.
So what has to be one thing in a process is reached through plain functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
from prefect import flow, get_run_logger, task

from blocks.warm.host import prefect_clients

bodies: dict[str, Callable[[], Any]] = {}
counts: dict[str, int] = {}
held = asyncio.Event()
entered: ContextVar[str] = ContextVar("entered", default="no")


@contextlib.asynccontextmanager
async def lifespan() -> AsyncGenerator[None, None]:
    """What a host of a test's own does its work in."""
    async with prefect_clients():
        entered.set("entered")
        yield


def was_entered() -> str:
    return entered.get()


@flow(name="warm-runner-test", persist_result=False)
async def asynchronous(key: str) -> Any:
    return await bodies.pop(key)()


@flow(name="warm-runner-test-sync", persist_result=False)
def synchronous(key: str) -> Any:
    return bodies.pop(key)()


@task
async def where() -> int:
    return os.getpid()


@task
def where_sync() -> int:
    return os.getpid()


@task
async def add(left: int, right: int = 1) -> int:
    return left + right


@task
async def total(values: list[int], more: dict[str, int]) -> int:
    return sum(values) + sum(more.values())


@task
async def fail(message: str) -> None:
    raise ValueError(message)


@task
async def rest(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


async def released() -> None:
    await held.wait()


@task
async def wait_held() -> str:
    await released()
    return "held"


@task
async def wait_for_file(path: str) -> int:
    while not Path(path).exists():
        await asyncio.sleep(0.1)
    return os.getpid()


@task
async def note_cancel(path: str) -> None:
    try:
        Path(path).write_text("begun")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(path).write_text("cancelled")
        raise


@task
async def fetch(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


@task(retries=2)
async def third_time_lucky(key: str) -> int:
    times = count(key)
    if times < 3:
        raise ValueError(key)
    return times


@task
async def say(text: str) -> None:
    get_run_logger().info(text)


@task
async def die() -> None:
    os._exit(1)


@task
async def leave() -> None:
    sys.exit(3)


@task
def leave_sync() -> None:
    sys.exit(3)


@task
async def cancel_oneself() -> None:
    raise asyncio.CancelledError


def count(key: str, step: int = 1) -> int:
    counts[key] = counts.get(key, 0) + step
    return counts[key]


@task
async def crowd(key: str) -> int:
    """How many of these ran in this process when this one began."""
    now = count(key)
    await asyncio.sleep(0.1)
    count(key, -1)
    return now


@task
async def parent(value: int) -> tuple[int, int, Any]:
    from blocks.warm.runner import settled

    children = [where.submit(), where.submit(), add.submit(value)]
    first, second, added = [await (await settled(child)).aresult() for child in children]  # type: ignore[union-attr]
    return first, second, added


@task
def parent_sync(value: int) -> int:
    return add.submit(value).result()


@task
async def blocking_parent() -> str:
    child = where.submit()
    with contextlib.suppress(RuntimeError):
        child.result()
        return "blocked the host"
    return "refused"


@task
async def surroundings() -> tuple[str | None, str | None, bool, str]:
    """A passed variable, one that is not set where the runner is, whether a module is loaded, and the lifespan."""
    return os.environ.get("PASSED"), os.environ.get("NOWHERE"), "colorsys" in sys.modules, was_entered()
