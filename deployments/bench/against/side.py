"""One side of a comparison: a stack of one checkout, measured by that checkout's own code, one order at a time.

A script that runs in a process of its own, with the checkout first on the import path. It uses nothing but what a
checkout has had since `conclave bench worker` came, so that it serves older ones too; one that has this file runs its
own. Orders come as JSON lines on standard input and each is answered with one on standard output; what else would be
printed there goes to standard error. The stack goes down when the orders end, or when one fails.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from deployments.bench.peers.peer import Peer
    from deployments.bench.worker.scene import Scene
    from deployments.stack import StackStatus

DOORS = ("ui", "schedule", "cli")
ORDER_TIMEOUT_S = 600.0


def main(latency_s: float) -> None:
    """Bring the stack up, serve until the orders end, take it down."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    from deployments.bench.worker.stack import bench_stack

    with bench_stack(latency_s, _say) as found:
        asyncio.run(_serve(found, answers))


async def _serve(found: StackStatus, answers: TextIO) -> None:
    import deployments
    from deployments.bench.machine import commit, versions

    async with _Stack.of(found) as stack:
        ready = {
            "root": str(Path(deployments.__file__).resolve().parents[1]),
            "git": commit(),
            "python": sys.executable,
            "versions": versions(("prefect", "ray", "nats-py", "aiohttp", "pydantic")),
            "home": found.home,
            "prefect_pid": found.parts["prefect"].pid,
        }
        _tell(answers, ready)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            async with asyncio.timeout(ORDER_TIMEOUT_S):
                _tell(answers, await stack.sample(order["peer"], order["size"]))


class _Stack:
    """What is measured on one stack: peers of the benchmark, and the doors to its worker."""

    def __init__(self, scope: AsyncExitStack, scene: Scene, bench: Any, decided: Any) -> None:
        self._scope, self._scene, self._bench, self._decided = scope, scene, bench, decided
        self._peers: dict[str, Peer] = {}

    @staticmethod
    @asynccontextmanager
    async def of(found: StackStatus) -> AsyncGenerator[_Stack, None]:
        """With its connections."""
        from blocks.connections import connections
        from blocks.prefect_api import prefect_clients
        from deployments.bench.peers.peer import Bench
        from deployments.bench.worker.scene import scene

        async with AsyncExitStack() as scope:
            await scope.enter_async_context(prefect_clients())
            await scope.enter_async_context(connections())
            there = await scope.enter_async_context(scene(found))
            decided = await scope.enter_async_context(there.decisions())
            bench = Bench(there.server, await _council_spec()("dev"), Path(found.home))
            yield _Stack(scope, there, bench, decided)

    async def sample(self, peer: str, size: int) -> dict[str, float]:
        """Seconds of one council: `wall_s` to the decision."""
        if peer in DOORS:
            await self._scene.server.forget()
            run = await getattr(self._scene, peer)()
            return {"wall_s": await self._decided(run.id) - run.asked_at}
        if peer not in self._peers:
            from deployments.bench.peers import opened

            self._peers[peer] = await self._scope.enter_async_context(opened(peer, self._bench))
        return {"wall_s": (await self._peers[peer].sample(size)).wall_s}


def _council_spec() -> Any:
    try:
        from tasks.deliberations.plan import council_spec
    except ImportError:  # a checkout of before `tasks` had rooms
        council_spec = importlib.import_module("tasks.plans").council_spec
    return council_spec


def _tell(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]))
