"""Whether a council is better than a plain call: seven ways to an answer, scored over the same questions.

`single` takes one member's first proposal, in turn over the questions, so that no member is favoured. `majority` is
the vote of all first proposals, where a question has a closed answer. `rank` is what the ballots put first, with the
revisions before them. `synthesize` is the decision. These four read one deliberation, so that every call is paid once
and the comparison is paired: an arm differs from another only by what it makes of the same proposals.

Their rivals make calls of their own: `bare` asks the same models the task alone, in turn as `single` does; `bare-5` is
the vote of five such calls; `escalate` is a deliberation of the same council that asks members in waves.

Nothing is dropped: an arm that came to no text on a question is wrong there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple, get_args

from tasks.council.answer import Answer
from tasks.council.base import Frozen, Name
from tasks.council.decisions import ItemResult
from tasks.council.engines import engine_of
from tasks.council.evaluation.answered import Answered, whole_text
from tasks.council.evaluation.figures import (
    PairedDifference,
    Share,
    median,
    paired_difference,
    percentile_95,
    share,
)
from tasks.council.evaluation.questions import Verdict
from tasks.council.evaluation.readings import (
    BallotsBeside,
    Judged,
    Readings,
    beside,
    count_readable,
    first_by_ballots,
    judged_of,
)
from tasks.council.models import Deliberation, Status
from tasks.council.progress.item import ENDED_EARLY, ItemProgress
from tasks.council.proposal import Usage
from tasks.council.stages import PROPOSE, SYNTHESIZE
from tasks.council.voting.majority import majority

Arm = Literal["bare", "bare-5", "single", "majority", "rank", "synthesize", "escalate"]
ARMS: dict[Arm, str] = {
    "bare": "a plain call with the task alone",
    "bare-5": "the vote of five such calls",
    "single": "one member's first proposal, in turn",
    "majority": "the vote of all first proposals",
    "rank": "what the ballots put first",
    "synthesize": "the decision",
    "escalate": "the council's in waves",
}
"""All of them in their order, and what each one's answer is."""
assert tuple(ARMS) == get_args(Arm)
VOTES: tuple[Arm, ...] = ("majority", "bare-5")
"""Arms that need a closed answer."""
RIVALS: tuple[Arm, ...] = ("bare", "bare-5", "escalate")
"""Arms with calls of their own, which an evaluation may leave out."""

MAX_PROBLEMS = 20
"""Problems of checks that an evaluation lists; all are counted."""


class Reached(NamedTuple):
    """What an arm came to on a question: its text, None where there is none, and what the way there took."""

    text: str | None
    usage: Usage
    duration_ms: int


class Score(NamedTuple):
    """One arm on one question; `answered` is False where it came to no text, which is wrong too."""

    item: str
    arm: Arm
    right: bool
    answered: bool
    usage: Usage
    duration_ms: int
    problem: str | None


class ArmFigures(Frozen):
    """One arm over the questions that it applies to: votes need a closed answer, the others take all.

    `unanswered` are those on which it came to no text; they count as wrong. `versus_single` and `versus_bare` compare
    it with the single proposals and the plain calls on the questions of this arm. Latency is of answers under the load
    of the whole evaluation.
    """

    arm: Arm
    questions: int
    not_applicable: int
    unanswered: int
    accuracy: Share | None
    versus_single: PairedDifference | None
    versus_bare: PairedDifference | None = None
    usage: Usage
    tokens_per_right_answer: float | None
    latency_median_ms: float | None
    latency_p95_ms: float | None


class Evaluation(Frozen):
    """The arms side by side; `undecided` questions have no decision, `degraded` ones missed an answer of a member."""

    id: Name
    council: Name
    members: int
    rounds: int
    engine: str
    questions: int
    undecided: int
    degraded: int
    arms: tuple[ArmFigures, ...]
    check_problems: int
    problems: tuple[str, ...]
    readings: Readings | None = None
    ballots_beside: BallotsBeside | None = None


