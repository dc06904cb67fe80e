"""Who is measured: each a `Peer` of one interface, opened around the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployments.bench.samples import Sample
from deployments.bench.workload import ModelServer
from tasks.council.council import CouncilSpec
from tasks.council.exceptions import ConclaveError


class PeerMissing(ConclaveError):
    """A peer that cannot be measured here; the text says why, and how to have it."""


@dataclass(frozen=True)
class Bench:
    """What peers work with: the model server, the council, and a folder for their files."""

    server: ModelServer
    council: CouncilSpec
    folder: Path


class Peer(Protocol):
    """One way to let a council answer."""

    @property
    def title(self) -> str:
        """What it is called in table and plot."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The Python packages whose versions matter."""

    @property
    def options(self) -> Mapping[str, str]:
        """How it is set up, for the reader of the figures."""

    async def sample(self, size: int) -> Sample:
        """Measure one council of `size` members. Raises RuntimeError where it did not decide."""


def opened(name: str, bench: Bench) -> AbstractAsyncContextManager[Peer]:
    """The peer of this name; entering it raises PeerMissing where its packages are not installed."""
    from deployments.bench.peers.flows import conclave, rank, stock, synthesize
    from deployments.bench.peers.langgraph import langgraph
    from deployments.bench.peers.plain import floor

    peers: dict[str, Callable[[Bench], AbstractAsyncContextManager[Peer]]] = {
        "floor": floor,
        "conclave": conclave,
        "rank": rank,
        "synthesize": synthesize,
        "stock": stock,
        "langgraph": langgraph,
    }
    return peers[name](bench)
