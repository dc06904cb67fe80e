"""Convening: a request becomes a plan that stands on the record, and everything later reads it from there.

The plan (the resolved council and agenda) is a fenced event, `deliberations.<id>.plan`. Whoever runs the
deliberation, first or again after a crash, works from the plan that stands, whatever was edited since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prefect.blocks.core import Block

from blocks.background import background
from blocks.council import Council
from blocks.dialect import Dialect
from blocks.documents import DEFAULT, AtHand, Documents, council_names, fresh, together, versioned
from blocks.exceptions import BlockMissing, ModelServerError, Superseded
from blocks.record import subjects
from blocks.record.dialects import Dialects, noted_dialects
from blocks.record.envelope import Body, Event
from blocks.record.events import Fence, Record
from blocks.record.leases import Lease
from blocks.vllm_server import VLLM, ServerInfo
from tasks.council.council import CouncilSpec, Member
from tasks.council.engines import UNKNOWN, engine_of
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, DeliberationRequest, Status, check_id
from tasks.deliberations.finish import begin_epoch
from tasks.deliberations.read import has_ended, keep_plan, taken
from tasks.deliberations.submit import MAX_REQUEST_IN_STATUS

PROBE_S = 2.0
KEPT = ("counts", "started_at", "request")
"""What was asked, and what an earlier run said of a deliberation, stays."""


class Server(NamedTuple):
    """A model server as the driver found it: the version of its block, what stands behind it, and how it is asked.

    `dialects` are those that are noted of it, by model.
    """

    version: str | None
    engine: str
    url: str | None = None
    dialects: Mapping[str, Dialect] = {}


@dataclass(frozen=True)
class Session:
    """A deliberation that has begun: its plan, its model servers by name, and how far an earlier run came."""

    plan: Deliberation
    request: DeliberationRequest
    """What was asked."""
    servers: dict[str, Server]
    started: float
    """Reading of the event loop's clock, seconds."""
    finished: bool = False
    lease: Lease | None = None
    """What it runs under."""
    fence: Fence | None = None
    """Refuses its final writes once a later run has begun."""

    @property
    def epoch(self) -> int:
        """What this run has begun under its lease; higher than that of every earlier run."""
        return self.fence.epoch if self.fence else 0

    @property
    def engine(self) -> str:
        """What stands behind the council; one simulator makes the whole a rehearsal."""
        return engine_of(server.engine for server in self.servers.values())

    @property
    def absent(self) -> tuple[tuple[Member, str], ...]:
        """Who has to be called in, and for which stage: nobody once all is decided."""
        return () if self.finished else self.plan.posts


class Convening(NamedTuple):
    """A session that is being convened for a flow before that begins."""

    deliberation_id: str
    session: asyncio.Task[Session]


carried: ContextVar[Convening | None] = ContextVar("carried_convening", default=None)
"""What a worker has begun for the flow that it runs, while Prefect shows the run as Running."""


async def council_spec(name: str, at_hand: AtHand = None) -> CouncilSpec:
    """The council as its block stands now. Raises InvalidRequest that lists the known ones."""
    try:
        return (await fresh(Council, name, at_hand)).spec(name)
    except BlockMissing as error:
        known = ", ".join(await council_names()) or "none; `conclave up` applies the defaults"
        raise InvalidRequest("council", f"{name!r} is unknown; known are {known}") from error


async def convened(record: Record, deliberation_id: str, request: DeliberationRequest) -> Session:
    """The session that is carried here for this request, or one that is convened now; it starts now.

    Raises InvalidRequest.
    """
    begun = carried.get()
    if begun is not None and begun.deliberation_id == deliberation_id:
        session = await begun.session
        if session.request == request:
            return replace(session, started=asyncio.get_running_loop().time())
    return await convene_with_blocks(record, deliberation_id, request)


async def convene_with_blocks(record: Record, deliberation_id: str, request: DeliberationRequest) -> Session:
    """`convene`, the blocks read in one question meanwhile."""
    async with background(blocks_of(request.council)) as (blocks,):
        return await convene(record, deliberation_id, request, blocks)


async def blocks_of(council: str, *further: tuple[type[Block], str]) -> Documents:
    """The blocks that a deliberation of this council needs in most cases; others are read once they are known."""
    return await together((Council, council), (VLLM, DEFAULT), *further)


