"""Reading what stands on the record."""

from __future__ import annotations

from blocks.record import Record
from tasks.council.proposals import Answer


async def answers_of(record: Record, deliberation_id: str, item_id: str) -> dict[str, dict[str, Answer]]:
    """The final answers to an item, by stage and member. Raises RecordError."""
    found: dict[str, dict[str, Answer]] = {}
    after = 0
    while (event := await record.next(f"answers.{deliberation_id}.{item_id}.>", after)) is not None:
        after = event.sequence
        answer = Answer.model_validate(event.body)
        found.setdefault(answer.stage, {})[answer.agent_id] = answer
    return found
