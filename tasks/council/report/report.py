"""The report of a deliberation as Markdown: the decision and how it came about, the votes, the cost, who said what.

Text of models and users is shown as text (`markup.py`). The length is bounded, however large council and agenda
are: what is left out is told, and stands on the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tasks.council.decisions import ItemResult
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, Status
from tasks.council.proposal import Usage
from tasks.council.report.appendix import Trail, ballots_of, proposals_of
from tasks.council.report.markup import cell, escape, fenced, table
from tasks.council.report.wording import (
    answer_in_words,
    copies_in_words,
    firmness_in_words,
    how_decided,
    in_words,
    later_kinds,
    missing_in_words,
    reasons,
    skipped_in_words,
    statuses,
)
from tasks.council.voting.tally import Tally

MAX_REPORT = 1_000_000
"""Characters of pictures and folded texts in a whole report; the items share them."""
MAX_LINES = 1000
"""Items that the table of an agenda has."""
MAX_COLUMNS, MAX_ROWS = 20, 24
"""Proposals and voters in the table of ballots that stands in for the picture."""
MAX_REASON = 300
NOTHING = Trail()

_VERDICTS = {
    Status.COMPLETED: "Decision",
    Status.TIMEOUT: "No decision: out of time",
    Status.CANCELLED: "No decision: cancelled",
}
_SIMULATED = "**Simulated: these texts come from the simulator, not from a model. A rehearsal, not a decision.**"
_DEGRADED = "Degraded: not all who were asked gave an answer that can be used; the members' table says who and why."
_UNREAD = "Degraded: fewer than half of the closed answers can be read."
_LEGEND = (
    "A row is a voter's ballot, a column a proposal, best first: 1 is what the voter put first. Nobody judges its own "
    "proposal, or knows whose the others are. Votes are from 0 to 1."
)


class Line(Protocol):
    """One row of the table of items."""

    @property
    def item(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> Status: ...  # noqa: D102
    @property
    def headline(self) -> str: ...  # noqa: D102
    @property
    def winner_id(self) -> str | None: ...  # noqa: D102
    @property
    def duration_ms(self) -> int: ...  # noqa: D102


def report(
    plan: Deliberation,
    results: Sequence[ItemResult],
    lines: Sequence[Line],
    usage: Usage,
    trails: Mapping[str, Trail] | None = None,
) -> str:
    """The whole report; `results` may hold fewer items than `lines`. `trails` are ballots and pictures by item."""
    parts = [f"# Deliberation of council {escape(plan.council.name)}"]
    if any(result.engine == SIMULATOR for result in results):
        parts.append(_SIMULATED)
    if plan.copies:
        parts.append(escape(copies_in_words(plan)))
    if len(lines) > 1:
        parts += ["## Items", *_items(lines)]
    for result in results:
        room = MAX_REPORT // len(results)
        parts += _item(result, (trails or {}).get(result.item, NOTHING), room, alone=len(lines) == 1)
    if len(results) < len(lines):
        parts.append(f"Of {len(lines)} items the first {len(results)} are shown in full; all are on the record.")
    parts.append(
        f"Council `{plan.council.name}`, strategy `{plan.strategy}`, deliberation `{plan.id}`. Tokens: "
        f"{usage.prompt_tokens} prompt ({usage.cached_tokens} cached), {usage.completion_tokens} completion."
    )
    return "\n\n".join(parts)


def ranking(results: Iterable[ItemResult]) -> list[dict[str, Any]]:
    """Rows of the ranking: one for each member and item."""
    rows = []
    for result in results:
        ranked = {entry.proposal.author_id: entry for entry in result.results}
        for member in result.members:
            entry = ranked.get(member.agent_id)
            rows.append(
                {
                    "item": result.item,
                    "rank": entry.rank if entry else None,
                    "member": member.agent_id,
                    "role": member.role,
                    "status": member.status.value,
                    "score": entry.score if entry else None,
                    "votes": entry.votes if entry else None,
                    "tokens": member.usage.completion_tokens,
                    "ms": member.duration_ms,
                    "reason": cell("; ".join(reasons(member, result.stages)), MAX_REASON),
                }
            )
    return rows


def _items(lines: Sequence[Line]) -> list[str]:
    rows = (
        (line.item, line.status.value, line.headline, line.winner_id or "", f"{line.duration_ms / 1000:.2f}")
        for line in lines[:MAX_LINES]
    )
    more = [f"And {len(lines) - MAX_LINES} more."] if len(lines) > MAX_LINES else []
    return [table(("item", "status", "answers", "winner", ">seconds"), rows), *more]


def _item(result: ItemResult, trail: Trail, room: int, alone: bool) -> list[str]:
    """What an item came to; picture and folded texts share `room` characters."""
    of = "" if alone else f" of {result.item}"
    picture = _picture(trail, room // 2) if result.ballots else None
    parts = [
        f"## {_VERDICTS.get(result.status, 'No decision: failed')}{of} ({result.headline})",
        f"**Task:** {escape(result.task, 500)}",
        *_decision(result),
    ]
    if result.ballots:
        parts += [f"### The vote{of}", *_vote(result, picture)]
    if result.stages:
        parts += [f"### Cost{of}", *_costs(result)]
    parts += [f"### Members{of} ({result.headline})", *_members(result)]
    return [*parts, *_texts(result, trail, room - len(picture or ""), of)]


def _picture(trail: Trail, most: int) -> str | None:
    """The tally's picture, if it has at most so many characters."""
    if trail.picture is None or len(trail.picture) > most:
        return None
    return trail.picture


