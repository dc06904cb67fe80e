"""What a tally says, in words for a reader who never saw one."""

from __future__ import annotations

from tasks.council.decisions import Ballots
from tasks.council.tally import Tally

CLOSE, CLEAR = 0.1, 0.3
"""Margins, in share of the highest score, below which a win is narrow and from which it is clear."""


def in_words(ballots: Ballots) -> str:
    """Who won by how much, how far the voters agree, and what was not counted."""
    return f"{_counted(ballots)} {tally_in_words(ballots.tally)}".strip()


def tally_in_words(tally: Tally) -> str:
    """Who won by how much, how far the voters agree, and how ties were broken."""
    told = [_margin(tally), _condorcet(tally), _agreement(tally)] if tally.ballots else []
    return " ".join(filter(None, [*told, _ties(tally)]))


def _counted(ballots: Ballots) -> str:
    if ballots.ended_early and not ballots.expected:
        return f"No ballots were asked for: {ballots.ended_early}. The order of the checks stands."
    if not ballots.tally.ballots:
        return f"None of {ballots.expected} ballots could be counted: the order of the checks stands."
    counted = f"{ballots.counted} of {ballots.expected} ballots were counted ({ballots.tally.rule})"
    early = f"; the others were not waited for, since {ballots.ended_early}" if ballots.ended_early else ""
    discarded = f"; {ballots.tally.discarded} were invalid" if ballots.tally.discarded else ""
    return f"{counted}{early}{discarded}."


def _margin(tally: Tally) -> str:
    if tally.margin is None:
        return ""
    if tally.margin == 0:
        return f"{tally.winner} and {tally.order[1]} have the same votes."
    size = "a clear" if tally.margin >= CLEAR else "a narrow" if tally.margin < CLOSE else "a"
    return f"{tally.winner} leads {tally.order[1]} by {size} margin of {tally.margin:.2f}."


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
    how = {"checks": "the checks", "hash": "a hash"}
    told = [f"{' and '.join(tie.candidates)} by {how[tie.broken_by]}" for tie in tally.ties]
    return f"Ties were broken: {'; '.join(told)}." if told else ""