def reached(answered: Answered, number: int) -> dict[Arm, Reached]:
    """What each arm came to on the question of this number, from 0; arms that do not apply are left out.

    The single member is `number` modulo the council's size, and the plain call is that member's, too, as long as it is
    one of the first five. Without a decision of the council only it and the rivals can have a text.
    """
    arms = _plain_arms(answered.bare, answered.progress, number)
    arms |= _council_arms(answered.progress, answered.result, number)
    if answered.escalated:
        waves, came_to = answered.escalated
        ended = _decided(came_to)
        arms["escalate"] = Reached(ended.decision if ended else None, *_spent(map(_values, waves.answers.values())))
    return arms


def _values(given: Mapping[str, Answer]) -> Iterable[Answer]:
    return given.values()


def _council_arms(progress: ItemProgress, result: ItemResult | None, number: int) -> dict[Arm, Reached]:
    """What is made of the same proposals."""
    members = progress.plan.council.members
    alone = progress.first.get(members[number % len(members)].agent_id)
    decided = _decided(result)
    arms: dict[Arm, Reached] = {"single": Reached(whole_text(alone), *_spent([[alone] if alone else []]))}
    if progress.item.answer_format:
        arms["majority"] = Reached(_most_voted(progress) if decided else None, *_spent([progress.first.values()]))
    ranked = _best_by_ballots(progress, decided) if decided else None
    before = [given.values() for stage, given in progress.answers.items() if stage != SYNTHESIZE]
    arms["rank"] = Reached(ranked, *_spent(before))
    everything = [given.values() for given in progress.answers.values()]
    arms["synthesize"] = Reached(decided.decision if decided else None, *_spent(everything))
    return arms


def _plain_arms(bare: Sequence[Answer | None], progress: ItemProgress, number: int) -> dict[Arm, Reached]:
    """One plain call, and the vote of all, ties going to the call that comes first from that one on."""
    if not bare:
        return {}
    first = number % min(len(bare), len(progress.plan.council.members))  # the call of the member whose turn it is
    turn = [bare[(first + place) % len(bare)] for place in range(len(bare))]
    arms: dict[Arm, Reached] = {"bare": Reached(whole_text(turn[0]), *_spent([[turn[0]] if turn[0] else []]))}
    if form := progress.item.answer_format:
        texts = {str(place): text for place, answer in enumerate(turn) if (text := whole_text(answer)) is not None}
        vote = majority(list(texts), texts, form)
        made = [answer for answer in turn if answer]
        arms["bare-5"] = Reached(texts[vote.winner_id] if vote else None, *_spent([made]))
    return arms


def _best_by_ballots(progress: ItemProgress, decided: ItemResult) -> str:
    """The text that ballots put first; where none was counted the one that stands first without them."""
    if not progress.ballots():
        return decided.results[0].proposal.content
    first = progress.standing()[first_by_ballots(progress)].proposal
    assert first is not None
    return first.content


def _decided(result: ItemResult | None) -> ItemResult | None:
    """The result, where there is one with a decision."""
    if result is None or result.status is not Status.COMPLETED or result.winner_id is None:
        return None
    return result


