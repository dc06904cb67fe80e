"""What a result says, in words for a reader who never saw one: plain text, for reports and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.council.decisions import Ballots, DecidedBy, ItemResult, MemberOutcome, StageCost
from tasks.council.models import Deliberation, MemberStatus
from tasks.council.stages import SYNTHESIZE, kind_of
from tasks.council.voting.firmness import ONE_VOTER, Firmness
from tasks.council.voting.majority import Majority
from tasks.council.voting.rules.registry import BROKEN_BY
from tasks.council.voting.tally import Tally
from tasks.council.voting.worth import LEVEL, BallotWorth

CLOSE, CLEAR = 0.1, 0.3
"""Margins, in share of the highest score, below which a win is narrow and from which it is clear."""
NAMED = 12
"""Members, or answers, that a sentence names."""
BRIEF = 160
"""Characters of an answer or a reason inside a sentence."""


def copies_in_words(plan: Deliberation) -> str:
    """Which members a request has beyond the council's own; empty where it has none."""
    if not plan.copies:
        return ""
    own, asked = len(plan.council.members) - len(plan.copies), len(plan.council.members)
    are = "is a further copy of a role" if len(plan.copies) == 1 else "are further copies of roles"
    return f"{listed(plan.copies)} {are}: council {plan.council.name} has {own} of the {asked} members asked for."


# --- how it was decided ---------------------------------------------------------------------------


def how_decided(result: ItemResult) -> str:
    """In a sentence or two how the decision came about; empty where nothing was decided."""
    if result.winner_id is None:
        return ""
    written = result.synthesis
    if written and result.decided_by == "synthesis":
        by = {"ballots": "ballots", "majority": "answers' votes", "checks": "checks"}[_ordered_by(result)]
        sources = listed(written.sources)
        return f"Written by the chairman {written.chairman_id} from the proposals of {sources}, best first by the {by}."
    return " ".join(filter(None, (f"The proposal of {result.winner_id}, {_why(result)}.", _unwritten(result))))


def in_short(result: ItemResult) -> str:
    """Who decided how, for a title: `synthesis by m1`, `answer 42, 2 of 3`, or the winner."""
    if result.synthesis and result.decided_by == "synthesis":
        return f"synthesis by {result.synthesis.chairman_id}"
    if result.answer is not None and result.majority:
        votes = len(result.majority.votes.get(result.answer, ()))
        return f"answer {_brief(result.answer)}, {votes} of {_voters(result.majority)}"
    return result.winner_id or "nobody"


def answer_in_words(result: ItemResult) -> str:
    """Who gave which closed answer; empty where the task is open, or nobody gave one that can be read."""
    vote = result.majority
    if vote is None:
        return "No proposal gives an answer that can be read." if result.answers_short else ""
    told = [f"Answers of the proposals: {'; '.join(_who_gave(vote))}."]
    if vote.tied:
        told.append(f"Of the answers with the most votes the one counts whose proposal the {vote.by} put first.")
    if result.winner_id and result.answer is None:
        told.append("The decision itself gives no answer that can be read.")
    elif result.winner_id and result.answer != vote.answer:
        told.append("That is not the answer that most proposals give.")
    return " ".join(told)


def _who_gave(vote: Majority) -> list[str]:
    """Each answer with those who gave it, most votes first."""
    gave = [f"{_brief(answer)} by {listed(authors)}" for answer, authors in list(vote.votes.items())[:NAMED]]
    if len(vote.votes) > NAMED:
        gave.append(f"{len(vote.votes) - NAMED} other answers")
    if vote.silent:
        gave.append(f"none that can be read by {listed(vote.silent)}")
    return gave


def dissent_in_words(result: ItemResult) -> str:
    """Who put another proposal first than the one that won; empty where nobody did, or no ballot was counted."""
    ballots = result.ballots
    if ballots is None or result.winner_id is None or not ballots.tally.ranks:
        return ""
    won, others = ballots.tally.winner, dict[str, list[str]]()
    for voter, ranks in ballots.tally.ranks.items():
        first = min(ranks, key=lambda author: ranks[author], default=won)
        if first != won and voter != won:  # nobody ranks itself
            others.setdefault(first, []).append(voter)
    if not others:
        return f"Dissent: none; every other voter put {won} first."
    told = (f"{listed(voters)} put {author} first" for author, voters in list(others.items())[:NAMED])
    return f"Dissent: {'; '.join(told)}."


