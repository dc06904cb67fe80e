"""The councils, as they were mirrored from Prefect."""

from __future__ import annotations

from aiohttp import web

from deployments.gateway.handlers.answers import document, only
from deployments.gateway.problems import Problem
from deployments.gateway.routes import Call


async def listed(call: Call) -> web.StreamResponse:
    """All that the token may ask."""
    only(call)
    mirror = await call.service.councils.newest()
    councils = {
        name: spec.model_dump(mode="json") for name, spec in mirror.councils.items() if call.token.may_ask(name)
    }
    return document(call, {"councils": councils, "mirrored_at": mirror.at.isoformat() if mirror.at else None})


async def show(call: Call) -> web.StreamResponse:
    """One council."""
    only(call)
    name = call.request.match_info["name"]
    spec = (await call.service.councils.newest()).councils.get(name)
    if spec is None or not call.token.may_ask(name):
        raise Problem(404, "unknown-council", f"no council {name!r}")
    return document(call, spec.model_dump(mode="json"))