async def convene(
    record: Record,
    deliberation_id: str,
    request: DeliberationRequest,
    at_hand: AtHand = None,
    identity: str | None = None,
    council: CouncilSpec | None = None,
) -> Session:
    """Put the plan on the record, or take the one that stands there.

    `identity` is the digest of what was asked, where that is not the request's: a deployment has defaults of its own
    for what is left open; `council` is the one to take, whatever its block says. Raises InvalidRequest, and Superseded
    where it has ended without a plan.
    """
    started = asyncio.get_running_loop().time()
    check_id(deliberation_id, "deliberation_id")
    digest = identity or request.digest
    plan, owner = await _standing(record, deliberation_id, digest)
    if plan is None:
        spec = council or await council_spec(request.council, at_hand)
        plan = await asyncio.to_thread(Deliberation.plan, deliberation_id, request, spec)
        plan = plan.model_copy(update={"request_digest": digest})
        servers = await servers_of(record, plan, at_hand=at_hand)
        plan = await _put(record, plan, request, owner)
    elif await record.last(subjects.finished(deliberation_id), direct=False) is not None:
        return Session(plan, request, {}, started, finished=True)
    else:
        servers = await servers_of(record, plan, must_exist=False)
    keep_plan(plan)
    return Session(plan, request, servers, started)


async def _put(record: Record, plan: Deliberation, request: DeliberationRequest, owner: str | None) -> Deliberation:
    """The plan that stands, this one or one that somebody else has put there just now. Raises InvalidRequest."""
    body = {"plan": plan.model_dump(mode="json"), "request": request.model_dump(mode="json"), "owner": owner}
    first = await record.publish_final(
        subjects.plan(plan.id), f"{plan.id}:plan", "deliberation.plan", body, version=plan.version
    )
    return plan if first is None else _same(first, plan.id, plan.request_digest)


async def resume(record: Record, deliberation_id: str) -> Session | None:
    """The plan that stands on the record as a session, whoever asked for it; None where there is none."""
    started = asyncio.get_running_loop().time()
    event = await record.last(subjects.plan(deliberation_id), direct=False)
    if event is None:
        return None
    plan = Deliberation.from_record(event.body["plan"])
    request = DeliberationRequest.from_record(event.body["request"])
    if await record.last(subjects.finished(deliberation_id), direct=False) is not None:
        return Session(plan, request, {}, started, finished=True)
    return Session(plan, request, await servers_of(record, plan, must_exist=False), started)


async def begin(record: Record, session: Session, lease: Lease, run: str | None, run_url: str | None = None) -> Session:
    """The session under its lease: from here on an earlier run of the deliberation decides nothing any more.

    `run` names the flow run. What an earlier run left counts, so it is looked for again. Raises Superseded.
    """
    if await record.last(subjects.finished(session.plan.id), direct=False) is not None:
        await lease.check()  # who ended it may have taken the lease over, and nothing is decided after that
        return replace(session, lease=lease, finished=True)
    await _announce_start(record, session, run_url)
    fence = await begin_epoch(record, session.plan.id, lease, run)
    started = asyncio.get_running_loop().time() if lease.waited else session.started
    return replace(session, lease=lease, fence=fence, started=started)


async def standing_plan(record: Record, deliberation_id: str, request: DeliberationRequest) -> Deliberation | None:
    """The plan on the record, None if there is none yet.

    Raises InvalidRequest where another request has the id: it has a plan, or was accepted and waits for one.
    """
    return (await _standing(record, deliberation_id, request.digest))[0]


async def _standing(record: Record, deliberation_id: str, digest: str) -> tuple[Deliberation | None, str | None]:
    """The plan on the record, and whose token asked for it. Raises InvalidRequest and Superseded."""
    event, key = await asyncio.gather(
        record.last(subjects.plan(deliberation_id), direct=False), record.statuses.read(deliberation_id)
    )
    if event is not None:
        return _same(event, deliberation_id, digest), event.body.get("owner")
    status = key or {}
    if status.get("request_digest") not in (None, digest):
        raise taken(deliberation_id, "deliberation_id")
    if has_ended(status):
        raise Superseded(f"{deliberation_id} has ended before it began")
    return None, status.get("owner")