def skipped_in_words(stages: Iterable[StageCost]) -> list[str]:
    """One line for each reason why stages were not held."""
    by_reason: dict[str, list[str]] = {}
    for stage in stages:
        if stage.skipped:
            by_reason.setdefault(stage.skipped, []).append(stage.stage)
    return [f"Not held: {listed(names)}, since {reason}." for reason, names in by_reason.items()]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `m1, m2 and m3`."""
    shown = list(names[:NAMED])
    if len(names) > NAMED:
        shown.append(f"{len(names) - NAMED} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def _ordered_by(result: ItemResult) -> DecidedBy:
    """What the order of the proposals rests on, also where a synthesis was made from them."""
    if result.ballots and result.ballots.tally.ballots and not result.ballots.set_aside:
        return "ballots"
    return "majority" if result.majority else "checks"


def _why(result: ItemResult) -> str:
    """Why this proposal is the decision."""
    ordered_by = _ordered_by(result)
    if ordered_by == "ballots":
        tied = result.ballots is not None and result.ballots.tally.margin == 0
        return "one of those that the ballots put first" if tied else "which the ballots put first"
    if result.received_count == 1:
        return "the only one that was asked for" if result.total_agents == 1 else "the only one that can be used"
    vote, by_checks = result.majority, "which the checks put first"
    why = f"which the majority gives: {_most(vote)}" if vote else by_checks
    without = _why_without(result.ballots)
    return f"{why}, since {without}" if without else why


def _why_without(ballots: Ballots | None) -> str | None:
    """Why ballots that were asked for did not decide."""
    if ballots is None or ballots.set_aside:
        return ballots.set_aside if ballots else None
    return "no ballot could be counted" if ballots.expected and not ballots.tally.ballots else None


def _most(vote: Majority) -> str:
    votes, all_ = len(vote.votes[vote.answer]), _voters(vote)
    return f"{votes} of {all_} proposals answer {_brief(vote.answer)}, and of these the {vote.by} put it first"


def _unwritten(result: ItemResult) -> str:
    """Why there is no synthesis, where one was meant to be."""
    if failed := result.synthesis:
        why = f"{failed.status.value}: {_brief(failed.reason).rstrip('.')}" if failed.reason else failed.status.value
        return f"The synthesis of the chairman {failed.chairman_id} failed ({why}), so the best proposal stands."
    skipped = next((stage.skipped for stage in result.stages if stage.stage == SYNTHESIZE), None)
    return f"No synthesis was asked for, since {skipped}." if skipped else ""


def _voters(vote: Majority) -> int:
    return sum(map(len, vote.votes.values())) + len(vote.silent)


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= BRIEF else f"{line[:BRIEF]} [...]"


# --- what the ballots say -------------------------------------------------------------------------


def in_words(ballots: Ballots) -> str:
    """Who won by how much, how far the voters agree, what was not counted, and what the ballots are worth."""
    aside = "The vote of the answers decided in their place." if ballots.set_aside else ""
    told = (_counted(ballots), tally_in_words(ballots.tally), worth_in_words(ballots.worth), aside)
    return " ".join(filter(None, told))


def worth_in_words(worth: BallotWorth | None) -> str:
    """Where ballots stand no better than chance; empty where they do."""
    if worth is None:
        return ""
    told = []
    if worth.follows_order:
        seen = f"{worth.first_shown} of {worth.of} put first what was shown first"
        told.append(f"Ballots follow the order in which proposals were shown: {seen}.")
    if worth.least_p > LEVEL:
        told.append("So few ballots could be drawn lots, whatever they say.")
    elif not worth.agrees:
        told.append(f"Drawn lots agree as far in {worth.agreement_p:.0%} of elections, so it may be chance.")
    return " ".join(told)


# --- how firm it is -------------------------------------------------------------------------------


def firmness_in_words(firmness: Firmness | None) -> str:
    """What would turn the decision; empty where it rests on no votes."""
    if firmness is None:
        return ""
    if firmness.unknown == ONE_VOTER:
        return ""
    if firmness.unknown:
        return f"Whether it hangs on one voter, member or tally rule was not looked at: {firmness.unknown}."
    rules = ", and under every tally rule" if firmness.rules else ""
    if firmness.holds:
        return f"Holds without any one voter or member{rules}."
    turns = [f"to {_brief(other)} {' and '.join(causes)}" for other, causes in _causes(firmness).items()]
    return f"The decision turns {'; '.join(turns[:NAMED])}."


def _causes(firmness: Firmness) -> dict[str, list[str]]:
    """By what else would stand first, what turns the decision to it."""
    voters, members, rules = (
        _by_outcome(one) for one in (firmness.without_voter, firmness.without_member, firmness.by_rule)
    )
    causes: dict[str, list[str]] = {}
    for other in {**voters, **members, **rules}:
        gone = members.get(other, [])
        silent = [one for one in voters.get(other, []) if one not in gone]
        told = {
            "without": _any_of(gone),
            "without the vote of": _any_of(silent),
            "by": _any_of(rules.get(other, [])),
        }
        causes[other] = [f"{how} {names}" for how, names in told.items() if names]
    return causes


def _by_outcome(changes: Mapping[str, str]) -> dict[str, list[str]]:
    """What was taken away, by what stands first then."""
    found: dict[str, list[str]] = {}
    for taken, other in changes.items():
        found.setdefault(other, []).append(taken)
    return found


def _any_of(names: Sequence[str]) -> str:
    """Names in a sentence, of which one is enough: `m1, m2 or m3`."""
    shown = list(names[:NAMED])
    if len(names) > NAMED:
        shown.append(f"one of {len(names) - NAMED} more")
    return " or ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def tally_in_words(tally: Tally) -> str:
    """Who won by how much, how far the voters agree, and how ties were broken."""
    told = [_margin(tally), _condorcet(tally), _agreement(tally)] if tally.ballots else []
    return " ".join(filter(None, [*told, _ties(tally)]))


def _counted(ballots: Ballots) -> str:
    if ballots.ended_early and not ballots.expected:
        return f"No ballots were asked for: {ballots.ended_early}."
    if not ballots.tally.ballots:
        return f"None of {ballots.expected} ballots could be counted."
    counted = f"{ballots.counted} of {ballots.expected} ballots were counted ({ballots.tally.rule})"
    discarded = _discarded(ballots.tally.discarded)
    early = f"; the others were not waited for, since {ballots.ended_early}" if ballots.ended_early else ""
    return f"{counted}{discarded}{early}."


def _discarded(invalid: int) -> str:
    if invalid == 0:
        return ""
    return f"; {invalid} {'was' if invalid == 1 else 'were'} invalid"


def _margin(tally: Tally) -> str:
    if tally.margin is None:
        return ""
    if tally.margin == 0:
        return f"{tally.winner} and {tally.order[1]} have the same votes."
    return f"{tally.winner} leads {tally.order[1]} by {_sized(tally.margin)} margin of {tally.margin:.2f}."


def _sized(margin: float) -> str:
    if margin >= CLEAR:
        return "a clear"
    return "a narrow" if margin < CLOSE else "a"


def _condorcet(tally: Tally) -> str:
    if tally.condorcet is None:
        return "No proposal beats every other one to one."
    same = tally.condorcet == tally.winner
    return "It beats every other one to one." if same else f"One to one, {tally.condorcet} beats every other."


def _agreement(tally: Tally) -> str:
    if tally.agreement is None or tally.agreement_by_chance is None:
        return ""
    chance = f"drawing lots gives {tally.agreement_by_chance:.2f}"
    return f"Agreement of the voters (Kendall's W) is {tally.agreement:.2f}; {chance}."


def _ties(tally: Tally) -> str:
    told = [f"{listed(tie.candidates)} by {BROKEN_BY[tie.broken_by]}" for tie in tally.ties]
    return f"Ties were broken: {'; '.join(told)}." if told else ""


# --- what became of members -----------------------------------------------------------------------


def later_kinds(result: ItemResult) -> list[str]:
    """Kinds of stages after the first in which members were called: `review`, `revise`, `synthesize`."""
    called: set[str] = set()
    for member in result.members:
        called.update(map(kind_of, member.stages))
    held = dict.fromkeys(kind_of(stage.stage) for stage in result.stages)
    return [kind for kind in held if kind in called]


def statuses(member: MemberOutcome, kind: str, stages: Sequence[StageCost]) -> str:
    """What became of a member's answers in the stages of a kind: `ok`, or what was not, or `-` for none waited for."""
    awaited = _awaited(member, kind, stages)
    wrong = dict.fromkeys(status.value for status in awaited if status is not MemberStatus.OK)
    return ", ".join(wrong) or (awaited[0].value if awaited else "-")


