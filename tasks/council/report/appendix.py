"""What members wrote, one click away: proposals with their earlier versions and checks, ballots with their opinions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from tasks.council.decisions import ItemResult
from tasks.council.proposal import RankedProposal
from tasks.council.report.markup import WIDTH, folded
from tasks.council.stages import REVISE, kind_of
from tasks.council.voting.ballots import MAX_SCORE, Opinion, Review

MAX_PROPOSALS = 20
"""Proposals of an item that are shown, the best."""
MAX_BALLOTS = 24
"""Ballots of a review that are shown."""
NAMED = 8
"""Places of a ranking that stand in its summary."""


@dataclass(frozen=True)
class Trail:
    """What a report shows of an item beside its result.

    `ballots` are valid ones by stage; `picture` is the tally's, as the address of an image; `unread` says why
    ballots are missing that are on the record.
    """

    ballots: Mapping[str, tuple[Review, ...]] = field(default_factory=dict)
    picture: str | None = None
    unread: str | None = None


def proposals_of(result: ItemResult, room: int) -> list[str]:
    """The best proposals of an item, in at most `room` characters."""
    shown = (_proposal(entry, result) for entry in result.results[:MAX_PROPOSALS])
    return _fitting(shown, len(result.results), "proposals", room)


def ballots_of(result: ItemResult, stage: str, trail: Trail, room: int) -> list[str]:
    """The first ballots of a review, in at most `room` characters, and what the review was for."""
    counted = next((one.ok for one in result.stages if one.stage == stage), 0)
    ballots = trail.ballots[stage][:MAX_BALLOTS]
    following = {one.stage: then.stage for one, then in pairwise(result.stages)}
    revised = kind_of(following.get(stage, "")) == REVISE
    told = ["The authors revised their proposals on these; they are not counted."] if revised else []
    return [*told, *_fitting(map(_ballot, ballots), max(counted, len(ballots)), "ballots", room)]


def _fitting(blocks: Iterable[str], all_: int, what: str, room: int) -> list[str]:
    """The first blocks that fit, and a word on those that do not."""
    shown: list[str] = []
    for block in blocks:
        if len(block) > room:
            break
        room -= len(block)
        shown.append(block)
    if len(shown) < all_:
        shown.append(f"{all_ - len(shown)} of {all_} {what} are left out for length; they are on the record.")
    return shown


def _proposal(entry: RankedProposal, result: ItemResult) -> str:
    proposal = entry.proposal
    votes = "" if entry.votes is None else f"votes {entry.votes:.2f}, "
    versions = len(proposal.revisions) + 1
    revised = f", version {versions}" if versions > 1 else ""
    summary = f"{entry.rank}. {proposal.author_id} ({proposal.author_role}): {votes}checks {entry.score:.3f}{revised}"
    is_decision = proposal.author_id == result.winner_id and proposal.content == result.decision
    text = "Its text is the decision above." if is_decision else proposal.content
    earlier = (
        folded(f"\u21b3 version {number} of {versions}, before it was revised", old)
        for number, old in enumerate(proposal.revisions, 1)
    )
    checks = folded(f"\u21b3 checks, and the model ({proposal.tokens} tokens)", _checks(entry))
    return folded(summary, text, checks, *earlier)


def _checks(entry: RankedProposal) -> str:
    """What the checks saw, one below the other."""
    lines = [f"model {entry.proposal.model}, finish_reason {entry.proposal.finish_reason}", ""]
    wide = max((len(check.name) for check in entry.checks), default=0)
    for check in entry.checks:
        head = f"{check.name:<{wide}}  {'passed' if check.passed else 'failed'}  {check.score:.2f}  "
        lines.append(_hanging(head, check.evidence))
    return "\n".join(lines)


def _ballot(ballot: Review) -> str:
    """A ballot with its opinions, in the order of its ranking, or with its reason where it has none."""
    names = [f"{place}. {author}" for place, author in enumerate(ballot.ranking[:NAMED], 1)]
    more = len(ballot.ranking) - NAMED
    summary = f"{ballot.voter}: {', '.join(names)}" + (f" and {more} more" if more > 0 else "")
    places = {author: place for place, author in enumerate(ballot.ranking, 1)}
    judged = sorted(ballot.opinions, key=lambda author: places.get(author, len(places) + 1))
    parts = [f"Shown in this order: {', '.join(ballot.shown)}"]
    if ballot.reason:
        parts.append(_hanging("reason  ", ballot.reason))
    parts += [_opinion(author, places.get(author), ballot.opinions[author]) for author in judged]
    return folded(summary, "\n\n".join(parts))


def _opinion(author: str, place: int | None, opinion: Opinion) -> str:
    wide = max(map(len, (*opinion.scores, "critique")))
    scores = (
        _hanging(f"  {key:<{wide}}  {one.score:>2}/{MAX_SCORE}  ", one.reason) for key, one in opinion.scores.items()
    )
    critique = _hanging(f"  {'critique':<{wide}}         ", opinion.critique)
    return "\n".join((f"{place}. {author}" if place else f"{author}, not ranked", *scores, critique))


def _hanging(head: str, text: str) -> str:
    """Text behind a head, its further lines below the first, so that none of them can pass for a head."""
    return textwrap.fill(
        " ".join(text.split()),
        width=max(WIDTH, len(head) + 30),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )
