"""Real questions to every part that a deliberation needs, and what came back: for the doctor and for the canary.

Each part is made to do what a deliberation needs of it: store and read back a message, take requests, read a council,
run a task on an agent host, generate tokens.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import httpx
from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from blocks.chat import ChatCall
from blocks.dialect import Dialect
from blocks.documents import council_names, fresh, open_record
from blocks.exceptions import BlockMissing, ConclaveError, OtherInstallation
from blocks.jetstream import JetStream
from blocks.names import stored
from blocks.ownership import marked
from blocks.ray_agents import RayAgents, settled, waiting_only
from blocks.record.dead_letters import count
from blocks.record.dialects import note_dialect
from blocks.record.events import Record
from blocks.record.installation import read_again
from blocks.record.queue import backlog, workers
from blocks.vllm_server import VLLM
from tasks.council.engines import SIMULATOR
from tasks.council.replies import read_reply
from tasks.council.report.markup import cell
from tasks.deliberations.plan import council_spec

QUESTION = [{"role": "user", "content": 'Answer with this JSON object and nothing else: {"ready": true}'}]
SCHEMA = {"type": "object", "properties": {"ready": {"type": "boolean"}}, "required": ["ready"]}
AS_A_BALLOT = {"type": "json_schema", "json_schema": {"name": "ready", "schema": SCHEMA, "strict": True}}
"""Structured output is what reviews ask for."""
TOKENS = 16
TEMPERATURE = 0.7
PATIENCE_S = 30.0
"""For one answer; a model that is cold may take a while."""
NOTE_S = 2.0
"""For a note of what a model's server takes."""
UP = "conclave up --detach"
DEAD = "conclave dead list; conclave dead replay NUMBER asks again for one that is a request"
APART = "another CONCLAVE_PREFIX keeps installations apart; `conclave up --detach` points the blocks here again"
READY = "ready"
SHOWN = 300


FindingState = Literal["ok", "warning", "failed"]


class Finding(BaseModel):
    """What one question brought."""

    model_config = ConfigDict(frozen=True)

    subject: str = Field(description="Who was asked.")
    state: FindingState
    text: str = Field(description="What came back, or what went wrong.")
    advice: str | None = Field(None, description="What to do about it.")
    seconds: float | None = Field(None, description="How long the answer took.")


class Model(NamedTuple):
    """A model that members ask: the name of its server's block, and its own, None for the server's default."""

    server: str
    model: str | None


async def asked(subject: str, question: Callable[[], Awaitable[str]], advice: str) -> Finding:
    """Ask, with a clock beside it."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            text = await question()
    except (ConclaveError, PrefectException, httpx.HTTPError, TimeoutError) as error:
        seconds = time.monotonic() - started
        state: FindingState = "warning" if isinstance(error, Busy | DeadLetters) else "failed"
        return Finding(subject=subject, state=state, text=_words(error), advice=advice, seconds=seconds)
    return Finding(subject=subject, state="ok", text=text, seconds=time.monotonic() - started)


async def record_answers() -> str:
    """A message is stored on disk and read back."""
    record = await (await fresh(JetStream)).record()
    return f"stored a message and read it back; {await record.check()} messages on record"


async def installation_answers(own: Record | None = None) -> str:
    """The mark in Prefect, the block's record, and `own`, the record next door, are one installation's.

    Raises OtherInstallation with the ids where they are not.
    """
    owner, found = await marked(), await (await fresh(JetStream)).record()
    ids = {"the mark in Prefect": owner, "the record that the block points to": await read_again(found)}
    if own is not None:
        ids["the record of this stack"] = await read_again(own)
    if len(set(ids.values())) > 1:
        raise OtherInstallation("; ".join(f"{what} is of installation {one or 'none'}" for what, one in ids.items()))
    return f"mark, block and record are of installation {owner}"


async def dead_letters_answer() -> str:
    """Nothing is kept that could not be dealt with. Raises DeadLetters, which counts them."""
    kept = await count(await open_record())
    if kept:
        raise DeadLetters(f"{kept} {'message' if kept == 1 else 'messages'} could not be dealt with")
    return "no message is kept that could not be dealt with"


async def worker_answers() -> str:
    """Somebody takes requests from the queue; with what stands in it. Raises NoWorker."""
    record = await open_record()
    count, queue = await workers(record), await backlog(record)
    if not count:
        raise NoWorker(
            "no worker takes requests: what Prefect, an event or a webhook asks for waits "
            f"({queue.waiting + queue.in_work} do now)"
        )
    stands = f"{queue.waiting} wait, {queue.in_work} are in work, {queue.again} of them for more than the first time"
    return f"{count} {'worker takes' if count == 1 else 'workers take'} requests from the queue: {stands}"


class Told(ConclaveError):
    """What a part brought, in words that need no more."""


class Busy(Told):
    """A part is well, and has too much to do."""


class DeadLetters(Told):
    """There are messages that could not be dealt with."""


class NoWorker(Told):
    """No worker takes requests from the queue."""


async def agents_answer() -> str:
    """Every agent host answers."""
    agents = await fresh(RayAgents)
    if agents.runner != "warm":
        return "the stock runner starts a worker for each task"
    hosts = await asyncio.to_thread(agents.task_runner().warm, PATIENCE_S)
    return f"{len(hosts)} agent hosts answer"


@task(name="answer", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def answer() -> str:
    """What an agent host is given to do: as little as can be."""
    return READY


async def task_answers() -> str:
    """A task that is submitted as an agent's comes back from its host. Raises ConclaveError."""
    with waiting_only():
        future = answer.submit()
    state = await settled(future, PATIENCE_S)
    if state is None or not state.is_completed():
        raise ConclaveError(f"the task ended {state.name}: {state.message}" if state else "the task did not come back")
    return f"a task came back: {await state.aresult()}"


