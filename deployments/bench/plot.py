"""The one plot: wall time over the number of members, every peer with its range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.bench.figures import Row
from deployments.bench.report import Report

_LOOKS = {
    "floor": ("#6e7781", "o", 1.0),
    "langgraph": ("#bf8700", "s", 1.02),
    "conclave": ("#0969da", "D", 0.98),
    "rank": ("#8250df", "P", 1.04),
    "synthesize": ("#bf3989", "X", 1.06),
    "stock": ("#cf222e", "^", 1.0),
}
"""Colour, marker, and how far aside it stands, so that bars do not cover one another."""


_MARKS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 4, 6, 10, 20, 50)


def draw(report: Report, path: Path) -> list[Path]:
    """Write the plot as SVG and as PNG, whatever suffix `path` has."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "conclave", "font.size": 11})
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes: Any = figure.subplots()
    for peer in report.peers:
        rows = [row for row in report.rows if row.peer == peer]
        if rows:
            _series(axes, rows, report.title(peer), *_LOOKS[peer])
    _frame(axes, report)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=150)
    return files


def _series(axes: Any, rows: Sequence[Row], title: str, colour: str, marker: str, aside: float) -> None:
    sizes, walls = [row.size * aside for row in rows], [row.figures["wall_s"] for row in rows]
    medians = [wall.median for wall in walls]
    ranges = [[wall.median - wall.min for wall in walls], [wall.max - wall.median for wall in walls]]
    axes.errorbar(sizes, medians, yerr=ranges, color=colour, capsize=3, linewidth=1.6)
    for row, size, median in zip(rows, sizes, medians, strict=True):
        inside = "white" if row.weak_floor else colour
        axes.plot(size, median, marker=marker, color=colour, markerfacecolor=inside, markersize=7, zorder=3)
    axes.plot([], [], marker=marker, color=colour, linewidth=1.6, label=title)


def _frame(axes: Any, report: Report) -> None:
    sizes = sorted(report.floors)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    marks = [each for each in _MARKS if low <= each <= high]
    axes.set_yticks(marks, [f"{each:g}" for each in marks])
    axes.grid(alpha=0.25)
    axes.set_xlabel("members of the council")
    axes.set_ylabel("seconds from start to decision")
    rounds = max(row.samples for row in report.rows)
    setting = f"{report.latency_s:g} s for a model's answer, {report.machine['cores']} cores"
    bars = f"medians of {rounds} rounds, bars from least to most"
    axes.set_title(f"One council on a warm stack: {setting}\n{bars}", loc="left", fontsize=11)
    if any(not floor.counts for floor in report.floors.values()):
        axes.plot([], [], "o", color="#6e7781", markerfacecolor="white", label="hollow: the floor is weak there")
    axes.legend(frameon=False, loc="best")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
