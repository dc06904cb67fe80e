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
from tasks.council.closed_answers import AnswerFormat, answer_of
from tasks.council.council import CouncilSpec, Member
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
from tasks.council.stages import BARE, PROPOSE, SYNTHESIZE
from tasks.council.voting.majority import majority
from tasks.council.voting.tally import tally

Arm = Literal["bare", "bare-5", "single", "majority", "rank", "synthesize", "escalate"]
ARMS: tuple[Arm, ...] = get_args(Arm)
RIVALS: tuple[Arm, ...] = ("bare", "bare-5", "escalate")
"""Arms with calls of their own, which an evaluation may leave out."""

MAX_PROBLEMS = 20
"""Problems of checks that an evaluation lists; all are counted."""


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


def bare_calls(council: CouncilSpec) -> list[tuple[Member, str]]:
    """The plain calls of a question: which member's model is asked, in turn, and the stage that it is on record as."""
    members = council.members
    return [(members[call % len(members)], f"{BARE}-{call // len(members)}") for call in range(BARE_CALLS)]


def bare_answers(council: CouncilSpec, answers: Mapping[str, Mapping[str, Answer]]) -> tuple[Answer | None, ...]:
    """Those calls' answers on the record, by stage and member; None for one that was lost, or came too late."""
    return tuple(answers.get(stage, {}).get(member.agent_id) for member, stage in bare_calls(council))


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
    arms: dict[Arm, Reached] = {"single": Reached(_text(alone), *_spent([[alone] if alone else []]))}
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
    arms: dict[Arm, Reached] = {"bare": Reached(_text(turn[0]), *_spent([[turn[0]] if turn[0] else []]))}
    if form := progress.item.answer_format:
        texts = {str(place): text for place, answer in enumerate(turn) if (text := _text(answer)) is not None}
        vote = majority(list(texts), texts, form)
        made = [answer for answer in turn if answer]
        arms["bare-5"] = Reached(texts[vote.winner_id] if vote else None, *_spent([made]))
    return arms


def _best_by_ballots(progress: ItemProgress, decided: ItemResult) -> str:
    """The text that ballots put first; where none was counted the one that stands first without them."""
    ballots, candidates = progress.ballots(), progress.candidates()
    if not ballots:
        return decided.results[0].proposal.content
    first = progress.standing()[tally(candidates, ballots, progress.plan.council.tally).order[0]].proposal
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
        for kind, (readable, made) in _readable(answered).items():
            before = self.read.get(kind, (0, 0))
            self.read[kind] = (before[0] + readable, before[1] + made)
        if judged := _judged(answered.progress, verdicts):
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
            ballots_beside=_beside(self.judged),
        )


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


def _judged(progress: ItemProgress, verdicts: Mapping[str, Verdict]) -> Judged | None:
    ballots = progress.ballots()
    if not ballots:
        return None
    texts = {author: answer.proposal.content for author, answer in progress.standing().items() if answer.proposal}
    right = {author: verdicts[text].right for author, text in texts.items()}
    first = tally(progress.candidates(), ballots, progress.plan.council.tally).order[0]
    shown = [right.get(ballot.shown[0], False) for ballot in ballots]
    return Judged(right[first], sum(right.values()) / len(right), sum(shown) / len(shown))


def _beside(judged: Sequence[Judged]) -> BallotsBeside | None:
    right = share(sum(one.right for one in judged), len(judged))
    if right is None:
        return None
    lot = sum(one.lot for one in judged) / len(judged)
    return BallotsBeside(
        questions=len(judged),
        ballots=right,
        lot=lot,
        shown_first=sum(one.shown_first for one in judged) / len(judged),
    )


def _readable(answered: Answered) -> dict[str, tuple[int, int]]:
    """How many could be read, of how many: closed proposals, plain calls for closed answers, and ballots."""
    progress, form = answered.progress, answered.progress.item.answer_format
    read: dict[str, tuple[int, int]] = {}
    if form:
        read["proposals"] = _count([_text(answer) for answer in progress.first.values()], form)
        read["bare"] = _count([_text(answer) for answer in answered.bare], form)
    given = progress.answers.get(progress.last_review() or "", {}).values()
    awaited = [answer for answer in given if answer.error_type != ENDED_EARLY]
    read["ballots"] = (sum(answer.ballot is not None for answer in awaited), len(awaited))
    return read


def _count(texts: Sequence[str | None], form: AnswerFormat) -> tuple[int, int]:
    return sum(text is not None and answer_of(text, form) is not None for text in texts), len(texts)


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
