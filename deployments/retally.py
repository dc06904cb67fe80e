"""The ballots of an earlier deliberation, tallied again from the record."""

from __future__ import annotations

from blocks.connections import connections
from blocks.documents import open_record
from tasks.council.voting.rules.registry import rule_named
from tasks.council.voting.tally import Tally
from tasks.deliberations.result import retallied


async def retally(deliberation_id: str, rule: str) -> dict[str, Tally]:
    """The ballots tallied by a rule, by item. Raises WrongUse for an unknown rule or id."""
    rule_named(rule)
    async with connections():
        return await retallied(await open_record(), deliberation_id, rule)
