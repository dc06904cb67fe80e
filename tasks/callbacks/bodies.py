"""What a callback tells of an end: as little as a receiver needs to know it and to ask for the rest."""

from __future__ import annotations

import json
from typing import Any

from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.council.finished import Finished
from tasks.council.plain import one_line
from tasks.deliberations.read import status_of
from tasks.deliberations.result import links_of

MAX_METADATA = 12_000
"""Bytes; a callback's whole body stays below 20 kB, as Standard Webhooks advises."""
MAX_ERROR = 500


async def callback_body(record: Record, deliberation: str, public_url: str) -> bytes | None:
    """The body of a callback, None where the end is no longer on the record. Raises RecordError.

    It is `{type, timestamp, data}` of Standard Webhooks; `data` are fields of the result, under the names that
    `GET /v1/deliberations/{id}` has. `metadata` is left out where it is long.
    """
    ended = await record.last(subjects.finished(deliberation))
    if ended is None:
        return None
    finished, status = Finished.from_record(ended.body), await status_of(record, deliberation) or {}
    links = links_of(deliberation, status)
    data: dict[str, Any] = {
        "id": deliberation,
        "council": status.get("council"),
        **finished.model_dump(mode="json", include={"status", "degraded", "engine", "counts", "winner_id"}),
        "error_message": one_line(finished.error, MAX_ERROR) if finished.error else None,
        **finished.model_dump(mode="json", include={"duration_ms", "usage", "completed_at"}),
        "links": {name: _whole(link, public_url) for name, link in links.items()},
        **await _metadata(record, deliberation, status),
    }
    event = {"type": f"deliberation.{finished.status.value.lower()}", "timestamp": data["completed_at"], "data": data}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _whole(link: str, public_url: str) -> str:
    """A link with the gateway's own address, where it is a path and that is known."""
    return public_url + link if link.startswith("/") else link


async def _metadata(record: Record, deliberation: str, status: Body) -> Body:
    """The metadata of the request, where it is short."""
    request = status.get("request")
    if not isinstance(request, dict):
        plan = await record.last(subjects.plan(deliberation))
        request = plan.body.get("request") if plan is not None else None
    metadata = request.get("metadata") if isinstance(request, dict) else None
    if not metadata or len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA:
        return {}
    return {"metadata": metadata}
