"""The run of `conclave bench --against`: both stacks at once, every figure in turns, and what that came to."""

from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.bench.against.sides import OURS, Say, Side, side
from deployments.bench.against.verdict import Comparison, Figure, Key, Walls, compare, interval
from deployments.bench.machine import machine
from deployments.bench.options import Options, turns
from deployments.bench.quiet import Reading, Watch, busy, used_by
from deployments.stack.processes import family

SCHEMA = "conclave-bench-against/1"
DOOR_MEMBERS = 3


@dataclass(frozen=True)
class Found:
    """A whole comparison: both sides, what was measured on them, and what that comes to."""

    taken_at: str
    machine: dict[str, Any]
    options: dict[str, Any]
    old: dict[str, Any]
    new: dict[str, Any]
    others_cores: float
    unsettled: int
    walls: dict[Key, Walls]
    comparison: Comparison

    def document(self) -> dict[str, Any]:
        """For the JSON file: a bound that is not finite is null."""
        found = {name: value for name, value in vars(self).items() if name not in ("walls", "comparison")}
        told = {
            "schema": SCHEMA,
            **found,
            "figures": [self._figure(figure) for figure in self.comparison.figures],
            "together": asdict(self.comparison.together),
            "verdict": self.comparison.verdict,
            "sentences": self.comparison.sentences(),
        }
        finite: dict[str, Any] = _finite(told)
        return finite

    def _figure(self, figure: Figure) -> dict[str, Any]:
        told = asdict(figure)
        return {**told.pop("key"), **told, "walls": asdict(self.walls[figure.key])}


def run(options: Options, doors: Sequence[str], checkout: Path, say: Say) -> Found:
    """Bring both stacks up, measure in turns, take them down again. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="conclave-bench-against-") as folder:
        return asyncio.run(_run(options, doors, checkout, Path(folder), say))


async def _run(options: Options, doors: Sequence[str], checkout: Path, folder: Path, say: Say) -> Found:
    async with AsyncExitStack() as scope:
        sides = []
        for name, root in (("old", checkout), ("new", OURS)):
            say(f"{name}: bringing up the stack of {root}")
            sides.append(await scope.enter_async_context(side(name, root, options.latency_s, folder)))
        taken = await measure(options, doors, sides, say)
    old, new = sides
    return Found(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        options={**_shown(options), "doors": list(doors), "order": "sides A B B A; sizes and peers rotate by round"},
        old=old.told,
        new=new.told,
        others_cores=round(taken.others_cores, 2),
        unsettled=taken.unsettled,
        walls=taken.walls,
        comparison=compare(taken.walls),
    )


@dataclass(frozen=True)
class Taken:
    """What was measured, other processes' cores (median), and how many samples began before both were quiet."""

    walls: dict[Key, Walls]
    others_cores: float
    unsettled: int


async def measure(options: Options, doors: Sequence[str], sides: Sequence[Side], say: Say) -> Taken:
    """Each figure on both sides, one right after the other, in an order that changes by round: A B, then B A."""
    pairs = _Pairs(sides, options.settle_s)
    first = {key: at % 2 for at, key in enumerate(figures(options, doors, 0))}
    seen: dict[Key, list[tuple[float, float]]] = {key: [] for key in first}
    for number in range(-options.warmup, options.samples):
        if number == 0:
            await pairs.rest()
        say(f"round {number + 1} of {options.samples}" if number >= 0 else "warm-up")
        for key in figures(options, doors, number + options.warmup):
            old_s, new_s = await pairs.measure(key, new_first=(number + first[key]) % 2 == 1)
            say(f"  {key.title:22} old {old_s:.3f} s, new {new_s:.3f} s")
            if number >= 0:
                seen[key].append((old_s, new_s))
    walls = {key: Walls(*zip(*each, strict=True)) for key, each in seen.items()}
    return Taken(walls, statistics.median(pairs.others), pairs.unsettled)


def figures(options: Options, doors: Sequence[str], number: int) -> list[Key]:
    """What is measured in a round, and in which order."""
    at_doors = [Key(door, DOOR_MEMBERS) for door in doors]
    found = [*at_doors, *(Key(peer, size) for peer, size in turns(options, number))]
    return found if number % 2 == 0 else [*found[len(at_doors) :], *at_doors]


