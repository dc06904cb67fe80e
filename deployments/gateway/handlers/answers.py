"""What handlers share: documents as answers, the deliberation that is asked about, and parameters of the query."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from blocks.record.envelope import Body
from deployments.gateway.acceptance import shown_status
from deployments.gateway.problems import bad_request, invalid
from deployments.gateway.projection import Filter
from deployments.gateway.routes import Call
from tasks.council.models import Status

METADATA = "metadata."
MAX_FILTERS = 20
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,18})?([eE][-+]?[0-9]{1,2})?")
"""As JSON writes one."""


def document(call: Call, body: Any, status: int = 200, **headers: str) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        status=status,
        body=json.dumps(body, ensure_ascii=False).encode(),
        content_type="application/json",
        headers={**call.headers, **headers},
    )


async def asked_about(call: Call) -> tuple[str, Body]:
    """The id in the path, and its status. Raises Problem where there is none that is shown to who asks."""
    deliberation_id = call.request.match_info["id"]
    return deliberation_id, await shown_status(call.service, call.token, deliberation_id)


def only(call: Call, *names: str) -> None:
    """Raise Problem where the query has a parameter that this call does not know, or one twice."""
    query = call.request.query
    for name in query:
        if name not in names and not (METADATA in names and name.startswith(METADATA)):
            raise bad_request(f"{name}: this call has no such parameter", name)
        if name != "status" and len(query.getall(name)) > 1:
            raise bad_request(f"{name}: it stands there twice", name)


def number(call: Call, name: str, default: float, low: float, high: float) -> float:
    """A number in the query. Raises Problem."""
    text = call.request.query.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None:
        raise bad_request(f"{name}: must be a number", name)
    value = float(text)
    if not low <= value <= high:
        raise invalid(name, f"{name}: must be {low:g} to {high:g}")
    return value


def whole_number(call: Call, name: str, default: int, low: int, high: int) -> int:
    """A whole number in the query. Raises Problem."""
    value = number(call, name, default, low, high)
    if value != int(value):
        raise bad_request(f"{name}: must be a whole number", name)
    return int(value)


def filter_of(call: Call) -> Filter:
    """Which deliberations the query asks for, among those that are shown to who asks. Raises Problem."""
    query = call.request.query
    statuses = ",".join(query.getall("status", [])).split(",") if "status" in query else []
    for status in statuses:
        if status not in set(Status):
            raise invalid("status", f"status: must be one of {', '.join(Status)}")
    metadata = {name.removeprefix(METADATA): value for name, value in query.items() if name.startswith(METADATA)}
    if len(metadata) > MAX_FILTERS:
        raise invalid(METADATA, f"{METADATA}: at most {MAX_FILTERS} of these")
    owner = None if call.token.sees_all else call.token.owner
    return Filter(tuple(statuses), query.get("council"), owner, metadata)
