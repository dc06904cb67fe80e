"""What the deliberations of an owner used: model tokens by day, added up once for each end on the record.

One consumer of the streams, which all gateways share and which hands out one end at a time, brings the ends in their
order; a day's count remembers the last one that is in it, so that an end that comes again is not counted again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from blocks.record.envelope import Body
from blocks.record.events import Record

KEY = "usage."


async def used_today(record: Record, owner: str) -> int:
    """Model tokens of an owner's deliberations that ended today, UTC. Raises RecordError."""
    body = await record.access.read(KEY + owner) or {}
    tokens = body.get("tokens")
    return tokens if isinstance(tokens, int) and body.get("day") == _day(datetime.now(UTC)) else 0


async def add_end(record: Record, owner: object, finished: Body, sequence: int) -> None:
    """Count the end of an owner's deliberation, which stands at this sequence of its stream. Raises RecordError."""
    used = tokens_in(finished)
    if not isinstance(owner, str) or not used:
        return
    day = _day(datetime.now(UTC))

    def added(body: Body | None) -> Body | None:
        if body is not None and sequence <= body.get("sequence", 0):
            return None
        before = body["tokens"] if body is not None and body.get("day") == day else 0
        return {"day": day, "tokens": before + used, "sequence": sequence}

    await record.access.change(KEY + owner, added)


def tokens_in(finished: Body) -> int:
    """Model tokens that an end tells of, prompts included."""
    usage = finished.get("usage")
    if not isinstance(usage, dict):
        return 0
    return sum(usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))


def seconds_to_midnight() -> int:
    """Until the next day begins, UTC."""
    now = datetime.now(UTC)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((tomorrow - now).total_seconds()) + 1


def _day(at: datetime) -> str:
    return at.date().isoformat()
