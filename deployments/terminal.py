"""What a deliberation looks like in a terminal: members as they answer, then the decision.

Text of models and users goes to the terminal as plain text: no markup of ours, no control characters. The consoles that
are made here see to that, whatever is shown on them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.live import Live
from rich.measure import Measurement
from rich.panel import Panel
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from blocks.record.envelope import Body
from tasks.council.answer import Answer
from tasks.council.council import CouncilSpec
from tasks.council.decisions import ItemResult, MemberOutcome
from tasks.council.engines import SIMULATOR
from tasks.council.models import Deliberation, MemberStatus, Status
from tasks.council.plain import plain
from tasks.council.proposal import RankedProposal
from tasks.council.report.wording import (
    answer_in_words,
    firmness_in_words,
    how_decided,
    in_short,
    in_words,
    later_kinds,
    missing_in_words,
    skipped_in_words,
    statuses,
    tally_in_words,
)
from tasks.council.stages import PROPOSE, SYNTHESIZE
from tasks.council.tally_names import DEFAULT_TALLY
from tasks.council.voting.tally import Tally
from tasks.deliberations.watch import Watcher

MARKS = {MemberStatus.OK: ("ok", "green"), MemberStatus.CANCELLED: ("cancelled", "yellow")}
VERDICTS = {"COMPLETED": "Decision", "TIMEOUT": "No decision: out of time", "CANCELLED": "No decision: cancelled"}
NUMBERS = ("rank", "score", "votes", "seconds", "tokens")
FRAME = 6
"""Columns of a panel's title that are not text."""
MAX_ROWS = 20
"""Members that are shown while they answer."""
WIDE = 4
"""Stages from which on roles and reasons are not shown with them."""
UNRANKED = 1000
"""Where members without a proposal stand, behind every rank."""


class TerminalWatcher(Watcher):
    """Shows members while they answer: as a live table on a terminal, as lines elsewhere; on standard error."""

    def __init__(self) -> None:
        self._console = stderr()
        self._live: Live | None = None
        self._plan: Deliberation | None = None
        self._answers: dict[str, dict[tuple[str, str], Answer]] = {}
        self._spinner = Spinner("dots")

    def began(self, plan: Deliberation) -> None:
        """Show who is asked."""
        self._plan = plan
        what = plan.agenda[0].task if len(plan.agenda) == 1 else f"{len(plan.agenda)} items"
        title = Text(f"council {plan.council.name}, {len(plan.council.members)} members, quorum {plan.quorum}: ")
        self._console.print(title.append(plain(what[:200]), style="bold"))
        self._console.print(Text(f"deliberation {plan.id}", style="dim"))
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=lambda: Plain(self._table()), console=self._console, transient=True, refresh_per_second=8
            )
            self._live.start()

    def answered(self, answer: Answer) -> None:
        """Show an answer."""
        self._answers.setdefault(answer.agent_id, {})[answer.item, answer.stage] = answer
        if self._live is None and self._plan is not None and len(self._plan.agenda) == 1:
            self._console.print(_answer_line(answer))

    def ended(self) -> None:
        """Leave the final state of the members on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self._table())

    def say(self, text: str) -> None:
        """Say a line."""
        self._console.print(Text(text))

    def _table(self) -> RenderableType:
        """A row for each member: its role, what it did in each stage, and why an answer is missing."""
        if self._plan is None:
            return Text()
        roles = {member.agent_id: member.role for member, _ in self._plan.posts}
        table = _progress_table(self._plan)
        for agent_id in list(roles)[:MAX_ROWS]:
            states = self._states(agent_id)
            if _with_reasons(self._plan):
                table.add_row(agent_id, roles[agent_id], *states, Text(self._reason(agent_id), style="dim"))
            else:
                table.add_row(agent_id, *states)
        if (more := len(roles) - MAX_ROWS) > 0:
            table.add_row(f"and {more} more")
        return table

    def _states(self, agent_id: str) -> list[RenderableType]:
        """What a member did: a cell for each stage, or of an agenda one for all."""
        assert self._plan is not None
        if len(self._plan.agenda) > 1:
            return [self._count(agent_id)]
        return [self._state(agent_id, stage) for stage in self._plan.stages]

    def _reason(self, agent_id: str) -> str:
        """What the last of a member's failed answers says; nothing for an agenda, since it could be any item's."""
        assert self._plan is not None
        if len(self._plan.agenda) > 1:
            return ""
        errors = [answer.error for answer in self._answers.get(agent_id, {}).values() if answer.error]
        return plain(errors[-1]) if errors else ""

    def _count(self, agent_id: str) -> Text:
        """How many of its answers to an agenda a member has given."""
        assert self._plan is not None
        asked = len(self._plan.agenda) * sum(member.agent_id == agent_id for member, _ in self._plan.posts)
        return Text(f"{len(self._answers.get(agent_id, {}))} of up to {asked} answers")

    def _state(self, agent_id: str, stage: str) -> RenderableType:
        """A member's answer in a stage; a spinner where it is at work on it."""
        assert self._plan is not None
        given = self._answers.get(agent_id, {})
        answer = given.get((self._plan.agenda[0].id, stage))
        if answer is not None:
            mark, style = MARKS.get(answer.status, (answer.status.value, "red"))
            return Text(mark, style=style).append(f" {answer.duration_ms / 1000:.1f} s", style="default")
        called = any(member.agent_id == agent_id for member in self._plan.called_for(stage))
        if self._live is not None and called and stage == self._present():
            return self._spinner
        return Text("-" if called else "", style="dim")

    def _present(self) -> str:
        """The stage that the council is in, as far as its answers tell."""
        assert self._plan is not None
        answered: list[str] = []
        for given in self._answers.values():
            answered += [stage for _, stage in given]
        latest = max(map(self._plan.stages.index, answered), default=0)
        called = len(self._plan.called_for(self._plan.stages[latest]))
        over = answered.count(self._plan.stages[latest]) >= called and latest + 1 < len(self._plan.stages)
        return self._plan.stages[latest + over]


