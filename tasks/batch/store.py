"""Batches on the record: what each asks and how it stands, and the rows of its agendas.

The key `<id>` of the bucket has a batch, `<id>.<n>` its n-th agenda, whose rows are in the object store, and `run.<flow
run>` which batch a flow run is at (`tries.py`). Rows never pass through Prefect. A batch and a deliberation may have
the same id: they are two.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import NamedTuple

from blocks.exceptions import RecordError
from blocks.record import subjects
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.batch.asked import AgendaBody, AskedRow, BatchRequest, agenda_id
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Status
from tasks.deliberations.read import has_ended, status_of


class Batch(NamedTuple):
    """A batch as it stands on the record."""

    id: str
    request: BatchRequest
    body: Body

    @property
    def agendas(self) -> int:
        """How many there are, those with rows that are asked again among them."""
        return int(self.body.get("agendas") or self.request.agendas)

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows."""
        return has_ended(self.body)


async def read_batch(record: Record, batch_id: str) -> Batch | None:
    """The batch of this id; None where there is none. Raises RecordError."""
    body = await record.batches.read(batch_id)
    if not body or "asked" not in body:
        return None
    return Batch(batch_id, BatchRequest.from_record(body["asked"]), body)


async def put_batch(record: Record, batch_id: str, request: BatchRequest, owner: str | None) -> bool:
    """Put a batch on the record whose agendas stand there; False where the same one stands there already.

    Raises InvalidRequest where an agenda is missing, where there is another one, or the id is another batch's.
    """
    standing = await read_batch(record, batch_id)
    if standing is not None:
        _require_same(standing, request, owner)
        return False
    rows = 0
    for number in range(1, request.agendas + 1):
        kept = await record.batches.read(f"{batch_id}.{number}")
        if kept is None or kept.get("owner") != owner:
            raise InvalidRequest("agendas", f"agenda {number} of {request.agendas} was not sent")
        rows += int(kept["rows"])
    if await record.batches.read(f"{batch_id}.{request.agendas + 1}") is not None:
        raise InvalidRequest("agendas", f"agenda {request.agendas + 1} was sent, too")
    asked = request.model_dump(mode="json")
    body = {
        "id": batch_id,
        "status": Status.PENDING.value,
        "owner": owner,
        "asked": asked,
        "rows": rows,
        "agendas": request.agendas,
        "requested_at": datetime.now(UTC).isoformat(),
    }
    if await record.batches.create(batch_id, body):
        return True
    standing = await read_batch(record, batch_id)
    if standing is not None:  # put there just now
        _require_same(standing, request, owner)
    return False


def _require_same(standing: Batch, request: BatchRequest, owner: str | None) -> None:
    if (standing.request, standing.body.get("owner")) != (request, owner):
        raise InvalidRequest("id", f"{standing.id!r} was started before, with other fields or by another owner")


async def put_agenda(
    record: Record,
    batch_id: str,
    number: int,
    rows: tuple[AskedRow, ...],
    owner: str | None = None,
    again_of: int | None = None,
) -> None:
    """Keep an owner's rows of an agenda, whose number may be given once; `again_of`: they failed in that one.

    Of a batch that was started there are no further ones but those. Raises InvalidRequest and RecordError.
    """
    standing = None if again_of is not None else await read_batch(record, batch_id)
    if standing is not None and number > standing.request.agendas:
        raise InvalidRequest("agenda", f"{batch_id!r} was started already, with {standing.request.agendas}")
    body = AgendaBody(rows=rows).model_dump(mode="json", exclude_defaults=True)
    text = await asyncio.to_thread(json.dumps, body, ensure_ascii=False)
    kept: Body = {
        "rows": len(rows),
        "owner": owner,
        "body": await record.bodies.keep(f"{batch_id}.{number}", text.encode()),
    }
    if again_of is not None:
        kept["again_of"] = again_of
    if await record.batches.create(f"{batch_id}.{number}", kept):
        return
    if await record.batches.read(f"{batch_id}.{number}") != kept:
        raise InvalidRequest("agenda", f"{number} of {batch_id!r} was sent before, with other rows")


