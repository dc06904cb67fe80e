"""Whether a council is better than one call: four ways to an answer, scored over the same proposals.

`single` takes one member's first proposal, in turn over the questions, so that no member is favoured. `majority` is
the vote of all first proposals, where a question has a closed answer. `rank` is what the ballots put first, with the
revisions before them. `synthesize` is the decision. All four read one deliberation, so that every call is paid once
and the comparison is paired: an arm differs from another only by what it makes of the same proposals.

Nothing is dropped: an arm that came to no text on a question is wrong there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Literal, NamedTuple, get_args

from tasks.council.answer import Answer
from tasks.council.base import Frozen, Name
from tasks.council.decisions import ItemResult
from tasks.council.engines import engine_of
from tasks.council.evaluation.figures import (
    PairedDifference,
    Share,
    median,
    paired_difference,
    percentile_95,
    share,
)
from tasks.council.evaluation.questions import Verdict
from tasks.council.models import Deliberation, MemberStatus, Status
from tasks.council.progress.item import ENDED_EARLY, ItemProgress
from tasks.council.proposal import Usage
from tasks.council.stages import PROPOSE, SYNTHESIZE

Arm = Literal["single", "majority", "rank", "synthesize"]
ARMS: tuple[Arm, ...] = get_args(Arm)

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
    """One arm over the questions that it applies to: majority needs a closed answer, the others take all.

    `unanswered` are those on which it came to no text; they count as wrong. `versus_single` compares it with the
    single proposals on the questions of this arm. Latency is of answers under the load of the whole evaluation.
    """

    arm: Arm
    questions: int
    not_applicable: int
    unanswered: int
    accuracy: Share | None
    versus_single: PairedDifference | None
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


def reached(progress: ItemProgress, result: ItemResult | None, number: int) -> dict[Arm, Reached]:
    """What each arm came to on the question of this number, from 0; arms that do not apply are left out.

    The single member is `number` modulo the council's size. Without a decision only it can have a text.
    """
    members = progress.plan.council.members
    alone = progress.first.get(members[number % len(members)].agent_id)
    decided = _decided(result)
    arms: dict[Arm, Reached] = {"single": Reached(_text(alone), *_spent([[alone] if alone else []]))}
    if progress.item.answer_format:
        arms["majority"] = Reached(_most_voted(progress) if decided else None, *_spent([progress.first.values()]))
    ranked = decided.results[0].proposal.content if decided else None
    before = [given.values() for stage, given in progress.answers.items() if stage != SYNTHESIZE]
    arms["rank"] = Reached(ranked, *_spent(before))
    everything = [given.values() for given in progress.answers.values()]
    arms["synthesize"] = Reached(decided.decision if decided else None, *_spent(everything))
    return arms


def _decided(result: ItemResult | None) -> ItemResult | None:
    """The result, where there is one with a decision."""
    if result is None or result.status is not Status.COMPLETED or result.winner_id is None:
        return None
    return result


class Scoresheet:
    """The scores so far, and what became of the questions: none is left out.

    A plain class: it holds four scores for each of up to 10 000 questions, which Prefect shall not look through.
    """

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self.undecided = self.degraded = 0
        self.engines: set[str] = set()

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
            arms=tuple(_figures(arm, by_arm[arm], by_arm["single"], len(plan.agenda)) for arm in ARMS),
            check_problems=len(problems),
            problems=tuple(problems[:MAX_PROBLEMS]),
        )


def _figures(arm: Arm, mine: Mapping[str, Score], single: Mapping[str, Score], questions: int) -> ArmFigures:
    right = sum(score.right for score in mine.values())
    usage = sum((score.usage for score in mine.values()), Usage())
    durations = [score.duration_ms for score in mine.values()]
    return ArmFigures(
        arm=arm,
        questions=len(mine),
        not_applicable=questions - len(mine),
        unanswered=sum(not score.answered for score in mine.values()),
        accuracy=share(right, len(mine)),
        versus_single=None if arm == "single" else _versus_single(mine, single),
        usage=usage,
        tokens_per_right_answer=(usage.prompt_tokens + usage.completion_tokens) / right if right else None,
        latency_median_ms=median(durations),
        latency_p95_ms=percentile_95(durations),
    )


def _versus_single(mine: Mapping[str, Score], single: Mapping[str, Score]) -> PairedDifference | None:
    """What an arm gained and lost against the single proposals, question by question."""
    gained = sum(score.right and not single[item].right for item, score in mine.items())
    lost = sum(single[item].right and not score.right for item, score in mine.items())
    return paired_difference(gained, lost, len(mine))


def _text(answer: Answer | None) -> str | None:
    """The text of an answer that counts."""
    whole = answer is not None and answer.status is MemberStatus.OK and answer.proposal
    return whole.content if whole else None


def _most_voted(progress: ItemProgress) -> str | None:
    """Of the first proposals the best with the answer that most of them give."""
    first = ItemProgress.read(progress.plan, progress.item, {PROPOSE: progress.first})
    vote = first.majority()
    return _text(progress.first[vote.winner_id]) if vote else None


def _spent(stages: Iterable[Iterable[Answer]]) -> tuple[Usage, int]:
    """Tokens of these stages, and the sum of their longest answers in ms; who was not waited for makes none longer."""
    given = [list(stage) for stage in stages]
    longest = (max((one.duration_ms for one in stage if one.error_type != ENDED_EARLY), default=0) for stage in given)
    return sum((one.usage for one in chain.from_iterable(given)), Usage()), sum(longest)