async def councils_answer(wanted: Sequence[str], unwell: Callable[[Model], str]) -> AsyncGenerator[Finding, None]:
    """Read the councils, all where none are named, then ask every model that their members would ask, each once.

    `unwell` gives the advice for a model that does not answer.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            names = list(wanted) or await council_names()
            specs = [await council_spec(name) for name in names]
    except (ConclaveError, httpx.HTTPError, TimeoutError) as error:
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
        yield await asked(f"model {model.server}", lambda: _model(model, asking), unwell(model))  # noqa: B023  # awaited here


def look_at(model: Model) -> str:
    """What to do about a model that does not answer."""
    return f"look at the block vLLM Server/{stored(model.server)} in Prefect's UI, and at the server itself"


@task(name="show findings", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def show_findings(findings: Sequence[Finding]) -> None:
    """A table in Prefect's UI; what servers said is shown as text."""
    await acreate_table_artifact(
        [_row(finding) for finding in findings], key="diagnostics", description="What every part answered"
    )


def health_state(findings: Sequence[Finding]) -> State[None]:
    """Failed where anything does not answer, with its names."""
    failed = [one.subject for one in findings if one.state == "failed"]
    if failed:
        return Failed(message=f"{len(failed)} of {len(findings)} do not answer: {', '.join(failed)}")
    return Completed(message=f"all {len(findings)} answer")


async def _model(model: Model, members: list[str]) -> str:
    """Generate a few tokens as these members would: with a seed, a temperature, a limit and a form for the answer.

    Whatever is noted of the server, it is asked as any other; what it says then is noted.
    """
    server = await fresh(VLLM, model.server)
    await server.forget()
    call = ChatCall(
        QUESTION,
        f"doctor-{uuid.uuid4()}",
        seed=0,
        temperature=TEMPERATURE,
        max_tokens=TOKENS,
        model=model.model,
        extra={"response_format": AS_A_BALLOT},
    )

    async def ignore(_number: int, _error: Exception, _elapsed: int) -> None:
        """Attempts that fail are not told one by one: the last error is, by the call itself."""

    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    given = await server.complete(call, deadline, ignore)
    name = await server.resolve_model(model.model)
    dialect = await server.dialect(name)
    await _note(server.base_url, name, dialect.usual_in(server.omit))
    simulated = " (the SIMULATOR)" if given.engine == SIMULATOR else ""
    otherwise = f"; it takes {', '.join(dialect.changes)}" if dialect.changes else ""
    if not _is_object(read_reply(given.content, given.finish_reason, given.reasoning).content):
        otherwise += "; it does not hold to a JSON schema, so a ballot may not be readable"
    tokens = given.usage.completion_tokens
    return f"{given.model}{simulated} gave {tokens} tokens; {len(members)} members ask it{otherwise}"


async def _note(url: str, model: str, dialect: Dialect) -> None:
    """Note how a server takes a model, where the record answers; that it does is another question."""
    with suppress(ConclaveError, TimeoutError):
        async with asyncio.timeout(NOTE_S):
            await note_dialect(await open_record(), url, model, dialect)


def _is_object(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except ValueError:
        return False


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE_S:g} s"
    plain = isinstance(error, BlockMissing | Told | OtherInstallation)
    return str(error) if plain else f"{type(error).__name__}: {error}"


def _row(finding: Finding) -> dict[str, Any]:
    """A finding in the table; where all is well there is nothing to do."""
    return {
        "part": cell(finding.subject, SHOWN),
        "state": finding.state,
        "seconds": None if finding.seconds is None else round(finding.seconds, 2),
        "what came back": cell(finding.text, SHOWN),
        "what to do": "" if finding.state == "ok" else cell(finding.advice or "", SHOWN),
    }
