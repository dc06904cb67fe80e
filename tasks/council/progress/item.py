"""The progress of one item: what was answered in its stages so far, what stands, and who is called next.

Pure bookkeeping over final answers. Every member that is called for a stage has one final answer to it by the time
the stage is closed, so the same record always gives the same order and the same decision, live and after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from tasks.council.answer import Answer
from tasks.council.base import digest
from tasks.council.closed_answers import answer_of
from tasks.council.decisions import Ballots, DecidedBy
from tasks.council.models import Deliberation, Item, MemberStatus
from tasks.council.progress.escalation import consensus, next_wave
from tasks.council.progress.stage_end import Closing, salt_of
from tasks.council.proposal import Proposal, RankedProposal
from tasks.council.stages import PROPOSAL, REVIEW, REVISE, SECOND_SAMPLE, SYNTHESIZE, kind_of
from tasks.council.voting.ballots import Review
from tasks.council.voting.checks import Checks, rank_proposals
from tasks.council.voting.deciding import Case
from tasks.council.voting.early_end import decided_early
from tasks.council.voting.election import Candidate
from tasks.council.voting.majority import Majority
from tasks.council.voting.tally import tally
from tasks.council.voting.worth import worth_of

ALONE = "there is only one proposal"
ENDED_EARLY = "EndedEarly"
"""Type of the error of a ballot that was not waited for, because it could not change the winner."""
LATE = "the deadline was over"
"""Why a stage was not held that members were to be asked in."""
UNUSABLE = (MemberStatus.INVALID, MemberStatus.TRUNCATED, MemberStatus.EMPTY)
"""Of a ballot: it came, and cannot be counted."""


class NextStage(NamedTuple):
    """Who is called for a stage; `skipped` says why nobody is."""

    called: tuple[str, ...]
    skipped: str | None = None


class Decided(NamedTuple):
    """Proposals in the order that stands, by what, and the votes that it rests on."""

    ranked: tuple[RankedProposal, ...]
    by: DecidedBy
    ballots: Ballots | None
    majority: Majority | None


@dataclass
class ItemProgress:
    """Answers by stage and member, who was called, why a stage was not held, and why others were not waited for."""

    plan: Deliberation
    item: Item
    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    called: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    early: dict[str, str] = field(default_factory=dict)
    _checks: Checks = field(init=False)
    _ranked: tuple[RankedProposal, ...] | None = None
    _read: dict[str, str | None] | None = None

    def __post_init__(self) -> None:
        self._checks = Checks(self.item)

    @classmethod
    def read(
        cls,
        plan: Deliberation,
        item: Item,
        answers: Mapping[str, Mapping[str, Answer]],
        closings: Mapping[str, Closing] | None = None,
    ) -> ItemProgress:
        """The progress that the answers of a record tell, by stage and member.

        A stage without an answer is not held, but for proposals that members were called for and have not given yet.

        `closings` are the record's, by the stage that each one ends: they name who was called for the next one, and
        nobody else's answer counts. Without them everybody's does.
        """
        progress, called = cls(plan, item), plan.called_first(item)
        for stage in plan.stages:
            if closings is None:
                called = tuple(answers.get(stage, ()))
            given = [answer for agent_id, answer in answers.get(stage, {}).items() if agent_id in called]
            if given or _is_awaited(stage, called, closings):
                progress.enter(stage, NextStage(called))
            for answer in given:
                progress.take(answer)
            closing = (closings or {}).get(stage)
            called = closing.called if closing else ()
        return progress

    def enter(self, stage: str, next_stage: NextStage) -> None:
        """Begin a stage: note who is called for it, or why nobody is."""
        self.answers[stage] = {}
        self.called[stage] = next_stage.called
        if next_stage.skipped:
            self.skipped[stage] = next_stage.skipped

    def leave_out(self, why: str) -> None:
        """Note why the stages that have not begun are not held."""
        for stage in self.plan.stages:
            if stage not in self.answers:
                self.skipped[stage] = why

    def take(self, answer: Answer) -> bool:
        """Add the final answer of one who was called for its stage; whether it is the first."""
        if answer.agent_id not in self.called[answer.stage] or answer.agent_id in self.answers[answer.stage]:
            return False
        self.answers[answer.stage][answer.agent_id] = answer
        if answer.error and answer.error_type == ENDED_EARLY:
            self.early[answer.stage] = answer.error
        if answer.proposal and answer.stage != SYNTHESIZE:
            self._ranked = self._read = None
            self._checks.of(answer.proposal)  # while others are awaited: after the last answer nobody has time for it
        return True

    # --- what stands ------------------------------------------------------------------------------

    @property
    def first(self) -> Mapping[str, Answer]:
        """The answers to the first stage, by member; of waves to all of them but the second sample."""
        merged: dict[str, Answer] = {}
        for stage, given in self.answers.items():
            if kind_of(stage) == PROPOSAL and stage != SECOND_SAMPLE:
                merged |= given
        return merged

    @property
    def asked(self) -> tuple[str, ...]:
        """Who was asked for a proposal so far, in the order of the stages."""
        waves = (called for stage, called in self.called.items() if kind_of(stage) == PROPOSAL)
        return tuple(dict.fromkeys(chain.from_iterable(waves)))

    def standing(self) -> dict[str, Answer]:
        """By author the last answer with a text that counts: a proposal, or its revision."""
        authors = {author: answer for author, answer in self.first.items() if answer.status is MemberStatus.OK}
        for stage, given in self.answers.items():
            if kind_of(stage) == REVISE:
                authors |= {author: answer for author, answer in given.items() if answer.status is MemberStatus.OK}
        return authors

    def ranked(self) -> tuple[RankedProposal, ...]:
        """The texts that stand, in the order of the checks, then the truncated ones, counted on."""
        if self._ranked is None:
            standing = self.standing()
            members = [member.agent_id for member in self.plan.council.members]
            whole = self._by_checks(standing[agent_id].proposal for agent_id in members if agent_id in standing)
            cut = self._by_checks(
                answer.proposal for answer in self.first.values() if answer.status is MemberStatus.TRUNCATED
            )
            behind = (entry.model_copy(update={"rank": entry.rank + len(whole)}) for entry in cut)
            self._ranked = (*whole, *behind)
        return self._ranked

    def _by_checks(self, proposals: Iterable[Proposal | None]) -> tuple[RankedProposal, ...]:
        """Those of the proposals that have a text, in the order of the checks."""
        texts = [proposal for proposal in proposals if proposal and proposal.content]
        return rank_proposals(texts, self._checks, self.plan.id)

    def candidates(self) -> tuple[Candidate, ...]:
        """The proposals that can win, in the order of the checks, which breaks every tie."""
        standing = self.standing()
        ranked = ((one.proposal.author_id, one.score) for one in self.ranked())
        return tuple(Candidate(author, score) for author, score in ranked if author in standing)

    def closed_answers(self) -> dict[str, str | None] | None:
        """By author who can win its closed answer, None where it cannot be read; None for all of an open task."""
        form = self.item.answer_format
        if form is None:
            return None
        if self._read is None:
            texts = {one.proposal.author_id: one.proposal.content for one in self.ranked()}
            self._read = {candidate.id: answer_of(texts[candidate.id], form) for candidate in self.candidates()}
        return self._read

    def majority(self) -> Majority | None:
        """The vote of closed answers; None where the task is open, or no answer can be read."""
        return self._case(()).vote if self.candidates() else None

    def agreed(self) -> str | None:
        """Why nobody needs to judge: all proposals give the same closed answer, or nobody further needs to be asked."""
        if self.plan.escalates:
            return consensus(self)
        vote = self.majority()
        if vote is None or not vote.unanimous or len(self.standing()) < 2:
            return None
        return f"all {len(self.standing())} proposals give the same answer: {vote.answer}"

    def last_review(self) -> str | None:
        """The last stage of ballots that has begun."""
        reviews = [stage for stage in self.answers if kind_of(stage) == REVIEW]
        return reviews[-1] if reviews else None

    def ballots(self) -> list[Review]:
        """The valid ballots of the last review."""
        return self._votes_cast(self.last_review())

    def decided(self) -> Decided:
        """The order that stands: by ballots, by the votes of closed answers, or by the checks."""
        ranked, case, ballots = self.ranked(), self.case(), self._tallied()
        if case is None:
            return Decided(ranked, "checks", ballots, None)
        ruling = case.ruling()
        if ballots:
            scores = ballots.tally.scores if ballots.tally.ballots else {}
            ranked = tuple(one.model_copy(update={"votes": scores.get(one.proposal.author_id)}) for one in ranked)
            ballots = ballots.model_copy(update={"set_aside": ruling.set_aside})
        return Decided(_placed(ranked, ruling.order), ruling.by, ballots, ruling.vote)

    def case(self) -> Case | None:
        """What the order that stands rests on; None without a proposal that can win."""
        return self._case(self._votes_cast(self._deciding_review())) if self.candidates() else None

    def _case(self, ballots: Iterable[Review]) -> Case:
        return Case(
            candidates=self.candidates(),
            ballots=tuple(ballots),
            answers=self.closed_answers(),
            rule=self.plan.council.tally,
            seed=self._seed(),
        )

    def _seed(self) -> int:
        """What lots are drawn with: of the item, so that the same record gives the same, live and after a crash."""
        return int(digest(["lots", salt_of(self.plan.id, self.item.id, self._deciding_review() or "")])[:16], 16)

    def _deciding_review(self) -> str | None:
        """The review whose ballots decide; None where the strategy does not end with one."""
        reviews = [stage for stage in self.plan.stages if kind_of(stage) == REVIEW]
        return reviews[-1] if reviews and not self.plan.feeds_revision(reviews[-1]) else None

    def _votes_cast(self, stage: str | None) -> list[Review]:
        """The valid ballots of a review."""
        given = self.answers.get(stage or "", {})
        return [answer.ballot for answer in given.values() if answer.ballot]

    def best_first(self, decided: Decided) -> list[str]:
        """Authors whose texts stand, in that order."""
        standing = self.standing()
        return [one.proposal.author_id for one in decided.ranked if one.proposal.author_id in standing]

    def _tallied(self) -> Ballots | None:
        """The tally of the last review; None where the strategy does not end with one."""
        candidates, stage = self.candidates(), self._deciding_review()
        if not candidates or stage is None:
            return None
        given = list(self.answers.get(stage, {}).values())
        valid = self._votes_cast(stage)
        discarded = sum(answer.status in UNUSABLE for answer in given)
        why = self._why_fewer(stage, asked=bool(given))
        outcome = tally(candidates, valid, self.plan.council.tally, discarded)
        worth = worth_of(valid, self._seed())
        return Ballots(expected=len(given), counted=len(valid), ended_early=why, tally=outcome, worth=worth)

    def _why_fewer(self, stage: str, asked: bool) -> str | None:
        """Why ballots were not waited for, or none was asked for."""
        why = self.skipped.get(stage) or self.early.get(stage)
        if why or asked:
            return why
        return self.agreed()

    # --- what follows -----------------------------------------------------------------------------

    def next_stage(self, stage: str) -> NextStage:
        """Who is called for the next stage, as things stand."""
        if kind_of(stage) == PROPOSAL:
            return NextStage(*next_wave(self, stage))
        authors = tuple(candidate.id for candidate in self.candidates())
        if len(authors) < 2:
            return NextStage((), ALONE)
        kind = kind_of(stage)
        if kind == SYNTHESIZE:
            return NextStage((self.plan.council.chair.agent_id,))
        if kind == REVISE:
            return self._revisers(authors)
        return self._reviewers(stage, authors)

    def _revisers(self, authors: Sequence[str]) -> NextStage:
        """The authors whom a counted ballot told what would improve their proposal."""
        judged = set(chain.from_iterable(ballot.opinions for ballot in self.ballots()))
        called = tuple(author for author in authors if author in judged)
        return NextStage(called) if called else NextStage((), "no critique could be counted")

    def _reviewers(self, stage: str, authors: tuple[str, ...]) -> NextStage:
        """All authors, or nobody where no ballots could change the winner and no revision needs their critiques."""
        needless = None if self.plan.feeds_revision(stage) else self._settled(stage, (), authors)
        return NextStage((), needless) if needless else NextStage(authors)

    def early_end(self, stage: str) -> str | None:
        """Why the ballots that are missing need not be waited for, if so."""
        if kind_of(stage) != REVIEW or self.plan.feeds_revision(stage):
            return None
        missing = [agent_id for agent_id in self.called[stage] if agent_id not in self.answers[stage]]
        return self._settled(stage, self.ballots(), missing)

    def _settled(self, stage: str, ballots: Sequence[Review], missing: Sequence[str]) -> str | None:
        """Why the ballots of those who are missing cannot change the decision, or None if they may.

        Of a closed task ballots may turn out not to decide, and then its vote does. So they are not needed where they
        are too few to decide (a chairman would still read their critiques), or where the vote puts first what will lead
        among the ballots, too: by whichever of the two it is decided then, and whatever breaks a tie of votes, that
        stands.
        """
        case = self._case(ballots)
        is_last = self.plan.next_stage(stage) is None
        if is_last and missing and (settled := case.settled_without([len(case.candidates) - 1] * len(missing))):
            return settled
        otherwise = case.vote.winner_id if case.vote else None
        return decided_early(case.candidates, ballots, missing, case.rule, otherwise)

    def closing(self, stage: str, next_stage: NextStage, epoch: int) -> Closing:
        """The event by which the run of an epoch closes a stage."""
        standing = self.standing()
        return Closing(
            task_id=self.plan.id,
            item=self.item.id,
            stage=stage,
            proposals={author: standing[author].stage for author in self.best_first(self.decided())},
            ballots=tuple(ballot.voter for ballot in self.ballots()),
            called=next_stage.called,
            skipped=next_stage.skipped,
            epoch=epoch,
        )


def _placed(ranked: Sequence[RankedProposal], order: Sequence[str]) -> tuple[RankedProposal, ...]:
    """The proposals of an order first, the others as they were, numbered anew."""
    place = {author: number for number, author in enumerate(order)}
    ordered = sorted(ranked, key=lambda one: place.get(one.proposal.author_id, len(place)))
    return tuple(one.model_copy(update={"rank": rank}) for rank, one in enumerate(ordered, 1))


def _is_awaited(stage: str, called: Sequence[str], closings: Mapping[str, Closing] | None) -> bool:
    """Whether the record tells that members were called for proposals, which may be on their way."""
    return closings is not None and bool(called) and kind_of(stage) == PROPOSAL
