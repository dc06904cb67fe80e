"""One question of an evaluation as it was answered: by the council, alone, and by the council in waves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.council.answer import Answer
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import ItemResult
from tasks.council.models import MemberStatus
from tasks.council.progress.item import ItemProgress
from tasks.council.stages import BARE

BARE_CALLS = 5
"""Plain calls for each question."""


class Answered(NamedTuple):
    """One question as it was answered: by the council, alone, and by the council in waves.

    `bare` are the plain calls in their order, None where one has no answer; empty where none was made.
    """

    progress: ItemProgress
    result: ItemResult | None
    bare: Sequence[Answer | None] = ()
    escalated: tuple[ItemProgress, ItemResult | None] | None = None


def bare_calls(council: CouncilSpec) -> list[tuple[Member, str]]:
    """The plain calls of a question: which member's model is asked, in turn, and the stage that it is on record as."""
    members = council.members
    return [(members[call % len(members)], f"{BARE}-{call // len(members)}") for call in range(BARE_CALLS)]


def bare_answers(council: CouncilSpec, answers: Mapping[str, Mapping[str, Answer]]) -> tuple[Answer | None, ...]:
    """Those calls' answers on the record, by stage and member; None for one that was lost, or came too late."""
    return tuple(answers.get(stage, {}).get(member.agent_id) for member, stage in bare_calls(council))


def whole_text(answer: Answer | None) -> str | None:
    """The text of an answer that counts."""
    whole = answer is not None and answer.status is MemberStatus.OK and answer.proposal
    return whole.content if whole else None