async def require_own(record: Record, batch_id: str, owner: str | None, number: int = 1) -> None:
    """Raise InvalidRequest unless this owner may send the n-th agenda of a batch of that id, or start it.

    An id that a deliberation has is none for a batch: the queue has one place for both. Raises RecordError.
    """
    for key in (batch_id, f"{batch_id}.1"):
        standing = await record.batches.read(key)
        if standing is not None and standing.get("owner") != owner:
            raise InvalidRequest("id", f"{batch_id!r} is another owner's batch")
    if await status_of(record, batch_id) is not None:
        raise InvalidRequest("id", f"{batch_id!r} is the id of a deliberation; take another")
    batch = Batch(batch_id, BatchRequest(agendas=1), {"owner": owner})
    await require_of_batch(record, batch, agenda_id(batch_id, number))


async def require_of_batch(record: Record, batch: Batch, one: str) -> None:
    """Raise InvalidRequest where a deliberation of an agenda's id is none of the batch: somebody took the id.

    Raises RecordError.
    """
    if not await may_be_of_batch(record, batch, one):
        raise InvalidRequest("id", f"{one!r} is the id of a deliberation of its own; take another for the batch")


async def may_be_of_batch(record: Record, batch: Batch, one: str) -> bool:
    """Whether a deliberation of an agenda's id is the batch's, or there is none yet. Raises RecordError."""
    plan = await record.last(subjects.plan(one), direct=False)
    if plan is None:
        key = await record.statuses.read(one)
        return key is None or key.get("batch") == batch.id
    metadata = (plan.body.get("request") or {}).get("metadata") or {}
    return plan.body.get("owner") == batch.body.get("owner") and metadata.get("batch") == batch.id


async def is_of_batches(record: Record, deliberation_id: str) -> bool:
    """Whether an id is a batch's, or of one of its agendas, so that no deliberation may have it. Raises RecordError."""
    found = re.fullmatch(r"(.+)-(\d{4,6})", deliberation_id)
    keys = [deliberation_id, *([f"{found[1]}.{int(found[2])}"] if found else [])]
    return any([await record.batches.read(key) is not None for key in keys])


async def rows_of(record: Record, batch_id: str, number: int) -> tuple[AskedRow, ...]:
    """The rows of an agenda. Raises RecordError."""
    kept = await record.batches.read(f"{batch_id}.{number}")
    if kept is None:
        raise RecordError(f"agenda {number} of batch {batch_id} is not on the record any more")
    data = await record.bodies.read(str(kept["body"]))
    return await asyncio.to_thread(lambda: AgendaBody.from_record(json.loads(data)).rows)


async def agendas_again(record: Record, batch: Batch) -> dict[int, int]:
    """The agendas of rows that were asked again, by number, and in which one each failed. Raises RecordError."""
    found: dict[int, int] = {}
    number = batch.request.agendas + 1
    while (kept := await record.batches.read(f"{batch.id}.{number}")) is not None and "again_of" in kept:
        found[number] = int(kept["again_of"])
        number += 1
    return found


async def note(record: Record, batch_id: str, told: Body) -> Body:
    """Set some fields of a batch; its body with them. Raises RecordError."""
    noted: Body = {}

    def changed(standing: Body | None) -> Body | None:
        nonlocal noted
        noted = {**(standing or {}), **told}
        return None if standing is None else noted

    await record.batches.change(batch_id, changed)
    return noted


async def ask_batch_to_stop(record: Record, batch_id: object) -> bool:
    """Set the flag that whoever runs a batch hears; False where there is no such batch, or it has ended."""
    batch = await read_batch(record, batch_id) if isinstance(batch_id, str) else None
    if batch is None or batch.has_ended:
        return False
    await note(record, batch.id, {"cancel_requested": True})
    return True
