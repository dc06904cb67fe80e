"""What the order inside a review's prompt is worth: the share that the server takes from its prefix cache."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.contract.servers import Client

pytestmark = pytest.mark.servers

AUTHORS = ("m1", "m2", "m3", "m4", "m5", "m6")


def prompts(role_first: bool) -> list[list[dict[str, str]]]:
    """What the reviewers of six short proposals are asked; with the role in front, as the seed had it, or last."""
    from tasks.council.council import Member
    from tasks.council.models import Item
    from tasks.council.prompts.review import review_messages
    from tasks.council.voting.ballots import criteria_of, sheets

    item, salt = Item(id="i", task="Name the parts of a queue that survives a restart"), "d:i:review-0"
    texts = {author: f"Part {author}: a log, a cursor and a lock. " * 4 for author in AUTHORS}
    drawn, asked = sheets(AUTHORS, AUTHORS, salt), []
    for number, author in enumerate(AUTHORS):
        member = Member(agent_id=author, role=f"ROLE{number}")
        system, user = review_messages(member, item, drawn[author], texts, criteria_of(None), salt)
        if role_first:
            rest, role = user["content"].split("\n\n# Your role\n")
            system, user = {**system, "content": f"{role}\n\n{system['content']}"}, {**user, "content": rest}
        asked.append([system, user])
    return asked


async def cached_share(client: Client, layout: str, asked: list[list[dict[str, str]]]) -> float:
    """Cached tokens over prompt tokens of a whole review, all reviewers at once, in a cache of its own."""

    async def usage(messages: list[dict[str, str]]) -> dict[str, Any]:
        reply = await client.chat(messages=messages, max_tokens=4, cache_salt=layout)
        assert reply.status == 200, json.dumps(reply.body)[:300]
        return dict(reply.body["usage"])

    used = await asyncio.gather(*map(usage, asked))
    cached = sum(one["prompt_tokens_details"]["cached_tokens"] or 0 for one in used)
    return float(cached / sum(one["prompt_tokens"] for one in used))


@pytest.mark.own_server
async def test_reviewers_share_more_of_their_prompt_with_the_role_last(client: Client) -> None:
    """The same words with the role first share next to nothing."""
    last = await cached_share(client, "role-last", prompts(role_first=False))
    first = await cached_share(client, "role-first", prompts(role_first=True))
    print(f"cached share of the review's prompts: {last:.3f} with the role last, {first:.3f} with it first")
    assert last > 0.4 > first