def _texts(result: ItemResult, trail: Trail, room: int, of: str) -> list[str]:
    """Proposals and ballots, folded; where both are there, each has half of the room."""
    parts: list[str] = []
    reviewed = [stage for stage in trail.ballots if trail.ballots[stage]]
    share = room // 2 if reviewed or trail.unread else room
    if result.results:
        parts += [f"### Proposals{of}", *proposals_of(result, share)]
    for stage in reviewed:
        parts += [f"### Ballots of {stage}{of}", *ballots_of(result, stage, trail, share // len(reviewed))]
    if trail.unread:
        parts.append(f"The ballots could not be read for this report ({escape(trail.unread, MAX_REASON)}).")
    return parts


def _decision(result: ItemResult) -> list[str]:
    """What was decided, how that came about, and with which answer; or why nothing was."""
    parts = _degraded(result)
    if result.error_message:
        parts.append(escape(result.error_message, MAX_REASON))
    if result.decision is not None:
        told = " ".join(filter(None, (how_decided(result), firmness_in_words(result.firmness))))
        parts.append(f"**Decided:** {escape(told)}")
    if result.answer is not None:
        parts.append(f"**Answer: {escape(result.answer)}**")
    if told := answer_in_words(result):
        parts.append(escape(told))
    if result.decision is not None:
        parts.append(fenced(result.decision))
    return parts


def _degraded(result: ItemResult) -> list[str]:
    """What is missing, where something is."""
    if not result.degraded:
        return []
    members = result.received_count < result.total_agents or any(stage.short for stage in result.stages[1:])
    told = {_DEGRADED: members, _UNREAD: result.answers_short is not None}
    return [text for text, is_so in told.items() if is_so]


def _vote(result: ItemResult, picture: str | None) -> list[str]:
    """The tally as a picture, or as a table where there is none, and in words."""
    assert result.ballots is not None
    tally, told = result.ballots.tally, escape(in_words(result.ballots))
    if not tally.ballots:
        return [told]
    shown = f"![{told}]({picture})" if picture else _ranks(tally)
    return [shown, told, _LEGEND]


def _ranks(tally: Tally) -> str:
    authors = tally.order[:MAX_COLUMNS]
    rows = []
    for voter in list(tally.ranks)[:MAX_ROWS]:
        rows.append((f"**{voter}**", *(_rank(tally, voter, author) for author in authors)))
    rows.append(("votes", *(f"{tally.scores[author]:.2f}" for author in authors)))
    return table(("", *authors), rows)


def _rank(tally: Tally, voter: str, author: str) -> str:
    return "own" if author == voter else str(tally.ranks[voter].get(author, "-"))


def _costs(result: ItemResult) -> list[str]:
    """What each stage took; its seconds are the longest answer's, those of the whole the time from start to end.

    Below the table, as below that of the members, stands what is to say: tables do not wrap in both of the UIs.
    """
    stages = result.stages
    columns = ("stage", ">asked", ">usable", ">seconds", ">prompt tokens", ">cached", ">completion tokens")
    rows = [_cost(stage.stage, stage.called, stage.ok, stage.duration_ms, stage.usage) for stage in stages]
    called, ok = sum(stage.called for stage in stages), sum(stage.ok for stage in stages)
    total = (f"**{cell}**" for cell in _cost("all", called, ok, result.duration_ms, result.usage))
    told = [
        f"{one.stage}: the others were not waited for, since {one.ended_early}" for one in stages if one.ended_early
    ]
    return [table(columns, [*rows, tuple(total)]), *_list([*told, *skipped_in_words(stages)])]


def _cost(stage: str, called: int, ok: int, duration_ms: int, usage: Usage) -> tuple[str, ...]:
    cached = f"{100 * usage.cached_tokens / usage.prompt_tokens:.0f} %" if usage.prompt_tokens else "-"
    seconds = f"{duration_ms / 1000:.2f}"
    return (stage, str(called), str(ok), seconds, str(usage.prompt_tokens), cached, str(usage.completion_tokens))


def _list(lines: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {escape(line, MAX_REASON)}" for line in lines)
    return [listed] if listed else []


def _members(result: ItemResult) -> list[str]:
    """A row for each member, and why answers are missing."""
    kinds = later_kinds(result)
    columns = ("member", "role", "propose", *kinds, ">seconds", ">tokens")
    rows = (
        (
            member.agent_id,
            member.role,
            member.status.value,
            *(statuses(member, kind, result.stages) for kind in kinds),
            f"{member.duration_ms / 1000:.2f}",
            str(member.usage.completion_tokens),
        )
        for member in result.members
    )
    return [table(columns, rows), *_list(missing_in_words(result))]
