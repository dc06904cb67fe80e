"""How much of an evaluation could be read, and what its ballots put first beside what costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from tasks.council.base import Frozen
from tasks.council.closed_answers import AnswerFormat, answer_of
from tasks.council.evaluation.answered import Answered, whole_text
from tasks.council.evaluation.figures import Share, share
from tasks.council.evaluation.questions import Verdict
from tasks.council.progress.item import ENDED_EARLY, ItemProgress
from tasks.council.voting.tally import tally


class Readings(Frozen):
    """How many closed answers could be read, of the council's first proposals and of plain calls, and how many ballots.

    A call that failed has none that can be read.
    """

    proposals: Share | None
    bare: Share | None
    ballots: Share | None


class BallotsBeside(Frozen):
    """What ballots put first, over the `questions` where some were counted, beside what costs nothing.

    `lot` is the share of right proposals among those that were judged, which is what drawing one gives on average;
    `shown_first` the share of ballots that showed a right one first.
    """

    questions: int
    ballots: Share
    lot: float
    shown_first: float


class Judged(NamedTuple):
    """Of a question with ballots: whether the ballots' first is right, and shares of right ones from 0 to 1."""

    right: bool
    lot: float
    shown_first: float


def texts_of(answered: Answered) -> list[str]:
    """The texts that were judged, whose verdicts `Scoresheet.look_at` needs beside those of the arms."""
    if not answered.progress.ballots():
        return []
    standing = answered.progress.standing().values()
    return [answer.proposal.content for answer in standing if answer.proposal]


def first_by_ballots(progress: ItemProgress) -> str:
    """The author whom the ballots of the last review put first, whatever decided in their place."""
    return tally(progress.candidates(), progress.ballots(), progress.plan.council.tally).order[0]


def judged_of(progress: ItemProgress, verdicts: Mapping[str, Verdict]) -> Judged | None:
    """What the ballots of a question are worth by the verdicts on the texts that they judged; None without one."""
    ballots = progress.ballots()
    if not ballots:
        return None
    texts = {author: answer.proposal.content for author, answer in progress.standing().items() if answer.proposal}
    right = {author: verdicts[text].right for author, text in texts.items()}
    shown = [right.get(ballot.shown[0], False) for ballot in ballots]
    return Judged(right[first_by_ballots(progress)], sum(right.values()) / len(right), sum(shown) / len(shown))


def beside(judged: Sequence[Judged]) -> BallotsBeside | None:
    """The same over all questions; None where no ballot was counted."""
    right = share(sum(one.right for one in judged), len(judged))
    if right is None:
        return None
    return BallotsBeside(
        questions=len(judged),
        ballots=right,
        lot=fmean(one.lot for one in judged),
        shown_first=fmean(one.shown_first for one in judged),
    )


def count_readable(answered: Answered) -> dict[str, tuple[int, int]]:
    """How many could be read, of how many: closed proposals, plain calls for closed answers, and ballots."""
    progress, form = answered.progress, answered.progress.item.answer_format
    read: dict[str, tuple[int, int]] = {}
    if form:
        read["proposals"] = _count([whole_text(answer) for answer in progress.first.values()], form)
        read["bare"] = _count([whole_text(answer) for answer in answered.bare], form)
    given = progress.answers.get(progress.last_review() or "", {}).values()
    awaited = [answer for answer in given if answer.error_type != ENDED_EARLY]
    read["ballots"] = (sum(answer.ballot is not None for answer in awaited), len(awaited))
    return read


def _count(texts: Sequence[str | None], form: AnswerFormat) -> tuple[int, int]:
    return sum(text is not None and answer_of(text, form) is not None for text in texts), len(texts)
