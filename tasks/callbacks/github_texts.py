"""What a decision is on GitHub: a comment and a commit's status.

GitHub makes links, mentions and references of text, also of escaped text. So all that models wrote, and all that
repeats it, stands in code blocks, in which nothing is done with it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

from pydantic import ValidationError

from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.council.decisions import ItemResult
from tasks.council.engines import SIMULATOR
from tasks.council.models import Status
from tasks.council.plain import one_line, shortened
from tasks.council.report.markup import fenced
from tasks.council.report.wording import (
    answer_in_words,
    dissent_in_words,
    firmness_in_words,
    how_decided,
    in_short,
    in_words,
)
from tasks.deliberations.result import result_of

MAX_COMMENT = 65_536
"""Characters of a comment, by GitHub's API."""
MOST = (20_000, 8_000, 2_000)
"""Characters of one text in it, the first with which all fits: a fence is longer than any run of backticks inside."""
MAX_ITEMS = 100
MAX_DESCRIPTION = 140
"""Characters of a status, by GitHub's API."""
_HEADS = {Status.COMPLETED: "Decision", Status.TIMEOUT: "No decision: out of time", Status.CANCELLED: "Cancelled"}
_STATES: dict[Status, Literal["success", "failure", "error"]] = {
    Status.COMPLETED: "success",
    Status.CANCELLED: "error",
}


def mark_of(deliberation: str, installation: str) -> str:
    """What the comment of a deliberation begins with, and no reader sees; nobody else knows it before it is written."""
    proof = hmac.new(installation.encode(), deliberation.encode(), hashlib.sha256).hexdigest()[:32]
    return f"<!-- conclave:{deliberation}:{proof} -->"


async def comment_of(record: Record, deliberation: str, public_url: str) -> str:
    """The comment that tells of an end, in GitHub's Markdown. Raises RecordError."""
    result = await _result(record, deliberation)
    item = _item(result)
    head = f"**{_HEADS.get(Status(result['status']), 'No decision: failed')}** of council `{result.get('council')}`"
    parts = [mark_of(deliberation, record.installation), head if item is None else f"{head} ({item.headline})"]
    if result.get("engine") == SIMULATOR:
        parts.append("**Simulated: these texts come from the simulator, not from a model.**")
    texts = ("\n\n".join([*parts, *_told(result, item, most), _where(result, public_url)]) for most in MOST)
    return next(text for text in texts if len(text) <= MAX_COMMENT)


async def status_of_commit(
    record: Record, deliberation: str, public_url: str
) -> tuple[Literal["success", "failure", "error"], str, str | None]:
    """State, description and link of a commit's status. Raises RecordError."""
    result = await _result(record, deliberation)
    item, status = _item(result), Status(result["status"])
    told = status.value.lower()
    if item is not None and item.winner_id is not None:
        told = f"decided: {in_short(item)} ({item.headline})"
    if result.get("engine") == SIMULATOR:
        told = f"simulated; {told}"
    link = f"{public_url}{result['links']['self']}" if public_url else None
    return _STATES.get(status, "failure"), one_line(told)[:MAX_DESCRIPTION], link


def _told(result: Body, item: ItemResult | None, most: int) -> list[str]:
    return _of_many(result, most) if item is None else _of_one(item, most)


def _of_one(item: ItemResult, most: int) -> list[str]:
    """What was decided, how, and who was of another mind."""
    parts = [fenced(shortened(item.decision, most))] if item.decision is not None else []
    words = [
        f"Answer: {item.answer}" if item.answer is not None else "",
        how_decided(item),
        firmness_in_words(item.firmness),
        answer_in_words(item),
        f"The vote: {in_words(item.ballots)}" if item.ballots else "",
        dissent_in_words(item),
        item.error_message or "",
    ]
    told = "\n\n".join(filter(None, words))
    return [*parts, fenced(shortened(told, most))] if told else parts


def _of_many(result: Body, most: int) -> list[str]:
    """A line for each item of an agenda, and why nothing was decided."""
    items = result.get("items") or []
    lines = [f"{one['item']}: {one['status']}, {one['winner_id'] or 'nobody'}" for one in items[:MAX_ITEMS]]
    if len(items) > MAX_ITEMS:
        lines.append(f"and {len(items) - MAX_ITEMS} more")
    told = [*lines, *filter(None, [result.get("error_message")])]
    return [fenced(shortened("\n".join(told), most))] if told else []


def _where(result: Body, public_url: str) -> str:
    """Which deliberation it is, with a link where the gateway's own address is known; Prefect's is nobody's there."""
    link = f" · <{public_url}{result['links']['self']}>" if public_url else ""
    return f"Deliberation `{result['id']}`{link}"


async def _result(record: Record, deliberation: str) -> Body:
    found = await result_of(record, deliberation)
    return found or {"id": deliberation, "status": Status.FAILED.value, "links": {"self": ""}}


def _item(result: Body) -> ItemResult | None:
    """The result of the only item; None of an agenda, and of what never began."""
    try:
        return ItemResult.from_record(result) if "results" in result else None
    except ValidationError:
        return None
