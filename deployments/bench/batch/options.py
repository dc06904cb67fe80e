"""What `conclave bench batch` was asked for, and the cases that come of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from deployments.bench.batch.bounds import Narrow
from tasks.council.exceptions import WrongUse

Kind = Literal["batch", "changing", "rank", "short", "agenda", "live"]

KINDS = ("batch", "changing", "rank", "short", "agenda")
PEERS = ("floor", "conclave", "langgraph", "prefect", "raydata", "curator")
ROWS = (100, 1000)
SLOTS = (256, 64, 700)
"""The first is that of every case but those that are about slots."""
STOCK_ROWS = 100
"""Rows up to which stock Prefect is measured: it is slow."""
MAX_ROWS = 100_000
SHORT_ROWS = (1000, 5000)
"""Rows between which the slope of the processor time is taken."""
AGENDA_ROWS = 100
MEMBERS = 3
REVIEWS = 2
"""Calls a member makes where it ranks, too: a proposal and a ballot."""
NARROW_SHARE, NARROW_FROM, NARROW_FOR = 8, 0.25, 0.75
"""Slots fall to an eighth, after a quarter of the shortest time that all calls can take, for three quarters of it."""


@dataclass(frozen=True)
class Options:
    """One run: times in seconds. `url` is a model server of one's own; without it a simulator is started."""

    rows: tuple[int, ...] = ROWS
    slots: tuple[int, ...] = SLOTS
    peers: tuple[str, ...] = PEERS
    latency_s: float = 2.0
    short_s: float = 0.05
    agenda_s: float = 0.5
    short_rows: tuple[int, ...] = SHORT_ROWS
    slots_rows: int = 1000
    samples: int = 1
    only: tuple[str, ...] = KINDS
    council: str = "dev"
    url: str | None = None
    model: str | None = None
    json: Path | None = None
    plot: Path | None = None


QUICK = Options(
    rows=(30,), slots=(16,), latency_s=0.3, short_rows=(20, 60), slots_rows=30, peers=("floor", "conclave", "langgraph")
)


class Case(NamedTuple):
    """What every peer of it does: so many rows, asked of a server with this pace."""

    kind: Kind
    rows: int
    slots: int
    latency_s: float | None
    """Seconds of every answer; None where the server is not ours to set."""
    peers: tuple[str, ...]
    narrow: Narrow | None = None
    members: int = MEMBERS

    @property
    def strategy(self) -> str:
        """How councils decide."""
        return "rank" if self.kind == "rank" else "propose"

    @property
    def calls(self) -> int:
        """Calls that it takes."""
        return self.rows * self.members * (REVIEWS if self.kind == "rank" else 1)

    @property
    def name(self) -> str:
        """How it is called in tables."""
        pace = "" if self.latency_s is None else f", {self.latency_s:g} s"
        slots = f"{self.slots}" if self.narrow is None else f"{self.slots}, {self.narrow.slots}, {self.slots}"
        return f"{self.kind} {self.rows} x {self.members}, {slots} slots{pace}"


def cases(options: Options, members: int = MEMBERS) -> list[Case]:
    """All cases of a run with a council of so many members, in its order."""
    made = _live(options)
    if options.url is None:
        made = [case for case in _simulated(options, members) if case.kind in options.only]
    return [case._replace(members=members) for case in made if case.peers]


def _live(options: Options) -> list[Case]:
    """On a server of one's own, of unknown pace."""
    return [Case("live", rows, options.slots[0], None, _peers_at(rows, options)) for rows in options.rows]


def _simulated(options: Options, members: int) -> list[Case]:
    main, rows, latency_s = options.slots[0], options.slots_rows, options.latency_s
    pair = tuple(peer for peer in ("floor", "conclave") if peer in options.peers)
    light = tuple(peer for peer in ("floor", "conclave", "langgraph") if peer in options.peers)
    found = [Case("batch", each, main, latency_s, _peers_at(each, options)) for each in options.rows]
    if rows not in options.rows:
        found.append(Case("batch", rows, main, latency_s, pair))
    found += [Case("batch", rows, slots, latency_s, pair) for slots in options.slots[1:]]
    found.append(Case("changing", rows, main, latency_s, pair, narrowed(rows * members, main, latency_s)))
    found.append(Case("rank", rows, main, latency_s, pair))
    found += [Case("short", each, main, options.short_s, light) for each in options.short_rows]
    found.append(Case("agenda", AGENDA_ROWS, AGENDA_ROWS * members, options.agenda_s, light))
    return found


def narrowed(calls: int, slots: int, latency_s: float) -> Narrow:
    """When a server of so many slots has an eighth of them, and for how long."""
    whole_s = math.ceil(calls / slots) * latency_s
    return Narrow(max(1, slots // NARROW_SHARE), NARROW_FROM * whole_s, NARROW_FOR * whole_s)


def _peers_at(rows: int, options: Options) -> tuple[str, ...]:
    return tuple(peer for peer in options.peers if peer != "prefect" or rows <= STOCK_ROWS)


def with_floor(options: Options) -> Options:
    """The same with the floor, beside which all else is judged."""
    return replace(options, peers=tuple(peer for peer in PEERS if peer in {*options.peers, "floor"}))


def read_rows(text: str) -> tuple[int, ...]:
    """Numbers of rows such as `100,1000`, in order and each once. Raises WrongUse."""
    rows = tuple(sorted(set(_numbers(text, "rows, such as 100,1000"))))
    if rows[-1] > MAX_ROWS:
        raise WrongUse(f"{rows[-1]} rows are too many; up to {MAX_ROWS} are measured")
    return rows


def read_slots(text: str) -> tuple[int, ...]:
    """Numbers of slots such as `256,64,700`, the first for all cases but those about slots. Raises WrongUse."""
    return tuple(dict.fromkeys(_numbers(text, "slots, such as 256,64,700")))


def read_peers(text: str) -> tuple[str, ...]:
    """Peers such as `conclave,langgraph`; the floor always belongs to them. Raises WrongUse."""
    named = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(named - set(PEERS)):
        raise WrongUse(f"there is no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return tuple(peer for peer in PEERS if peer in named | {"floor"})


def read_kinds(text: str) -> tuple[str, ...]:
    """Kinds of cases such as `batch,rank`. Raises WrongUse."""
    named = {part.strip() for part in text.split(",") if part.strip()}
    if not named or (unknown := sorted(named - set(KINDS))):
        raise WrongUse(f"{', '.join(unknown) if named else 'nothing'} is no kind of case; they are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def _numbers(text: str, wanted: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise WrongUse(f"{text!r} should be numbers of {wanted}") from None
    if min(numbers) < 1:
        raise WrongUse(f"{text!r} should be numbers of {wanted}, from 1 on")
    return numbers
