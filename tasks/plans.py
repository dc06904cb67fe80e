"""Convening: a request becomes a plan that stands on the record, and everything later reads it from there.

The plan (the resolved council and agenda) is a fenced event, `deliberations.<id>.plan`. Whoever runs the
deliberation, first or again after a crash, works from the plan that stands, whatever was edited since.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks.council import Council
from blocks.exceptions import BlockMissing, ModelServerError
from blocks.loading import council_names, fresh, versioned
from blocks.record import Record
from blocks.vllm_server import VLLM
from tasks.council.models import CouncilSpec, Deliberation, DeliberationRequest, InvalidRequest, Status, check_id

KEPT_PLANS = 64
MAX_REQUEST_IN_STATUS = 64 * 1024
PROBE_S = 2.0

_plans: OrderedDict[str, Deliberation] = OrderedDict()


@dataclass(frozen=True)
class Session:
    """A deliberation that has begun: its plan, the engine behind it, and whether it runs again."""

    plan: Deliberation
    engine: str
    servers: dict[str, str]
    """Version of each model server's block, by name."""
    resumed: bool
    started: float
    """Reading of the event loop's clock, seconds."""


async def plan_of(record: Record, deliberation_id: str) -> Deliberation:
    """The plan that stands on the record. Plans never change, so the last few are kept."""
    if deliberation_id not in _plans:
        event = await record.last(f"deliberations.{deliberation_id}.plan")
        if event is None:
            raise InvalidRequest("deliberation_id", f"{deliberation_id!r} has no plan on the record")
        _keep(Deliberation.model_validate(event.body["plan"]))
    return _plans[deliberation_id]


async def council_spec(name: str) -> CouncilSpec:
    """The council as its block stands now. Raises InvalidRequest that lists the known ones."""
    try:
        return (await fresh(Council, name)).spec(name)
    except BlockMissing as error:
        known = ", ".join(await council_names()) or "none; `conclave up` applies the defaults"
        raise InvalidRequest("council", f"{name!r} is unknown; known are {known}") from error


async def convene(
    record: Record, deliberation_id: str, request: DeliberationRequest, run_url: str | None = None
) -> Session:
    """Put the plan on the record, or take the one that stands there. Raises InvalidRequest."""
    started = asyncio.get_running_loop().time()
    check_id(deliberation_id)
    standing = await record.last(f"deliberations.{deliberation_id}.plan")
    if standing is None:
        plan = Deliberation.plan(deliberation_id, request, await council_spec(request.council))
        engine, servers = await _servers(plan)
        body = {"plan": plan.model_dump(mode="json"), "request": request.model_dump(mode="json")}
        standing = await record.publish_final(
            f"deliberations.{deliberation_id}.plan", f"{deliberation_id}:plan", "deliberation.plan", body
        )
        if standing is None:
            _keep(plan)
            await _announce_start(record, plan, request, engine, run_url)
            return Session(plan, engine, servers, resumed=False, started=started)
    plan = Deliberation.model_validate(standing.body["plan"])
    if plan.request_digest != request.digest:
        raise InvalidRequest("deliberation_id", f"{deliberation_id!r} was already asked with another request")
    _keep(plan)
    engine, servers = await _servers(plan)
    await _announce_start(record, plan, request, engine, run_url)
    return Session(plan, engine, servers, resumed=True, started=started)


async def check_servers(plan: Deliberation) -> None:
    """Ask each member's model server for its models. Raises InvalidRequest that names the server."""
    for name in sorted({member.server for member in plan.council.members}):
        field = f"council.{plan.council.name}.members.server"
        try:
            server = await fresh(VLLM, name)
            info = await server.info()
        except BlockMissing as error:
            raise InvalidRequest(field, f"{name!r}: {error}") from error
        except ModelServerError as error:
            raise InvalidRequest(field, f"{name!r} does not answer: {error}") from error
        wanted = {member.model or server.model for member in plan.council.members if member.server == name} - {None}
        if missing := sorted(str(model) for model in wanted - set(info.models)):
            served = ", ".join(info.models) or "none"
            raise InvalidRequest(field, f"{name!r} does not serve {', '.join(missing)}; it serves {served}")


async def _servers(plan: Deliberation) -> tuple[str, dict[str, str]]:
    """What stands behind the council, asked of its servers (`unknown` where one does not answer yet), and the
    versions of their blocks."""
    names = sorted({member.server for member in plan.council.members})

    async def ask(name: str) -> tuple[str, str]:
        try:
            version, server = await versioned(VLLM, name)
            async with asyncio.timeout(PROBE_S):
                return (await server.info()).engine, version
        except (ModelServerError, TimeoutError):
            return "unknown", version
        except BlockMissing as error:
            raise InvalidRequest(f"council.{plan.council.name}.members.server", str(error)) from error

    asked = await asyncio.gather(*(ask(name) for name in names))
    engines = sorted({engine for engine, _ in asked})
    engine = "simulator" if "simulator" in engines else ",".join(engines)
    return engine, dict(zip(names, (version for _, version in asked), strict=True))


async def _announce_start(
    record: Record, plan: Deliberation, request: DeliberationRequest, engine: str, run_url: str | None
) -> None:
    now = datetime.now(UTC).isoformat()
    status: dict[str, Any] = {
        "id": plan.id,
        "status": Status.IN_PROGRESS.value,
        "council": plan.council.name,
        "engine": engine,
        "request_digest": plan.request_digest,
        "council_digest": plan.council_digest,
        "counts": {"items": len(plan.agenda), "decided": 0},
        "started_at": now,
        "flow_run_url": run_url,
    }
    asked = request.model_dump(mode="json", exclude_defaults=True)
    if len(str(asked)) <= MAX_REQUEST_IN_STATUS:
        status["request"] = asked
    body = {
        "task_id": plan.id,
        "status": Status.IN_PROGRESS.value,
        "engine": engine,
        "council": plan.council.name,
        "total_agents": len(plan.council.members),
        "counts": status["counts"],
        "started_at": now,
    }
    if not await record.create_status(plan.id, status):
        await record.merge_status(
            plan.id, {"status": Status.IN_PROGRESS.value, "engine": engine, "flow_run_url": run_url}
        )
    await record.publish_final(f"deliberations.{plan.id}.started", f"{plan.id}:started", "deliberation.started", body)
    await record.announce("deliberation.started", body)


def _keep(plan: Deliberation) -> None:
    _plans[plan.id] = plan
    while len(_plans) > KEPT_PLANS:
        _plans.popitem(last=False)
