"""The doctor: one real question to every part, and what to do where the answer is missing.

A part that does not run is reported from its supervisor; one that runs is made to do what a deliberation needs
of it: store and read back a message, read a council, find agent hosts, generate tokens.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
from pydantic import BaseModel, ConfigDict, Field

from blocks.connections import connections, prefect_clients
from blocks.exceptions import BlockMissing, ConclaveError
from blocks.jetstream import JetStream
from blocks.loading import council_names, fresh
from blocks.ray_agents import RayAgents
from blocks.vllm_server import VLLM, ChatCall
from deployments.settings import Settings
from deployments.stack import PartStatus, StackStatus
from tasks.council.models import InvalidRequest
from tasks.plans import council_spec

QUESTION = [{"role": "user", "content": "Answer with one word: ready"}]
TOKENS = 8
PATIENCE_S = 30.0
"""For one answer; a model that is cold may take a while."""
LOW_BYTES = 1 << 30
UP = "conclave up --detach"


class Finding(BaseModel):
    """What one question brought."""

    model_config = ConfigDict(frozen=True)

    subject: str = Field(description="Who was asked.")
    state: Literal["ok", "warning", "failed"]
    text: str = Field(description="What came back, or what went wrong.")
    advice: str | None = Field(None, description="What to do about it.")
    seconds: float | None = Field(None, description="How long the answer took.")


class Model(NamedTuple):
    """A model that members ask: the name of its server's block, and its own, None for the server's default."""

    server: str
    model: str | None


async def examine(found: StackStatus, settings: Settings, councils: Sequence[str]) -> AsyncGenerator[Finding, None]:
    """Ask everybody; `councils` are those whose members are asked, all of them where it is empty."""
    yield _disk(settings.home)
    if found.prefect is None:
        yield Finding(subject="stack", state="failed", text=f"the stack of {found.home} is not up", advice=UP)
        return
    for name, part in found.parts.items():
        yield _part(name, part)
    working = {name for name, part in found.parts.items() if part.answers}
    if "prefect" not in working:
        text = "not asked: records, hosts and models are known from Prefect's blocks"
        yield Finding(subject="council", state="failed", text=text, advice="mend prefect first")
        return
    async with prefect_clients(), connections():
        if "nats" in working:
            yield await _asked("record", _record, "conclave logs nats")
        if "ray" in working:
            yield await _asked("agents", _agents, "conclave logs ray")
        async for finding in _councils(councils):
            yield finding


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    low = free < LOW_BYTES
    advice = "make room: a record that cannot be written ends deliberations" if low else None
    text = f"{free / 2**30:.1f} GiB free for {home}"
    return Finding(subject="disk", state="warning" if low else "ok", text=text, advice=advice)


def _part(name: str, part: PartStatus) -> Finding:
    where = f"{part.state} at {part.url}"
    if part.state == "external" and not part.answers:
        advice = "it was given from outside: start it there, or `conclave down` and unset its variable"
        return Finding(subject=name, state="failed", text=f"{part.reason} ({where})", advice=advice)
    shows = f"conclave logs {name}"
    if part.answers and not part.restarts:
        return Finding(subject=name, state="ok", text=where)
    if part.answers:
        text = f"{where}, but it died and was started again {part.restarts} x"
        return Finding(subject=name, state="warning", text=text, advice=f"{shows} shows why")
    ended = part.state in ("stopped", "failed")
    advice = f"{UP} starts it again; {shows} shows why" if ended else f"wait a little and ask again; {shows}"
    return Finding(subject=name, state="failed", text=f"{where}: {part.reason or 'no answer'}", advice=advice)


async def _councils(wanted: Sequence[str]) -> AsyncGenerator[Finding, None]:
    """Read the councils, then ask every model that their members would ask, each once."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            names = list(wanted) or await council_names()
            specs = [await council_spec(name) for name in names]
    except (ConclaveError, InvalidRequest, httpx.HTTPError, TimeoutError) as error:
        yield Finding(subject="councils", state="failed", text=_words(error), advice=UP)
        return
    if not specs:
        yield Finding(subject="councils", state="failed", text="Prefect holds none", advice="conclave councils apply")
        return
    yield Finding(subject="councils", state="ok", text=", ".join(names))
    members: dict[Model, list[str]] = {}
    for spec in specs:
        for member in spec.everyone:
            members.setdefault(Model(member.server, member.model), []).append(member.agent_id)
    for model, asking in sorted(members.items(), key=str):
        yield await _asked(f"model {model.server}", lambda: _model(model, asking), _advice(model))  # noqa: B023  # awaited here


def _advice(model: Model) -> str:
    return f"look at the block vLLM Server/{model.server} in Prefect's UI, and at the server itself"


async def _asked(subject: str, question: Callable[[], Awaitable[str]], advice: str) -> Finding:
    """Ask, with a clock beside it."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            text = await question()
    except (ConclaveError, httpx.HTTPError, TimeoutError) as error:
        seconds = time.monotonic() - started
        return Finding(subject=subject, state="failed", text=_words(error), advice=advice, seconds=seconds)
    return Finding(subject=subject, state="ok", text=text, seconds=time.monotonic() - started)


async def _record() -> str:
    record = await (await fresh(JetStream)).record()
    return f"stored a message and read it back; {await record.check()} messages on record"


async def _agents() -> str:
    agents = await fresh(RayAgents)
    if agents.runner != "warm":
        return "the stock runner starts a worker for each task"
    hosts = agents.task_runner().warm(PATIENCE_S)
    return f"{len(hosts)} agent hosts answer"


async def _model(model: Model, members: list[str]) -> str:
    """Generate a few tokens as these members would."""
    server = await fresh(VLLM, model.server)
    request_id = f"doctor-{uuid.uuid4()}"
    call = ChatCall(QUESTION, request_id, seed=0, temperature=0.0, max_tokens=TOKENS, model=model.model)

    async def ignore(_number: int, _error: Exception, _elapsed: int) -> None:
        """The last error is told."""

    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    answer = await server.complete(call, deadline, ignore)
    simulated = " (the SIMULATOR)" if answer.engine == "simulator" else ""
    return f"{answer.model}{simulated} gave {answer.usage.completion_tokens} tokens; {len(members)} members ask it"


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE_S:g} s"
    return str(error) if isinstance(error, BlockMissing) else f"{type(error).__name__}: {error}"