def _awaited(member: MemberOutcome, kind: str, stages: Sequence[StageCost]) -> list[MemberStatus]:
    """How a member answered in the stages of a kind, without answers that were not waited for.

    Those are known by their reason, which is the one that their stage was ended early for.
    """
    early = {stage.stage: stage.ended_early for stage in stages if stage.ended_early}
    of_kind = ((stage, answer) for stage, answer in member.stages.items() if kind_of(stage) == kind)
    return [answer.status for stage, answer in of_kind if stage not in early or answer.reason != early[stage]]


def reasons(member: MemberOutcome, stages: Sequence[StageCost]) -> list[str]:
    """Why answers of a member are missing, stage by stage; not those that were not waited for."""
    early = {stage.stage: stage.ended_early for stage in stages}
    later = ((stage, one.reason) for stage, one in member.stages.items() if one.reason != early.get(stage))
    first = [member.reason] if member.reason else []
    return [*first, *(f"{stage}: {reason}" for stage, reason in later if reason)]


def missing_in_words(result: ItemResult) -> list[str]:
    """Why answers are missing: a line for each reason, with those whose answers they are."""
    by_reason: dict[str, list[str]] = {}
    for member in result.members:
        for reason in reasons(member, result.stages):
            by_reason.setdefault(reason, []).append(member.agent_id)
    return [f"{listed(members)}: {reason}" for reason, members in by_reason.items()]
