"""Pictures of a batch: how long rows took, what their winners scored, how far voters agreed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tasks.artifacts.drawing import BAR, DIM, INK, as_address, svg_of
from tasks.batch.output.summary import Spread, Summary

_SIZE = (6.4, 2.4)
_OTHER = "#c2571a"


class Picture(NamedTuple):
    """A picture: what it shows in words, and its address, which begins with `data:`."""

    title: str
    address: str


def pictures_of(found: Summary) -> Iterator[Picture]:
    """Up to three, of what there is. Raises ImportError."""
    if found.latency_s:
        title = "Rows by seconds until their end"
        yield Picture(title, as_address(histogram([("", found.latency_s)], title, "seconds", logarithmic=True)))
    if found.scores:
        title = "Rows by the score of the winner"
        yield Picture(title, as_address(histogram([("", found.scores)], title, "score, 0 to 1")))
    agreed = [("Kendall's W of ballots", found.agreement), ("share of the vote", found.vote_share)]
    there = [(name, spread) for name, spread in agreed if spread]
    if there:
        title = "Rows by how far members agreed"
        yield Picture(title, as_address(histogram(there, title, "agreement, 0 to 1")))


def histogram(series: list[tuple[str, Spread]], title: str, unit: str, logarithmic: bool = False) -> str:
    """Counts of each series between its edges, as SVG."""

    def draw(figure: Any) -> None:
        axes = figure.add_axes((0.12, 0.24, 0.84, 0.6))
        for number, (name, spread) in enumerate(series):
            axes.stairs(
                spread.counts, spread.edges, fill=not number, color=(BAR, _OTHER)[number], label=name, linewidth=1.5
            )
        if logarithmic:
            axes.set_xscale("log")
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel(unit, color=DIM)
        axes.set_ylabel("rows", color=DIM)
        axes.tick_params(colors=INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=INK)

    return svg_of(_SIZE, draw)
