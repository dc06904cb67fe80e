"""Who is measured: each a `Peer` of one interface, opened around the whole run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from deployments.bench.peers.peer import Bench, Peer


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