class Scoresheet:
    """The scores so far, and what became of the questions: none is left out.

    A plain class: it holds up to seven scores for each of up to 10 000 questions, which Prefect shall not look through.
    """

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self.undecided = self.degraded = 0
        self.engines: set[str] = set()
        self.read: dict[str, tuple[int, int]] = {}
        self.judged: list[Judged] = []

    def add(
        self, item: str, result: ItemResult | None, arms: Mapping[Arm, Reached], verdicts: Mapping[str, Verdict]
    ) -> None:
        """Score the arms on one question by the verdict on each text."""
        self.undecided += result is None or result.status is not Status.COMPLETED
        if result:
            self.degraded += result.degraded
            self.engines.add(result.engine)
        for arm, (text, usage, duration_ms) in arms.items():
            right, problem = verdicts[text] if text is not None else Verdict(False)
            self.scores.append(Score(item, arm, right, text is not None, usage, duration_ms, problem))

    def look_at(self, answered: Answered, verdicts: Mapping[str, Verdict]) -> None:
        """Count what could be read of a question's answers, and what its ballots are worth."""
        for kind, (readable, made) in count_readable(answered).items():
            before = self.read.get(kind, (0, 0))
            self.read[kind] = (before[0] + readable, before[1] + made)
        if judged := judged_of(answered.progress, verdicts):
            self.judged.append(judged)

    def evaluation(self, plan: Deliberation) -> Evaluation:
        """The arms side by side."""
        by_arm: dict[Arm, dict[str, Score]] = {arm: {} for arm in ARMS}
        for score in self.scores:
            by_arm[score.arm][score.item] = score
        # A text that several arms share has one problem.
        problems = list(dict.fromkeys(f"{score.item}: {score.problem}" for score in self.scores if score.problem))
        return Evaluation(
            id=plan.id,
            council=plan.council.name,
            members=len(plan.council.members),
            rounds=plan.rounds,
            engine=engine_of(self.engines),
            questions=len(plan.agenda),
            undecided=self.undecided,
            degraded=self.degraded,
            arms=tuple(_figures(arm, by_arm, len(plan.agenda)) for arm in ARMS if by_arm[arm] or arm not in RIVALS),
            check_problems=len(problems),
            problems=tuple(problems[:MAX_PROBLEMS]),
            readings=Readings(
                **{kind: share(*self.read.get(kind, (0, 0))) for kind in ("proposals", "bare", "ballots")},
            ),
            ballots_beside=beside(self.judged),
        )


def _figures(arm: Arm, by_arm: Mapping[Arm, Mapping[str, Score]], questions: int) -> ArmFigures:
    mine = by_arm[arm]
    right = sum(score.right for score in mine.values())
    usage = sum((score.usage for score in mine.values()), Usage())
    durations = [score.duration_ms for score in mine.values()]
    return ArmFigures(
        arm=arm,
        questions=len(mine),
        not_applicable=questions - len(mine),
        unanswered=sum(not score.answered for score in mine.values()),
        accuracy=share(right, len(mine)),
        versus_single=None if arm == "single" else _versus(mine, by_arm["single"]),
        versus_bare=None if arm == "bare" else _versus(mine, by_arm["bare"]),
        usage=usage,
        tokens_per_right_answer=(usage.prompt_tokens + usage.completion_tokens) / right if right else None,
        latency_median_ms=median(durations),
        latency_p95_ms=percentile_95(durations),
    )


def _versus(mine: Mapping[str, Score], other: Mapping[str, Score]) -> PairedDifference | None:
    """What an arm gained and lost against another one, on the questions that both have."""
    both = mine.keys() & other.keys()
    gained = sum(mine[item].right and not other[item].right for item in both)
    lost = sum(other[item].right and not mine[item].right for item in both)
    return paired_difference(gained, lost, len(both))


def _most_voted(progress: ItemProgress) -> str | None:
    """Of the first proposals the best with the answer that most of them give."""
    first = ItemProgress.read(progress.plan, progress.item, {PROPOSE: progress.first})
    vote = first.majority()
    return whole_text(progress.first[vote.winner_id]) if vote else None


def _spent(stages: Iterable[Iterable[Answer]]) -> tuple[Usage, int]:
    """Tokens of these stages, and the sum of their longest answers in ms; who was not waited for makes none longer."""
    given = [list(stage) for stage in stages]
    longest = (max((one.duration_ms for one in stage if one.error_type != ENDED_EARLY), default=0) for stage in given)
    return sum((one.usage for one in chain.from_iterable(given)), Usage()), sum(longest)
