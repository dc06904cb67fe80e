"""What `conclave bench` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from tasks.council.exceptions import WrongUse

T = TypeVar("T")

PEERS = ("floor", "conclave", "rank", "synthesize", "stock", "langgraph")
WORKER_DOORS = ("api", "command", "ui", "schedule", "cli")
DOORS = ("ui", "schedule", "cli")
"""Of a comparison; commits of before had no API."""
AGAINST_DOORS = ("ui",)
SIZES = (1, 3, 5, 15)
"""Not 64: on two cores the floor would be weak there at half a second an answer, and nothing could be judged."""
STOCK_SIZES = (3,)
STAGED = ("rank", "synthesize")
"""Peers that ask their members more than once, one answer after the other."""
STAGED_SIZES = (3,)


@dataclass(frozen=True)
class Options:
    """One run: times in seconds, sizes in members."""

    samples: int = 7
    warmup: int = 1
    latency_s: float = 0.5
    settle_s: float = 15.0
    sizes: tuple[int, ...] = SIZES
    stock_sizes: tuple[int, ...] = STOCK_SIZES
    peers: tuple[str, ...] = PEERS
    json: Path | None = None
    plot: Path | None = None


def read_sizes(text: str) -> tuple[int, ...]:
    """Sizes such as `1,3,64`, in order and each once. Raises ValueError."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise WrongUse(f"{text!r} should be numbers of members, such as 1,3,64") from None
    if sizes[0] < 1 or sizes[-1] > 1000:
        raise WrongUse("councils have 1 to 1000 members")
    return tuple(sizes)


def read_peers(text: str) -> tuple[str, ...]:
    """Peers such as `conclave,langgraph`; the floor always belongs to them. Raises ValueError."""
    named = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(named - set(PEERS)):
        raise WrongUse(f"there is no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return tuple(peer for peer in PEERS if peer in named | {"floor"})


def read_doors(text: str) -> tuple[str, ...]:
    """Doors such as `ui,cli`; none where the text is empty. Raises ValueError."""
    named = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(named - set(DOORS)):
        raise WrongUse(f"there is no door {', '.join(unknown)}; there are {', '.join(DOORS)}")
    return tuple(door for door in DOORS if door in named)


def turns(options: Options, number: int) -> list[tuple[str, int]]:
    """Who is measured when in a round: every peer at every size of its own, in an order that rotates by round."""
    order = product(rotated(options.sizes, number), rotated(options.peers, number))
    return [(peer, size) for size, peer in order if size in _sizes_of(peer, options)]


def _sizes_of(peer: str, options: Options) -> tuple[int, ...]:
    if peer == "stock":
        return options.stock_sizes
    return STAGED_SIZES if peer in STAGED else options.sizes


def rotated(each: Sequence[T], number: int) -> list[T]:
    """The same in an order that begins one later in each round."""
    at = number % len(each)
    return [*each[at:], *each[:at]]
