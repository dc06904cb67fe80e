"""What an author is shown and asked when it revises its own proposal.

The revision goes on from the author's own chat: the question it was asked first, its text as its own answer, and
then the critiques. So the model server still has the start of the prompt in its cache, and the author speaks as
itself. Critiques come without names, in an order drawn by a digest, fenced as data.

That authors revise, and on what others wrote and not on their own second thoughts, follows Madaan et al. (arXiv
2303.17651) and Huang et al. (arXiv 2310.01798).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.council.base import digest
from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import BUILT_IN, Prompts
from tasks.council.prompts.delimiters import fence, mark_of, neutral
from tasks.council.prompts.propose import propose_messages
from tasks.council.voting.ballots import Opinion, Review

MAX_CRITIQUES = 12
"""Critiques that an author is shown."""


def critiques_of(author: str, ballots: Iterable[Review], salt: str) -> tuple[Opinion, ...]:
    """What the ballots say of an author's proposal, in an order that tells nothing of who wrote it."""
    found = [ballot for ballot in ballots if author in ballot.opinions]
    found.sort(key=lambda ballot: digest(["critique", salt, ballot.voter]))
    return tuple(ballot.opinions[author] for ballot in found[:MAX_CRITIQUES])


def revise_messages(
    member: Member, item: Item, text: str, critiques: Sequence[Opinion], salt: str, prompts: Prompts = BUILT_IN
) -> list[dict[str, str]]:
    """The chat that asks an author for a better version of its `text`; `salt` names deliberation, item and stage."""
    told = [_told(opinion) for opinion in critiques]
    mark = mark_of(told, salt)
    fenced = "\n\n".join(fence(str(number), one, mark, tag="critique") for number, one in enumerate(told, 1))
    return [
        *propose_messages(member, item, prompts),
        {"role": "assistant", "content": neutral(text)},
        {"role": "user", "content": f"The mark of the tags is {mark}.\n\n{fenced}\n\n{prompts.revise}"},
    ]


def _told(opinion: Opinion) -> str:
    """A critique with the scores and their reasons."""
    scores = [f"{key}: {one.score} of 10, {one.reason}" for key, one in opinion.scores.items()]
    return "\n".join([*scores, opinion.critique])
