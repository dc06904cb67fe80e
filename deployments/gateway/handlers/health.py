"""Whether the gateway lives and is ready, what it counts, and its spec."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from aiohttp import web

from blocks.exceptions import ConclaveError
from blocks.record.queue import backlog
from deployments.gateway.handlers.answers import document, only
from deployments.gateway.routes import SPEC, Call

ASK_S = 2.0
STALE_S = 60.0
"""Seconds after which a mirror of the councils is told as old; nothing is refused for that."""


async def live(call: Call) -> web.StreamResponse:
    """The process answers."""
    return document(call, {"status": "ok"})


async def ready(call: Call) -> web.StreamResponse:
    """Each part by name; 503 where requests are not taken."""
    service = call.service
    age_s: float | None = None
    parts: dict[str, dict[str, bool | str | None]] = {"nats": {"ok": True, "detail": None}}
    try:
        async with asyncio.timeout(ASK_S):
            mirror = await service.councils.mirror()
            age_s = mirror.age_s(datetime.now(UTC))
            count = await service.workers.get()
        parts["workers"] = {"ok": count > 0, "detail": f"{count} take from the queue"}
        parts["councils"] = {"ok": age_s is not None and age_s < STALE_S, "detail": _age(age_s)}
    except (ConclaveError, TimeoutError) as error:
        parts["nats"] = {"ok": False, "detail": str(error) or "no answer in time"}
    behind = None if service.projection.caught_up else "it catches up with the record"
    parts["list"] = {"ok": behind is None, "detail": behind}
    is_ready = bool(parts["nats"]["ok"])  # without the others requests are taken, and run later
    body = {"ready": is_ready, "dependencies": parts, "councils_age_s": age_s}
    return document(call, body, 200 if is_ready else 503)


async def metrics(call: Call) -> web.StreamResponse:
    """Prometheus' text format, version 0.0.4."""
    only(call)
    waiting = await backlog(call.service.record)
    lines = [*call.service.counts.lines(), *call.service.callbacks.lines()]
    for name, value in waiting._asdict().items():
        lines += [f"# TYPE conclave_queue_{name} gauge", f"conclave_queue_{name} {value}"]
    lines += ["# TYPE conclave_workers gauge", f"conclave_workers {await call.service.workers.get()}"]
    lines += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {_STARTED:.3f}"]
    headers = {**call.headers, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body="\n".join([*lines, ""]).encode(), headers=headers)


async def openapi(call: Call) -> web.StreamResponse:
    """The spec."""
    only(call)
    return document(call, call.request.app[SPEC])


_STARTED = time.time()


def _age(age_s: float | None) -> str:
    return "never mirrored: no worker has run yet" if age_s is None else f"mirrored {age_s:.0f} s ago"
