"""The report of a deliberation as Markdown: the decision first, then who said what and at what cost.

Text of models and users is shown in fenced blocks whose fence is longer than any run of backticks inside, or
as escaped table cells: nothing in it is rendered as Markdown or HTML.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

from tasks.council.decisions import ItemResult, MemberOutcome, RankedProposal
from tasks.council.models import Deliberation, Status
from tasks.council.proposals import Usage
from tasks.council.tally import Tally
from tasks.council.wording import in_words

_WRAP = textwrap.TextWrapper(width=100, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~:$@.-])")
MAX_COLUMNS = 20
"""Proposals that the table of ballots shows, the best."""
MAX_SHOWN = 20_000
"""Characters of one proposal that the report shows; the whole text is on the record."""


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


def report(plan: Deliberation, results: Sequence[ItemResult], lines: Sequence[Line], usage: Usage) -> str:
    """The whole report; `results` may hold fewer items than `lines`."""
    parts = [_title(plan, results)]
    if len(lines) > 1:
        parts += ["## Items", _items_table(lines)]
    for result in results:
        parts += _item(result, alone=len(lines) == 1)
    if len(results) < len(lines):
        parts.append(f"Of {len(lines)} items the first {len(results)} are shown in full; all are on the record.")
    parts.append(
        f"Council `{plan.council.name}`, strategy `{plan.strategy}`, deliberation `{plan.id}`. Tokens: "
        f"{usage.prompt_tokens} prompt ({usage.cached_tokens} cached), {usage.completion_tokens} completion."
    )
    return "\n\n".join(parts)


def table(results: Sequence[ItemResult]) -> list[dict[str, Any]]:
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
                    "tokens": member.usage.completion_tokens,
                    "ms": member.duration_ms,
                    "reason": escape(member.reason or ""),
                }
            )
    return rows


def fenced(text: str) -> str:
    """Text as a code block that it cannot leave, with long lines wrapped, since the block would not."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n[...]"
    shown = "\n".join(_WRAP.fill(line) if len(line) > _WRAP.width else line for line in cut.split("\n"))
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def escape(text: str) -> str:
    """Text for one line of Markdown, with nothing in it that Markdown or HTML would act on."""
    return html.escape(_SPECIAL.sub(r"\\\1", " ".join(text.split())), quote=False)


def _title(plan: Deliberation, results: Sequence[ItemResult]) -> str:
    simulated = any(result.engine == "simulator" for result in results)
    warning = "\n\n**Simulated: these texts come from the simulator, not from a model. A rehearsal, not a decision.**"
    return f"# Deliberation of council {escape(plan.council.name)}" + (warning if simulated else "")


def _items_table(lines: Sequence[Line]) -> str:
    rows = ["| item | status | answers | winner | ms |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| {line.item} | {line.status.value} | {line.headline} | {line.winner_id or ''} | {line.duration_ms} |"
        for line in lines[:1000]
    ]
    return "\n".join(rows)


def _item(result: ItemResult, alone: bool) -> list[str]:
    of = "" if alone else f" of {result.item}"
    parts = [f"## {_verdict(result)}{of} ({result.headline})", f"**Task:** {escape(result.task[:500])}"]
    if result.error_message:
        parts.append(escape(result.error_message))
    if result.decision is not None:
        parts += [f"The proposal of **{result.winner_id}** is the decision:", fenced(result.decision)]
    if result.ballots:
        parts += [f"### Ballots{of}", escape(in_words(result.ballots)), _ballots_table(result.ballots.tally)]
    parts += [f"### Members{of} ({result.headline})", _members_table(result.members)]
    for entry in result.results:
        parts += _proposal(entry, shown=entry.proposal.author_id == result.winner_id)
    return parts


def _ballots_table(tally: Tally) -> str:
    """Who ranked whom where: a row for each voter, a column for each proposal, best first."""
    shown = tally.order[:MAX_COLUMNS]
    rows = [f"| | {' | '.join(shown)} |", "| --- " * (len(shown) + 1) + "|"]
    for voter, ranks in tally.ranks.items():
        cells = ("own" if author == voter else str(ranks.get(author, "-")) for author in shown)
        rows.append(f"| **{voter}** | {' | '.join(cells)} |")
    rows.append(f"| votes | {' | '.join(f'{tally.scores[author]:.2f}' for author in shown)} |")
    return "\n".join(rows)


def _verdict(result: ItemResult) -> str:
    return {
        Status.COMPLETED: "Decision",
        Status.TIMEOUT: "No decision: out of time",
        Status.CANCELLED: "No decision: cancelled",
    }.get(result.status, "No decision: failed")


def _members_table(members: Sequence[MemberOutcome]) -> str:
    rows = ["| member | role | status | ballot | seconds | tokens | cached | reason |", "| --- " * 8 + "|"]
    for m in members:
        later = ", ".join(f"{stage} {one.status.value}" for stage, one in m.stages.items())
        ballot, reason = later or "-", escape(m.reason or "")
        cost = f"{m.duration_ms / 1000:.2f} | {m.usage.completion_tokens} | {m.usage.cached_tokens}"
        rows.append(f"| {m.agent_id} | {m.role} | {m.status.value} | {ballot} | {cost} | {reason} |")
    return "\n".join(rows)


def _proposal(entry: RankedProposal, shown: bool) -> list[str]:
    proposal = entry.proposal
    rows = ["| check | passed | score | evidence |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {check.name} | {'yes' if check.passed else 'no'} | {check.score:.2f} | {escape(check.evidence)} |"
        for check in entry.checks
    ]
    head = f"### {entry.rank}. {proposal.author_id} ({proposal.author_role}): score {entry.score:.3f}"
    text = "Its text is the decision above." if shown else fenced(proposal.content)
    return [head, f"Model {escape(proposal.model)}, {proposal.tokens} tokens.", "\n".join(rows), text]
