"""What a deliberation looks like in a terminal: members as they answer, then the decision.

Text of models and users goes to the terminal as plain text: no markup of ours, no control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from blocks.record import Body
from tasks.council.decisions import Ballots
from tasks.council.models import CouncilSpec, Deliberation, MemberStatus
from tasks.council.proposals import Answer
from tasks.council.stages import PROPOSE
from tasks.council.tally import Tally
from tasks.council.wording import in_words, tally_in_words

MARKS = {MemberStatus.OK: ("ok", "green"), MemberStatus.CANCELLED: ("cancelled", "yellow")}
VERDICTS = {"COMPLETED": "Decision", "TIMEOUT": "No decision: out of time", "CANCELLED": "No decision: cancelled"}


class Watcher(Protocol):
    """Who is told while a deliberation runs."""

    def began(self, plan: Deliberation) -> None: ...  # noqa: D102
    def answered(self, answer: Answer) -> None: ...  # noqa: D102
    def ended(self) -> None: ...  # noqa: D102
    def say(self, text: str) -> None: ...  # noqa: D102


class TerminalWatcher:
    """Shows members while they answer: as a live table on a terminal, as lines elsewhere; on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._plan: Deliberation | None = None
        self._answers: dict[str, list[Answer]] = {}
        self._spinner = Spinner("dots")

    def began(self, plan: Deliberation) -> None:
        """Show who is asked."""
        self._plan = plan
        what = plan.agenda[0].task if len(plan.agenda) == 1 else f"{len(plan.agenda)} items"
        title = Text(f"council {plan.council.name}, {len(plan.council.members)} members, quorum {plan.quorum}: ")
        self._console.print(title.append(plain(what[:200]), style="bold"))
        self._console.print(Text(f"deliberation {plan.id}", style="dim"))
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()

    def answered(self, answer: Answer) -> None:
        """Show an answer."""
        self._answers.setdefault(answer.agent_id, []).append(answer)
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
        if self._plan is None:
            return Text()
        table = Table.grid(padding=(0, 2))
        for member in self._plan.council.members[:20]:
            answers = self._answers.get(member.agent_id, [])
            table.add_row(member.agent_id, member.role, self._state(answers))
        if (more := len(self._plan.council.members) - 20) > 0:
            table.add_row(f"and {more} more", "", "")
        return table

    def _state(self, answers: list[Answer]) -> RenderableType:
        items, stages = (len(self._plan.agenda), len(self._plan.stages)) if self._plan else (1, 1)
        if items > 1:
            return Text(f"{len(answers)} of {items * stages} answers")
        given = [_answer_text(answer) for answer in answers]
        if self._live is not None and len(given) < stages:
            return Columns([*given, self._spinner])
        return Text("   ").join(given) if given else Text("no answer")


def show_result(result: Body, console: Console, where: list[str]) -> None:
    """The decision, who took part, and where to look."""
    if result["engine"] == "simulator":
        console.print(Text("SIMULATED: these texts come from the simulator, not from a model.", style="bold yellow"))
    if "items" in result:
        console.print(_items(result))
    elif result.get("decision") is not None:
        title = Text(f"Decision of council {result['council']}: {result['winner_id']} ({_who(result)})")
        console.print(Panel(Text(plain(result["decision"])), title=title, border_style="green", padding=(1, 2)))
    else:
        console.print(
            Text(f"{VERDICTS.get(result['status'], 'No decision: ' + result['status'].lower())}", style="bold red")
        )
        if result.get("error_message"):
            console.print(Text(plain(result["error_message"])))
    if result.get("members"):
        console.print(Group(_ranking(result)))
    if result.get("ballots"):
        console.print(Text(plain(in_words(Ballots.model_validate(result["ballots"])))))
    for line in where:
        console.print(Text(line, style="dim"), soft_wrap=True)


def show_councils(councils: Mapping[str, CouncilSpec], console: Console) -> None:
    """One line for each council: its rules and who sits in it."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("council", "members", "quorum", "deadline", "roles", "servers"):
        table.add_column(column, justify="right" if column in ("members", "quorum", "deadline") else "left")
    for name, council in councils.items():
        roles = ", ".join(dict.fromkeys(member.role for member in council.members))
        servers = ", ".join(sorted({member.server for member in council.members}))
        numbers = (str(len(council.members)), str(council.decides_at), f"{council.deadline_s:g} s")
        row = (name, *numbers, plain(roles), plain(servers))
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def plain(text: str) -> str:
    """Text without what a terminal would act on."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def stdout() -> Console:
    """A console on standard output."""
    return Console(file=sys.stdout, highlight=False)


def _who(result: Body) -> str:
    count = f"{result['received_count']} of {result['total_agents']}"
    return f"{count}: degraded" if result["degraded"] else count


def _ranking(result: Body) -> Table:
    """Members by rank; with ballots their votes take the place of their role."""
    table = Table(box=None, padding=(0, 1))
    voted = result.get("ballots") is not None
    how = ("status", "score", "votes", "ballot") if voted else ("role", "status", "score")
    columns = ("rank", "member", *how, "seconds", "tokens", "reason")
    for column in columns:
        numeric = column in ("rank", "score", "votes", "seconds", "tokens")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=column != "reason")
    ranked = {entry["proposal"]["author_id"]: entry for entry in result["results"]}
    members = sorted(result["members"], key=lambda m: ranked.get(m["agent_id"], {"rank": 1000})["rank"])
    for member in members:
        cells = _cells(member, ranked.get(member["agent_id"]))
        table.add_row(*(cells[column] for column in columns))
    return table


def _cells(member: Body, entry: dict[str, Any] | None) -> dict[str, str | Text]:
    """One member's row, by column."""
    votes = entry.get("votes") if entry else None
    return {
        "rank": str(entry["rank"]) if entry else "-",
        "member": member["agent_id"],
        "role": member["role"],
        "status": member["status"],
        "score": f"{entry['score']:.3f}" if entry else "-",
        "votes": "-" if votes is None else f"{votes:.3f}",
        "ballot": ", ".join(one["status"] for one in member["stages"].values()) or "-",
        "seconds": f"{member['duration_ms'] / 1000:.2f}",
        "tokens": str(member["usage"]["completion_tokens"]),
        "reason": Text(plain(member["reason"] or "")),
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


def _answer_text(answer: Answer) -> Text:
    mark, style = MARKS.get(answer.status, (answer.status.value, "red"))
    what = "" if answer.stage == PROPOSE else f"{answer.stage.partition('-')[0]} "
    text = Text(what).append(mark, style=style).append(f"  {answer.duration_ms / 1000:.2f} s", style="default")
    if answer.usage.completion_tokens:
        text.append(f"  {answer.usage.completion_tokens} tokens", style="default")
    if answer.error:
        text.append(f"  {plain(answer.error)[:160]}", style="default")
    return text


def _answer_line(answer: Answer) -> Text:
    return Text(f"{answer.agent_id}  {answer.role}  ").append_text(_answer_text(answer))
