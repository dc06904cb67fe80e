"""Reading what stands on the record."""

from __future__ import annotations

from blocks.record import Body, Record
from tasks.council.proposals import Answer

OF_START = ("council", "started_at", "flow_run_url")


async def answers_of(record: Record, deliberation_id: str, item_id: str) -> dict[str, dict[str, Answer]]:
    """The final answers to an item, by stage and member. Raises RecordError."""
    found: dict[str, dict[str, Answer]] = {}
    after = 0
    while (event := await record.next(f"answers.{deliberation_id}.{item_id}.>", after)) is not None:
        after = event.sequence
        answer = Answer.model_validate(event.body)
        found.setdefault(answer.stage, {})[answer.agent_id] = answer
    return found


async def status_of(record: Record, deliberation_id: str) -> Body | None:
    """The status of a deliberation: its key, or what the streams say of one whose key was let go after its end.

    None for an id that is unknown. Raises RecordError.
    """
    status = await record.read_status(deliberation_id)
    if status is not None:
        return status
    finished = await record.last(f"deliberations.{deliberation_id}.finished")
    if finished is None:
        return None
    plan = await record.last(f"deliberations.{deliberation_id}.plan")
    started = await record.last(f"deliberations.{deliberation_id}.started")
    begun = {name: started.body[name] for name in OF_START if name in started.body} if started else {}
    digests = {"request_digest": plan.body["plan"]["request_digest"]} if plan else {}
    return {"id": deliberation_id, **begun, **digests, **finished.body}
