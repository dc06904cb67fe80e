"""The plot: throughput and processor time over the number of rows, every peer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deployments.bench.batch.figures import Row
from deployments.bench.batch.report import Report

_LOOKS = {
    "floor": ("#6e7781", "o"),
    "conclave": ("#0969da", "D"),
    "langgraph": ("#bf8700", "s"),
    "raydata": ("#8250df", "P"),
    "curator": ("#bf3989", "X"),
    "prefect": ("#cf222e", "^"),
}
_PANELS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("calls a second", lambda row: row.calls_a_second),
    ("ms of processor a call", lambda row: row.cpu_ms),
    ("MiB at the end", lambda row: row.memory_mib),
)


def draw(report: Report, path: Path) -> list[Path]:
    """Write the plot as SVG and as PNG, whatever suffix `path` has."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "conclave", "font.size": 10})
    rows = plotted(report)
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(_PANELS))
    for axes, (label, value) in zip(panels, _PANELS, strict=True):
        _panel(axes, rows, label, value)
    panels[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(f"Batches of questions x 3, {report.machine['cores']} cores", x=0.01, ha="left")
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=150)
    return files


def plotted(report: Report) -> list[Row]:
    """Rows of one setting of the server, which differ by size alone: that of the first case."""
    first = report.rows[0].case
    kind, behind = first.partition(" ")[0], first.partition(",")[2]
    return [row for row in report.rows if row.case.startswith(kind) and row.case.endswith(behind)]


def _panel(axes: Any, rows: Sequence[Row], label: str, value: Callable[[Row], float]) -> None:
    for peer in _LOOKS:
        _series(axes, sorted((row for row in rows if row.peer == peer), key=lambda row: row.rows), value)
    sizes = sorted({row.rows for row in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.set_xlabel("questions")
    axes.set_title(label, loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _series(axes: Any, rows: Sequence[Row], value: Callable[[Row], float]) -> None:
    if rows:
        colour, marker = _LOOKS[rows[0].peer]
        sizes, values = [row.rows for row in rows], [value(row) for row in rows]
        axes.plot(sizes, values, marker=marker, color=colour, linewidth=1.6, label=rows[0].peer)