def _same(event: Event, deliberation_id: str, digest: str) -> Deliberation:
    plan = Deliberation.from_record(event.body["plan"])
    if plan.request_digest != digest:
        raise taken(deliberation_id, "deliberation_id")
    return plan


async def check_servers(plan: Deliberation) -> None:
    """Ask each member's model server for its models. Raises InvalidRequest that names the server."""
    for name in plan.servers:
        field = f"council.{plan.council.name}.members.server"
        try:
            server = await fresh(VLLM, name)
            info = await server.info()
        except BlockMissing as error:
            raise InvalidRequest(field, f"{name!r}: {error}") from error
        except ModelServerError as error:
            raise InvalidRequest(field, f"{name!r} does not answer: {error}") from error
        wanted = {member.model or server.model for member, _ in plan.posts if member.server == name}
        if missing := _not_served(wanted, info):
            served = ", ".join(info.models) or "none"
            raise InvalidRequest(field, f"{name!r} does not serve {', '.join(missing)}; it serves {served}")


def _not_served(wanted: set[str | None], info: ServerInfo) -> list[str]:
    """Those of the models that a server does not list; none of one that has no list."""
    return sorted(str(model) for model in wanted - {None, *info.models}) if info.lists else []


async def servers_of(
    record: Record, plan: Deliberation, must_exist: bool = True, at_hand: AtHand = None
) -> dict[str, Server]:
    """The council's model servers, each asked what it is: `unknown` where one does not answer yet.

    What is noted of their dialects is read meanwhile.

    A run that is taken up again does not ask for the blocks: its members say what is missing.
    """

    async def ask(name: str) -> Server:
        version = url = None
        try:
            version, server = await versioned(VLLM, name, at_hand)
            url = server.base_url
            async with asyncio.timeout(PROBE_S):
                return Server(version, (await server.info()).engine, url)
        except (ModelServerError, TimeoutError):
            return Server(version, UNKNOWN, url)
        except BlockMissing as error:
            if must_exist:
                raise InvalidRequest(f"council.{plan.council.name}.members.server", str(error)) from error
            return Server(version, UNKNOWN)

    noted, servers = await asyncio.gather(_noted(record), asyncio.gather(*map(ask, plan.servers)))
    known = [server._replace(dialects=noted.get(server.url or "", {})) for server in servers]
    return dict(zip(plan.servers, known, strict=True))


async def _noted(record: Record) -> Dialects:
    """What is noted of all servers; nothing where the record is slow to say, since nobody waits for a hint."""
    try:
        async with asyncio.timeout(PROBE_S):
            return await noted_dialects(record)
    except TimeoutError:
        return {}


async def _announce_start(record: Record, session: Session, run_url: str | None) -> None:
    plan, now = session.plan, datetime.now(UTC).isoformat()
    told = {
        "status": Status.IN_PROGRESS.value,
        "engine": session.engine,
        "council": plan.council.name,
        "copies": list(plan.copies),
        "counts": {"items": len(plan.agenda), "decided": 0},
        "started_at": now,
    }
    body = {"task_id": plan.id, "total_agents": len(plan.council.members), "flow_run_url": run_url, **told}
    async with background(_set_status(record, session, told, run_url)) as (status_set,):
        await record.publish_final(subjects.started(plan.id), f"{plan.id}:started", "deliberation.started", body)
        await status_set
    await record.announce("deliberation.started", body)


async def _set_status(record: Record, session: Session, told: dict[str, Any], run_url: str | None) -> None:
    """The key of the deliberation: made here, or completed where somebody else or an earlier run made it."""
    plan = session.plan
    status: dict[str, Any] = {
        "id": plan.id,
        "request_digest": plan.request_digest,
        "council_digest": plan.council_digest,
        "flow_run_url": run_url,
        "unattended_since": None,
        **told,
    }
    asked = session.request.given
    if len(str(asked)) <= MAX_REQUEST_IN_STATUS:
        status["request"] = asked

    def completed(standing: Body | None) -> Body | None:
        present = standing or {}
        if has_ended(present):  # another run was faster
            return None
        return {**present, **status, **{name: present[name] for name in KEPT if name in present}}

    await record.statuses.change(plan.id, completed)