class _Pairs:
    """Measures a figure on both sides; `others` are the cores that other processes used during each sample."""

    def __init__(self, sides: Sequence[Side], settle_s: float) -> None:
        self._sides, self._settle_s = sides, settle_s
        self._quiet = _Quiet(sides)
        self.others: list[float] = []
        self.unsettled = 0

    async def rest(self) -> None:
        """Learn what both servers use at rest."""
        await self._quiet.rest(self._settle_s)

    async def measure(self, key: Key, new_first: bool) -> tuple[float, float]:
        """Seconds of the old side and of the new one. Raises BenchError."""
        old, new = self._sides
        if new_first:
            new_s = await self._sample(new, key)
            return await self._sample(old, key), new_s
        old_s = await self._sample(old, key)
        return old_s, await self._sample(new, key)

    async def _sample(self, measured: Side, key: Key) -> float:
        self.unsettled += not await self._quiet.settle(self._settle_s)
        before = self._quiet.reading()
        wall_s = await measured.wall_s(key.peer, key.size)
        self.others.append(self._quiet.reading().others(before))
        return wall_s


class _Quiet:
    """Waits until neither stack works on after a run; counts what other processes use."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._watches = [Watch(side.home, side.ready["prefect_pid"]) for side in sides]

    async def settle(self, most_s: float) -> bool:
        """Wait at most so long; whether both are quiet."""
        settled = await asyncio.gather(*(watch.settle(most_s) for watch in self._watches))
        return all(each.quiet for each in settled)

    async def rest(self, most_s: float) -> None:
        """Learn what both servers use at rest, with their workers; not where nothing is waited for."""
        if most_s > 0:
            await self.settle(most_s)
            await asyncio.gather(*(watch.rest() for watch in self._watches))

    def reading(self) -> Reading:
        """What the processes of both stacks have used, and those that measure them, each once."""
        ours: dict[int, psutil.Process] = {}
        for measured in self._sides:
            ours |= {process.pid: process for process in family(measured.home).everyone}
        measuring = [psutil.Process(side.pid) for side in self._sides]
        return used_by([*ours.values(), *(one for one in measuring if one.pid not in ours)])


def show(found: Found, console: Console) -> None:
    """The table, then what it comes to."""
    console.print(f"old: {_named(found.old)}\nnew: {_named(found.new)}", highlight=False)
    table = Table(title="Seconds to the decision; medians", title_justify="left", box=SIMPLE)
    for column in ("", "old", "new", "ratio", "95 % interval", "ms more", "95 % interval", ""):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for figure in found.comparison.figures:
        less = figure.difference_s
        bounds = "" if math.isinf(less.high) else f"{less.low * 1000:+.0f} to {less.high * 1000:+.0f}"
        cells = (f"{figure.old_s:.3f}", f"{figure.new_s:.3f}", f"{figure.ratio.value:.3f}", interval(figure.ratio))
        table.add_row(escape(figure.key.title), *cells, f"{less.value * 1000:+.0f}", bounds, _mark(figure))
    console.print(table)
    for line in [*found.comparison.sentences(), *_remarks(found)]:
        console.print(line, highlight=False)


def _mark(figure: Figure) -> str:
    if figure.loss:
        return "LOSS"
    return "" if figure.judged else "control"


def _remarks(found: Found) -> list[str]:
    lines = [f"BUSY MACHINE: {busy(found.others_cores)} (median); it widens the intervals."] * bool(
        found.others_cores > 0.1 * found.machine["cores"]
    )
    lines += [
        f"The control, {figure.key.title}, differs: {interval(figure.ratio)}. Something else is not the same."
        for figure in found.comparison.figures
        if not figure.judged and not figure.ratio.contains(1)
    ]
    if found.old["versions"] != found.new["versions"]:
        lines.append(f"The packages differ: old {found.old['versions']}, new {found.new['versions']}.")
    if found.unsettled:
        lines.append(f"{found.unsettled} samples began before Prefect's servers were quiet (--settle).")
    return lines


def _named(told: dict[str, Any]) -> str:
    return f"{_commit(told['git'])} in {told['root']}"


def _commit(git: dict[str, Any] | None) -> str:
    if not git:
        return "no commit"
    return f"{git['commit'][:12]}{', modified' if git['modified'] else ''}"


def _shown(options: Options) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in ("json", "plot", "stock_sizes")}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
