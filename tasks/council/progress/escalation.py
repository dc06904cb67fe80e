"""Paying only for disagreement: who is asked next where members are asked in waves, and when nobody needs to be.

A closed task begins with one member, which is asked twice: a model that gives the same answer to another sample is
more often right (Wang et al., arXiv 2203.11171); one that samples nothing, at temperature 0, would only say the same
again, and is not asked to. Only where its answers differ others are asked, and ballots are held
only where no answer has more than half of those who were asked. An open task begins with two members, and goes on where
their texts have not most of their words in common. That is told by words alone: texts that say the same in other words
cost further calls, and texts that differ in a detail may pass for the same, and the checks choose. The second sample
tells whether the first member is sure; it has no vote of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

from tasks.council.answer import Answer
from tasks.council.closed_answers import answer_of
from tasks.council.council import Member
from tasks.council.models import Deliberation, Item, MemberStatus
from tasks.council.prompts.propose import temperature_of
from tasks.council.stages import PROPOSE, SECOND_SAMPLE, WAVES
from tasks.council.voting.checks import alike
from tasks.council.voting.majority import Majority


class Progress(Protocol):
    """What is asked of an item's progress here."""

    plan: Deliberation
    item: Item
    answers: dict[str, dict[str, Answer]]

    @property
    def asked(self) -> tuple[str, ...]:
        """Who was asked so far."""

    @property
    def first(self) -> Mapping[str, Answer]:
        """Their answers."""

    def majority(self) -> Majority | None:
        """The vote of closed answers."""


def next_wave(progress: Progress, stage: str) -> tuple[tuple[str, ...], str | None]:
    """Who is asked in a wave, and why nobody is."""
    called = progress.plan.called_for(stage)
    if stage == SECOND_SAMPLE:
        return _asked_again(progress, called[0])
    fresh = tuple(member.agent_id for member in called if member.agent_id not in progress.asked)
    return (fresh, None) if fresh else ((), "every member that it could ask was asked before")


def may_ask_more(progress: Progress, stage: str) -> bool:
    """Whether a wave after this one has members that were not asked yet."""
    later = progress.plan.stages[progress.plan.stages.index(stage) + 1 :]
    asked = set(progress.asked)
    waves = (progress.plan.called_for(one) for one in later if one in WAVES)
    return any(member.agent_id not in asked for member in chain.from_iterable(waves))


def consensus(progress: Progress) -> str | None:
    """Why nobody further is asked, where so much is agreed, and the quorum's share of those who were asked is there."""
    usable = sum(answer.status is MemberStatus.OK for answer in progress.first.values())
    if usable < progress.plan.quorum_of(len(progress.asked)):
        return None
    if progress.item.answer_format is None:
        return _texts_alike(progress)
    if len(progress.asked) == 1:
        return _said_twice(progress, progress.asked[0])
    vote = progress.majority()
    if vote is None:
        return None
    votes, asked = len(vote.votes[vote.answer]), len(progress.asked)
    return f"{votes} of {asked} that were asked give the same answer: {vote.answer}" if 2 * votes > asked else None


def _asked_again(progress: Progress, member: Member) -> tuple[tuple[str, ...], str | None]:
    if progress.item.answer_format is None:
        return (), "an open task is not put to one member twice"
    if temperature_of(member) == 0:
        return (), f"{member.agent_id} answers at temperature 0, and would say the same again"
    if _answer_in(progress, PROPOSE, member.agent_id) is None:
        return (), f"{member.agent_id} gave no answer to compare another one with"
    return (member.agent_id,), None


def _said_twice(progress: Progress, agent_id: str) -> str | None:
    first, second = (_answer_in(progress, stage, agent_id) for stage in (PROPOSE, SECOND_SAMPLE))
    same = first is not None and first == second
    return f"{agent_id} gave the same answer twice: {first}" if same else None


def _answer_in(progress: Progress, stage: str, agent_id: str) -> str | None:
    """The closed answer of a member in a stage; None where it gave none that can be read."""
    given = progress.answers.get(stage, {}).get(agent_id)
    form = progress.item.answer_format
    if given is None or given.status is not MemberStatus.OK or given.proposal is None or form is None:
        return None
    return answer_of(given.proposal.content, form)


def _texts_alike(progress: Progress) -> str | None:
    texts = _whole_texts(progress)
    if len(texts) < 2 or len(texts) < len(progress.asked):
        return None
    return f"the {len(texts)} texts say much the same" if alike(texts, progress.item.task) else None


def _whole_texts(progress: Progress) -> Sequence[str]:
    usable = (answer for answer in progress.first.values() if answer.status is MemberStatus.OK)
    return [answer.proposal.content for answer in usable if answer.proposal]
