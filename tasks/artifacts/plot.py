"""The picture of a tally: who ranked whom where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.artifacts.drawing import BAR, DIM, INK, as_address, svg_of
from tasks.council.voting.tally import Tally

MAX_PROPOSALS, MAX_VOTERS = 20, 24
"""What is drawn, the best proposals and the first voters; the picture says where there are more."""

_CELL_W, _CELL_H, _BARS, _MARGIN, _TITLE, _CUT = 0.62, 0.36, 0.9, 0.2, 0.3, 3.2
_CHARACTER, _SLANTED = 0.085, 0.055
"""Inches, the last ones of a character's width, and of its height in a slanted word."""
_LONGEST = 24
_LIGHT, _DARK, _EMPTY = (0.90, 0.95, 1.0), (0.10, 0.33, 0.60), (0.94, 0.94, 0.94)
_DARKISH = 1.8
"""Sum of red, green and blue below which white is read better."""


def tally_picture(tally: Tally) -> str:
    """The tally as an address that begins with `data:`; the same tally gives the same. Raises ImportError."""
    return as_address(tally_svg(tally))


def cells(tally: Tally) -> int:
    """How many ranks the picture shows."""
    return min(len(tally.order), MAX_PROPOSALS) * min(len(tally.ranks), MAX_VOTERS)


def tally_svg(tally: Tally) -> str:
    """A row for each voter, a column for each proposal, best first, and above it the proposal's votes."""
    authors, voters = tally.order[:MAX_PROPOSALS], _voters(tally)[:MAX_VOTERS]
    below = _MARGIN + _SLANTED * max(len(_short(author)) for author in authors)
    left = max(below, _MARGIN + _CHARACTER * max(len(_short(voter)) for voter in voters))
    wide, high = _CELL_W * len(authors), _CELL_H * len(voters)
    cut = _cut(tally, authors, voters)
    size = (left + max(wide, _CUT if cut else 0) + _MARGIN, below + high + _BARS + (_TITLE if cut else 0))

    def box(bottom: float, height: float) -> tuple[float, float, float, float]:
        return left / size[0], bottom / size[1], wide / size[0], height / size[1]

    def draw(figure: Any) -> None:
        _matrix(figure.add_axes(box(below, high)), tally, authors, voters)
        _bars(figure.add_axes(box(below + high + 0.1, _BARS - 0.35)), tally, authors)
        if cut:
            figure.text(_MARGIN / size[0], 1 - 0.2 / size[1], cut, color=DIM)

    return svg_of(size, draw)


def _voters(tally: Tally) -> list[str]:
    """Who voted, in the order of their own proposals."""
    return [*(one for one in tally.order if one in tally.ranks), *sorted(set(tally.ranks) - set(tally.order))]


def _matrix(axes: Any, tally: Tally, authors: Sequence[str], voters: Sequence[str]) -> None:
    last = max(len(tally.order) - 1, 2)
    rows = []
    for row, voter in enumerate(voters):
        ranks = [tally.ranks[voter].get(author) for author in authors]
        rows.append([_colour(rank, last) for rank in ranks])
        for column, (author, rank) in enumerate(zip(authors, ranks, strict=True)):
            said = "own" if author == voter else str(rank or "-")
            ink = _ink(rank, rows[row][column])
            axes.text(column + 0.5, row + 0.5, said, ha="center", va="center", color=ink, gid=f"rank {voter} {author}")
    axes.pcolormesh(rows, edgecolors="white", linewidth=1)
    axes.set(xlim=(0, len(authors)), ylim=(len(voters), 0))
    axes.set_xticks(_middles(authors), list(map(_short, authors)), rotation=45)
    axes.set_yticks(_middles(voters), list(map(_short, voters)))
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    _bare(axes)


def _middles(names: Sequence[str]) -> list[float]:
    """Where the names of rows or columns stand."""
    return [place + 0.5 for place in range(len(names))]


def _bars(axes: Any, tally: Tally, authors: Sequence[str]) -> None:
    for column, author in enumerate(authors):
        votes = tally.scores[author]
        axes.bar(column + 0.5, votes, width=0.7, color=BAR if column == 0 else DIM)
        axes.text(column + 0.5, votes + 0.06, f"{votes:.2f}", ha="center", color=INK, gid=f"votes {author}")
    axes.set(xlim=(0, len(authors)), ylim=(0, 1.0), xticks=[])
    axes.set_yticks([0.5], ["votes"])
    _bare(axes)


def _bare(axes: Any) -> None:
    """No frame and no tick marks."""
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour(rank: int | None, last: int) -> tuple[float, ...]:
    """From dark for the first to light for the last; grey where there is no rank."""
    if rank is None:
        return _EMPTY
    place = (rank - 1) / (last - 1)
    return tuple(dark + (light - dark) * place for light, dark in zip(_LIGHT, _DARK, strict=True))


def _ink(rank: int | None, ground: Sequence[float]) -> str:
    """What a rank is written in, so that it can be read on its ground."""
    if rank is None:
        return DIM
    return "white" if sum(ground) < _DARKISH else INK


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def _cut(tally: Tally, authors: Sequence[str], voters: Sequence[str]) -> str:
    """What is left out, in words."""
    told = []
    if len(authors) < len(tally.order):
        told.append(f"the best {len(authors)} of {len(tally.order)} proposals")
    if len(voters) < len(tally.ranks):
        told.append(f"the first {len(voters)} of {len(tally.ranks)} ballots")
    return " and ".join(told)
