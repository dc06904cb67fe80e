"""What a comparison says: each figure's ratio, all of them together, and whether that is a loss. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.bench.against.pairs import CONFIDENCE, Estimate, difference, ratio
from deployments.bench.targets import MISSED, NOT_JUDGED, REACHED

TOLERATED = 1.05
"""Where the interval of all figures together ends below, no loss is shown; where it goes on, that cannot be told."""
CONTROL = "floor"
"""The plain client: none of what is compared but the simulator, so that its ratio should be 1. Shown, not judged."""

Verdict = Literal["loss", "no loss", "cannot tell"]


@dataclass(frozen=True)
class Key:
    """One figure: a peer, or a door to the worker, with so many members."""

    peer: str
    size: int

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.peer}, {self.size} member{'s' if self.size > 1 else ''}"


@dataclass(frozen=True)
class Walls:
    """Wall times of one figure in seconds, one of each round."""

    old: Sequence[float]
    new: Sequence[float]


@dataclass(frozen=True)
class Figure:
    """One figure compared: medians in seconds; `loss` where its ratio is above 1 beyond what so many show by chance."""

    key: Key
    old_s: float
    new_s: float
    ratio: Estimate
    difference_s: Estimate
    judged: bool
    loss: bool


@dataclass(frozen=True)
class Comparison:
    """The figures, and the geometric mean of those that are judged, over the rounds."""

    figures: Sequence[Figure]
    together: Estimate

    @property
    def verdict(self) -> Verdict:
        """A loss of any figure is one; else what all together say."""
        return "loss" if any(figure.loss for figure in self.figures) else self.of_all

    @property
    def of_all(self) -> Verdict:
        """Of all figures together: no loss where more than TOLERATED is excluded."""
        if self.together.low > 1:
            return "loss"
        return "no loss" if self.together.high <= TOLERATED else "cannot tell"

    @property
    def exit_code(self) -> int:
        """As in `conclave bench`: 0, 1 or 3."""
        return {"no loss": REACHED, "loss": MISSED, "cannot tell": NOT_JUDGED}[self.verdict]

    def sentences(self) -> list[str]:
        """What it comes to, in words."""
        told = spelled(self.together)
        lines = [
            f"LOSS SHOWN at {figure.key.title}: {spelled(figure.ratio)}, {_milliseconds(figure.difference_s)}"
            for figure in self.figures
            if figure.loss
        ]
        words = {
            "loss": f"LOSS SHOWN, all figures together: {told}",
            "no loss": f"no loss shown{', all figures together' if lines else ''}: {told}",
            "cannot tell": f"cannot tell, all figures together: {told}. To exclude a loss of {TOLERATED - 1:.0%}"
            " it takes more --samples, or a quieter machine",
        }
        return [*lines, words[self.of_all]]


def compare(measured: Mapping[Key, Walls]) -> Comparison:
    """Every figure, in the order given. At least one is no control."""
    judged = [key for key in measured if key.peer != CONTROL]
    alone = 1 - (1 - CONFIDENCE) / len(judged)  # Bonferroni: so many figures are wrong together once in twenty runs
    figures = []
    for key, walls in measured.items():
        figures.append(
            Figure(
                key,
                round(statistics.median(walls.old), 4),
                round(statistics.median(walls.new), 4),
                ratio(walls.old, walls.new),
                difference(walls.old, walls.new),
                judged=key in judged,
                loss=key in judged and ratio(walls.old, walls.new, alone).low > 1,
            )
        )
    old = _means([measured[key].old for key in judged])
    new = _means([measured[key].new for key in judged])
    return Comparison(figures, ratio(old, new))


def spelled(found: Estimate) -> str:
    """A ratio in words."""
    return f"ratio {found.value:.3f}, {interval(found)}"


def interval(found: Estimate) -> str:
    """Its interval in words."""
    return "too few rounds for an interval" if math.isinf(found.high) else f"{found.low:.3f} to {found.high:.3f}"


def _milliseconds(found: Estimate) -> str:
    return f"{found.value * 1000:+.0f} ms"


def _means(figures: Sequence[Sequence[float]]) -> list[float]:
    """The geometric mean of the figures, round by round."""
    return [statistics.geometric_mean(each) for each in zip(*figures, strict=True)]
