"""What every peer is: one interface to let a council answer, and what it works with."""

from __future__ import annotations

from collections.abc import Mapping
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
