"""The two forms of a ballot: what a reviewer is told, the schema of its answer, and how that is read.

The full form judges each proposal by criteria and says what would improve it. A closed task asks which answer is right,
so its last review takes the short one: a reason of one sentence and the ranking, a tenth of the tokens. A review whose
critiques feed a revision takes the full form, also of a closed task, unless it would be cut off by the member's limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import Prompts
from tasks.council.prompts.review import (
    ballot_schema,
    review_messages,
    short_ballot_schema,
    short_review_messages,
)
from tasks.council.voting.ballots import (
    Criterion,
    Review,
    Room,
    Sheet,
    criteria_of,
    read_ballot,
    read_short_ballot,
    room_for,
)


class BallotForm(Protocol):
    """A form of a ballot."""

    def messages(
        self, member: Member, item: Item, sheet: Sheet, proposals: Mapping[str, str], salt: str
    ) -> list[dict[str, str]]:
        """The chat that asks for it; `proposals` is every author's text."""

    def schema(self, sheet: Sheet) -> dict[str, Any]:
        """JSON schema of the answer."""

    def read(self, text: str, sheet: Sheet) -> Review:
        """The ballot in a model's answer. Raises InvalidBallot."""


@dataclass(frozen=True)
class FullBallot:
    """Scores by criteria with reasons, a critique of each proposal, then the ranking."""

    criteria: tuple[Criterion, ...]
    prompts: Prompts
    room: Room

    def messages(
        self, member: Member, item: Item, sheet: Sheet, proposals: Mapping[str, str], salt: str
    ) -> list[dict[str, str]]:
        """Task, criteria, proposals, what to write, and the role."""
        return review_messages(member, item, sheet, proposals, self.criteria, salt, self.prompts, self.room)

    def schema(self, sheet: Sheet) -> dict[str, Any]:
        """Opinions, then the ranking."""
        return ballot_schema(sheet.labels, self.criteria, self.room)

    def read(self, text: str, sheet: Sheet) -> Review:
        """The ballot with its opinions. Raises InvalidBallot."""
        return read_ballot(text, sheet, self.criteria)


@dataclass(frozen=True)
class ShortBallot:
    """A reason of one sentence, then the ranking."""

    prompts: Prompts

    def messages(
        self, _member: Member, item: Item, sheet: Sheet, proposals: Mapping[str, str], salt: str
    ) -> list[dict[str, str]]:
        """Task, proposals and what to write; without a role, which has no say in what is right."""
        return short_review_messages(item, sheet, proposals, salt, self.prompts)

    def schema(self, sheet: Sheet) -> dict[str, Any]:
        """The reason, then the ranking."""
        return short_ballot_schema(sheet.labels)

    def read(self, text: str, sheet: Sheet) -> Review:
        """The ballot with its reason. Raises InvalidBallot."""
        return read_short_ballot(text, sheet)


def ballot_form(item: Item, feeds_revision: bool, prompts: Prompts, member: Member, sheet: Sheet) -> BallotForm:
    """The form that a member's ballot on an item takes.

    The longest ballot that its schema allows fits into the member's `max_tokens`; where no full one does, since there
    are many proposals or few tokens, a short one is asked for.
    """
    if item.answer_format is not None and not feeds_revision:
        return ShortBallot(prompts)
    criteria = criteria_of(item.rubric)
    room = room_for(member.max_tokens, len(sheet.shown), criteria)
    return FullBallot(criteria, prompts, room) if room else ShortBallot(prompts)
