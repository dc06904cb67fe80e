"""Deliberations that run elsewhere or have ended: read, watched, cancelled, tallied again.

What runs one is in `local_run.py`: it needs the flow and Ray, which these verbs do not wait for.
"""

from __future__ import annotations

from blocks.connections import connections
from blocks.documents import open_record
from blocks.record.envelope import Body
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import check_id
from tasks.council.voting.rules.registry import rule_named
from tasks.council.voting.tally import Tally
from tasks.deliberations.read import plan_of
from tasks.deliberations.result import result_of, retallied
from tasks.deliberations.watch import Watcher, end_of, watching


async def read_result(deliberation_id: str) -> Body:
    """The result of an earlier deliberation. Raises InvalidRequest for an unknown id."""
    async with connections():
        result = await result_of(await open_record(), check_id(deliberation_id))
    if result is None:
        raise InvalidRequest("id", f"no deliberation {deliberation_id!r} is on the record")
    return result


async def retally(deliberation_id: str, rule: str) -> dict[str, Tally]:
    """The ballots of an earlier deliberation tallied by a rule, by item. Raises WrongUse for an unknown rule or id."""
    rule_named(rule)
    async with connections():
        return await retallied(await open_record(), deliberation_id, rule)


async def watch_deliberation(deliberation_id: str, watcher: Watcher) -> Body | None:
    """Follow a deliberation until it ends; its result, None where nobody runs it.

    Raises InvalidRequest for an unknown id.
    """
    async with connections():
        record = await open_record()
        plan = await plan_of(record, check_id(deliberation_id))
        async with watching(record, plan, watcher):
            ended = await end_of(record, plan.id)
        return await result_of(record, plan.id) if ended else None


async def cancel_deliberation(deliberation_id: str) -> tuple[str | None, str | None]:
    """Ask it to stop and wait for its end: the final status it had before, and the one it has now.

    None stands for no final status yet. Raises InvalidRequest for an unknown id.
    """
    from tasks.collect.cancel import cancel  # it brings Prefect's engine along, which the other verbs do without

    async with connections():
        return await cancel(await open_record(), deliberation_id)