def _with_reasons(plan: Deliberation) -> bool:
    """Whether there is room for roles and reasons."""
    return len(plan.stages) < WIDE


def _progress_table(plan: Deliberation) -> Table:
    """The table of members while they answer, without a row yet; stages are named where there are several."""
    alone = len(plan.agenda) == 1
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=alone and len(plan.stages) > 1, header_style="dim")
    table.add_column("", no_wrap=True)
    if _with_reasons(plan):
        table.add_column("", no_wrap=True)  # the role
    for stage in plan.stages if alone else ("",):
        table.add_column(stage, no_wrap=True)
    if _with_reasons(plan):
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def show_result(result: Body, console: Console, where: list[str]) -> None:
    """The decision, who took part, and where to look."""
    if result["engine"] == SIMULATOR:
        console.print(Text("SIMULATED: these texts come from the simulator, not from a model.", style="bold yellow"))
    if result.get("items"):
        console.print(_items(result))
    elif "results" in result:
        _show_item(ItemResult.from_record(result), console)
    else:
        console.print(_verdict(result["status"]))
        if result.get("error_message"):
            console.print(Text(plain(result["error_message"])))
    for line in where:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _show_item(result: ItemResult, console: Console) -> None:
    """What an item came to: the decision, who took part, and how it came about, in words."""
    if result.decision is not None:
        title, count = f"Decision of council {result.council}: {plain(in_short(result))}", f" ({result.headline})"
        fits = len(title + count) <= console.width - FRAME
        below = None if fits else Text(result.headline)
        head = Text(title + count if fits else title)
        text = Text(plain(result.decision))
        console.print(Panel(text, title=head, subtitle=below, border_style="green", padding=(1, 2)))
    else:
        console.print(_verdict(result.status.value))
        if result.error_message:
            console.print(Text(plain(result.error_message)))
    console.print(_members(result, console))
    told = [*missing_in_words(result), how_decided(result), firmness_in_words(result.firmness), answer_in_words(result)]
    if result.ballots:
        told.append(in_words(result.ballots))
    for line in filter(None, [*told, *skipped_in_words(result.stages)]):
        console.print(Text(plain(line)))


