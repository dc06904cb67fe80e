"""The doctor: one real question to every part, and what to do where the answer is missing.

A part that does not run is reported from its supervisor; one that runs is asked as `tasks/operate/diagnose.py` does.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from blocks.connections import connections
from blocks.documents import fresh
from blocks.prefect_api import prefect_clients
from blocks.vllm_server import VLLM
from deployments.ownership import own_record
from deployments.settings import Settings
from deployments.stack import PartStatus, StackStatus, environment
from deployments.stack.exceptions import NoAnswerError
from deployments.stack.probes import ask_llm
from tasks.council.exceptions import ConclaveError
from tasks.operate.diagnose import (
    APART,
    DEAD,
    UP,
    Finding,
    agents_answer,
    asked,
    councils_answer,
    dead_letters_answer,
    installation_answers,
    look_at,
    record_answers,
    worker_answers,
)
from tasks.operate.roundtrip import run_comes_through

LOW_BYTES = 1 << 30
REFUSED = "refuses our key"
"""What a probe says of a part that wants another key."""


async def examine(found: StackStatus, settings: Settings, councils: Sequence[str]) -> AsyncGenerator[Finding, None]:
    """Ask everybody; `councils` are those whose members are asked, all of them where it is empty."""
    yield _disk(settings.home)
    if found.prefect is None:
        yield Finding(subject="stack", state="failed", text=f"the stack of {found.home} is not up", advice=UP)
        return
    for problem in found.problems:
        yield Finding(subject="home", state="failed", text=problem, advice=f"conclave down; {UP}")
    has_blocks = _answers(found, "prefect")
    for name, part in found.parts.items():
        if not (has_blocks and _refuses_key(name, part)):
            yield _part(name, part)
    if not has_blocks:
        text = "not asked: records, hosts and models are known from Prefect's blocks"
        yield Finding(subject="council", state="failed", text=text, advice="mend prefect first")
        return
    async with prefect_clients(), connections():
        async for finding in _known_by_blocks(found, settings, councils):
            yield finding


async def _known_by_blocks(
    found: StackStatus, settings: Settings, councils: Sequence[str]
) -> AsyncGenerator[Finding, None]:
    """What can be asked where Prefect's blocks can be read."""
    for name, part in found.parts.items():
        if _refuses_key(name, part):
            yield await _with_key_of_block(name, part)
    for question in _questions(found, settings):
        if question.can_be_asked:
            yield await asked(question.subject, question.ask, question.advice)
    async for finding in councils_answer(councils, look_at):
        yield finding


class _Question(NamedTuple):
    """What is asked about, whether the parts that it needs are there, how, and what to do where no answer comes."""

    subject: str
    can_be_asked: bool
    ask: Callable[[], Awaitable[str]]
    advice: str


def _questions(found: StackStatus, settings: Settings) -> tuple[_Question, ...]:
    """What is asked beside the councils, in this order."""
    nats, ray, worker = (_answers(found, name) for name in ("nats", "ray", "worker"))
    has_worker = "worker" in found.parts
    return (
        _Question("record", nats, record_answers, "conclave logs nats"),
        _Question("installation", nats, lambda: _installation(found, settings), APART),
        _Question("dead letters", nats, dead_letters_answer, DEAD),
        _Question("agents", ray, agents_answer, "conclave logs ray"),
        _Question("queue", nats and worker, worker_answers, "conclave logs worker"),
        # Also with a worker that is unwell: it may say why.
        _Question("runs", nats and has_worker, run_comes_through, "conclave logs worker, conclave logs prefect"),
    )


def _answers(found: StackStatus, name: str) -> bool:
    """Whether the stack has a part and it answers."""
    part = found.parts.get(name)
    return part is not None and bool(part.answers)


def _refuses_key(name: str, part: PartStatus) -> bool:
    """Whether this is a model server from outside that takes another key than this home and this shell have."""
    refused = part.answers is False and REFUSED in (part.reason or "")
    return name == "llm" and part.state == "external" and refused


async def _with_key_of_block(name: str, part: PartStatus) -> Finding:
    """What a model server says to those who ask with the key of its block, as members do."""
    try:
        server = await fresh(VLLM)
        if server.api_key is None or server.base_url != part.url:
            return _part(name, part)
        await asyncio.to_thread(ask_llm, server.base_url, server.api_key.get_secret_value(), True)
    except (ConclaveError, httpx.HTTPError) as error:
        if not isinstance(error, NoAnswerError):
            return _part(name, part)
        reason = f"with the key of its block, too: {error}"
        return _part(name, part.model_copy(update={"reason": reason}))
    text = f"{part.state} at {part.url}; it takes the key of its block, which `conclave status` does not have"
    return Finding(subject=name, state="ok", text=text)


async def _installation(found: StackStatus, settings: Settings) -> str:
    """Whether Prefect's names and the block's record are those of the NATS beside this home."""
    nats_url = environment(found)["NATS_URL"]
    return await installation_answers(await own_record(settings.model_copy(update={"nats_url": nats_url})))


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
        return Finding(
            subject=name, state="failed", text=f"{part.reason} ({where})", advice=_advice_outside(name, part)
        )
    shows = f"conclave logs {name}"
    if part.answers and not part.restarts:
        return Finding(subject=name, state="ok", text=where)
    if part.answers:
        text = f"{where}, but it died and was started again {part.restarts} x"
        return Finding(subject=name, state="warning", text=text, advice=f"{shows} shows why")
    ended = part.state in ("stopped", "failed")
    advice = f"{UP} starts it again; {shows} shows why" if ended else f"wait a little and ask again; {shows}"
    return Finding(subject=name, state="failed", text=f"{where}: {part.reason or 'no answer'}", advice=advice)


def _advice_outside(name: str, part: PartStatus) -> str:
    """What to do about a part from outside that does not answer us."""
    if _refuses_key(name, part):
        return "write its key into the block vLLM Server/default in Prefect's UI, or give it in CONCLAVE_LLM_API_KEY"
    return "it was given from outside: start it there, or `conclave down` and unset its variable"
