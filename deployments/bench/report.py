"""What a run found: as one document for the JSON file, and as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.bench.figures import FLOOR_SHARE, FloorCheck, Measured, Row
from deployments.bench.targets import Judged

SCHEMA = "conclave-bench/1"


@dataclass(frozen=True)
class Report:
    """A whole run. Times are seconds; `others_cores` is how many cores other processes kept busy (median)."""

    taken_at: str
    latency_s: float
    machine: Mapping[str, Any]
    git: Mapping[str, Any] | None
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    peers: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]
    others_cores: float
    floors: Mapping[int, FloorCheck]
    rows: Sequence[Row]
    targets: Sequence[Judged]
    samples: Sequence[Measured]
    warnings: Sequence[str] = field(default=())

    def document(self) -> dict[str, Any]:
        """For the JSON file."""
        found = asdict(self)
        return {
            "schema": SCHEMA,
            **found,
            "floors": list(found["floors"].values()),
            "samples": [_flat(sample) for sample in found["samples"]],
        }

    def title(self, peer: str) -> str:
        """What a peer is called."""
        return str(self.peers[peer]["title"])


def show(report: Report, console: Console) -> None:
    """The tables, then everything that a reader has to know beside them."""
    table = Table(title="Seconds; medians", title_justify="left", box=SIMPLE, padding=0)
    table.add_column("size", justify="right")
    table.add_column("")
    for column in ("wall", "least, most", "over", "95 % interval", "spread", "tail"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("floor")
    for row in report.rows:
        wall, over = row.figures["wall_s"], row.over_floor
        gap = ("", "") if row.peer == "floor" else (f"{over.median:.3f}", f"[{over.low:.3f}, {over.high:.3f}]")
        seen = (f"{row.figures[figure].median:.3f}" for figure in ("spread_s", "tail_s"))
        walls = (f"{wall.median:.3f}", f"[{wall.min:.3f}, {wall.max:.3f}]")
        weak = "weak" if row.weak_floor else ""
        table.add_row(str(row.size), report.title(row.peer), *(escape(cell) for cell in (*walls, *gap, *seen)), weak)
    console.print(table)
    console.print(
        "wall: start to decision; over: more than the floor; spread: of the server's first requests; "
        "tail: last answer sent to decision"
    )
    console.print(targets_table(report.targets))
    for line in [*remarks(report), verdict(report.targets)]:
        console.print(line, highlight=False)


def remarks(report: Report) -> list[str]:
    """Weak floors, peers that were left out, and a disturbed machine, in words."""
    lines = [
        f"WEAK FLOOR at {floor.size} members: the plain client reached {floor.share:.3f} of latency / wall, "
        f"{FLOOR_SHARE} is needed (the server itself left at most {floor.server_share:.3f}). Figures of this size "
        f"are not judged; --latency {floor.latency_needed_s:g} would do."
        for floor in report.floors.values()
        if not floor.counts
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in report.left_out.items()]
    return [*lines, *report.warnings]


def verdict(judged: Sequence[Judged]) -> str:
    """How many of the targets were reached, missed and not judged, in one line."""
    bounded = [each.verdict for each in judged if each.bound is not None and each.verdict != "not asked for"]
    reached, missed = bounded.count("reached"), bounded.count("missed")
    return f"targets: {reached} reached, {missed} missed, {len(bounded) - reached - missed} not judged"


def targets_table(judged: Sequence[Judged]) -> Table:
    """The targets with their verdicts."""
    table = Table(title="Targets", title_justify="left", box=SIMPLE)
    for column in ("target", "figure", "bound", ""):
        table.add_column(column)
    for each in judged:
        figure = "" if each.figure is None else f"{each.figure:.3f}"
        verdict = each.verdict.upper() if each.verdict in ("missed", "floor weak") else each.verdict
        table.add_row(each.target, figure, each.bound or "", verdict)
    return table


def _flat(measured: dict[str, Any]) -> dict[str, Any]:
    sample = {name: round(value, 5) for name, value in measured.pop("sample").items()}
    return {**measured, **sample}