def show_councils(councils: Mapping[str, CouncilSpec], console: Console) -> None:
    """One line for each council: its rules and who sits in it."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("council", "members", "quorum", "deadline", "strategy", "roles", "servers"):
        table.add_column(column, justify="right" if column in ("members", "quorum", "deadline") else "left")
    for name, council in councils.items():
        roles = ", ".join(dict.fromkeys(member.role for member in council.members))
        servers = ", ".join(sorted({member.server for member in council.everyone}))
        numbers = (str(len(council.members)), str(council.decides_at), f"{council.deadline_s:g} s")
        row = (name, *numbers, _strategy(council), plain(roles), plain(servers))
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _strategy(council: CouncilSpec) -> str:
    """How a council decides, in short: what is not as usual is named."""
    rounds = f", {council.rounds} rounds" if council.rounds else ""
    tally = f", {council.tally}" if council.tally != DEFAULT_TALLY else ""
    return f"{council.strategy}{rounds}{tally}"


class Plain:
    """Something shown, without what a terminal would act on but for the colours and places that are ours."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What is shown, piece by piece."""
        for segment in console.render(self._shown, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as what is shown."""
        return Measurement.get(console, options, self._shown)


class _Plainly(RenderHook):
    """Lets a console show nothing else."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Whatever is printed, made plain."""
        return list(map(_made_plain, renderables))


def _made_plain(shown: ConsoleRenderable) -> ConsoleRenderable:
    return shown if isinstance(shown, Control | Plain) else Plain(shown)


def stdout() -> Console:
    """A console on standard output."""
    return _plainly(Console(file=sys.stdout, highlight=False))


def stderr() -> Console:
    """A console on standard error."""
    return _plainly(Console(stderr=True, highlight=False))


def _plainly(console: Console) -> Console:
    console.push_render_hook(_Plainly())
    return console


def _verdict(status: str) -> Text:
    if not Status(status).final:
        return Text(f"Not decided yet: {status.lower().replace('_', ' ')}", style="bold yellow")
    return Text(VERDICTS.get(status, f"No decision: {status.lower()}"), style="bold red")


def _members(result: ItemResult, console: Console) -> Table:
    """Members by rank, with what became of their later stages, and the figures, where the width allows it."""
    votes = ["votes"] if any(entry.votes is not None for entry in result.results) else []
    kinds = [kind for kind in later_kinds(result) if kind != SYNTHESIZE]
    first = ["rank", "member", "status", "score", *votes]
    unbounded = console.options.update(max_width=1000)
    costs = ["seconds", "tokens"]
    for columns in ([*first, *kinds, *costs], [*first, *costs], first, ["member", "status"]):
        table = _member_table(result, columns, [kind for kind in kinds if kind in columns])
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table


def _member_table(result: ItemResult, columns: Sequence[str], kinds: Sequence[str]) -> Table:
    """These columns, `kinds` of stages among them; members without a proposal come last."""
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in NUMBERS else "left"
        table.add_column(column, justify=justify, no_wrap=column != "member", overflow="fold")
    ranked = {entry.proposal.author_id: entry for entry in result.results}
    ranks = {author: entry.rank for author, entry in ranked.items()}
    for member in sorted(result.members, key=lambda member: ranks.get(member.agent_id, UNRANKED)):
        cells = _cells(member, ranked.get(member.agent_id))
        cells |= {kind: statuses(member, kind, result.stages) for kind in kinds}
        table.add_row(*(cells[column] for column in columns))
    return table


def _cells(member: MemberOutcome, entry: RankedProposal | None) -> dict[str, str]:
    """One member's row, by column."""
    return {
        "rank": str(entry.rank) if entry else "-",
        "member": member.agent_id,
        "status": member.status.value,
        "score": f"{entry.score:.3f}" if entry else "-",
        "votes": "-" if entry is None or entry.votes is None else f"{entry.votes:.3f}",
        "seconds": f"{member.duration_ms / 1000:.2f}",
        "tokens": str(member.usage.completion_tokens),
    }


def show_tally(item: str, outcome: Tally, console: Console) -> None:
    """One line for each proposal, best first, and what the tally says in words."""
    table = Table(title=item, title_justify="left", box=None, padding=(0, 1))
    for column in ("rank", "proposal", "votes"):
        table.add_column(column, justify="left" if column == "proposal" else "right")
    for rank, author in enumerate(outcome.order, 1):
        table.add_row(str(rank), author, f"{outcome.scores[author]:.3f}")
    console.print(table)
    console.print(Text(plain(tally_in_words(outcome))))


def _items(result: Body) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("item", "status", "degraded", "winner"):
        table.add_column(column)
    for line in result["items"][:100]:
        table.add_row(line["item"], line["status"], "yes" if line["degraded"] else "", line["winner_id"] or "")
    return table


def _answer_line(answer: Answer) -> Text:
    mark, style = MARKS.get(answer.status, (answer.status.value, "red"))
    what = "" if answer.stage == PROPOSE else f"{answer.stage} "
    text = Text(f"{answer.agent_id}  {answer.role}  {what}").append(mark, style=style)
    text.append(f"  {answer.duration_ms / 1000:.2f} s", style="default")
    if answer.usage.completion_tokens:
        text.append(f"  {answer.usage.completion_tokens} tokens", style="default")
    if answer.error:
        text.append(f"  {plain(answer.error)[:160]}", style="default")
    return text
