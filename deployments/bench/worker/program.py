"""The run of `conclave bench worker`: a stack for each measurement, the figures, and what they are judged by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from deployments.bench.machine import commit, machine, versions
from deployments.bench.worker.stack import MEMBERS, Say, bench_stack
from deployments.stack import StackStatus

if TYPE_CHECKING:
    from deployments.bench.worker.scene import Scene

DOOR_S = {"api": 0.2, "ui": 0.35, "schedule": 0.35, "cli": 0.35}
"""From a door to the decision, over the slowest member, at most."""
FIRST_CALL_S = {"command": 0.7}
"""From a door to the model server's first request, at most."""
GROWTH = 1.1
SOAK_LATENCY_S = 0.01


@dataclass(frozen=True)
class Asked:
    """What is to be measured; 0 leaves a measurement out. Times in seconds."""

    doors: int
    alive: int
    alive_latency_s: float
    ramp_s: float
    database: str | None
    soak: int
    latency_s: float


def run(asked: Asked, say: Say) -> dict[str, Any]:
    """Measure what was asked for, each on a stack of its own. Raises StackError, BenchError and TimeoutError."""
    found: dict[str, Any] = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "git": commit(),
        "versions": versions(("prefect", "ray", "nats-py", "aiohttp")),
        "members": MEMBERS,
    }
    if asked.doors:
        found["doors"] = _on_a_stack(asked.latency_s, say, lambda there: _doors(there, asked, say))
    if asked.alive:
        found["alive"] = _on_a_stack(
            asked.alive_latency_s, say, lambda there: _alive(there, asked, say), asked.database
        )
        found["alive"] |= {"latency_s": asked.alive_latency_s, "database": "postgresql" if asked.database else "sqlite"}
    if asked.soak:
        found["soak"] = _on_a_stack(SOAK_LATENCY_S, say, lambda there: _soak(there, asked, say))
    return found


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Every target with its figure, bound and verdict."""
    verdicts = []
    if "doors" in found:
        for name, door in found["doors"]["doors"].items():
            over, first = door["over_slowest_s"]["median"], door["first_call_s"]["median"]
            counts = found["doors"]["floor_counts"]
            verdicts.append(
                _at_most(f"{name} to decision, over the slowest member (s)", over, DOOR_S.get(name), counts)
            )
            verdicts.append(_at_most(f"{name} to the first call (s)", first, FIRST_CALL_S.get(name), counts))
    if "alive" in found:
        decided = found["alive"]["states"].get("COMPLETED", 0)
        asked = found["alive"]["asked"]
        verdicts.append(_target("alive at once: decided", decided, f"= {asked}", _verdict(decided == asked)))
        peak = found["alive"]["peak_deliberations"]
        verdicts.append(_target("alive at once: peak in flight", peak, None, "shown"))
    if "soak" in found:
        growth = found["soak"]["growth"]
        verdicts.append(
            _target(
                "worker's memory at the end over the first",
                growth["worker"],
                f"<= {GROWTH}",
                _verdict(growth["worker"] <= GROWTH),
            )
        )
        for name in sorted(set(growth) - {"worker"}):
            verdicts.append(_target(f"{name}'s memory at the end over the first", growth[name], None, "shown"))
        undecided = found["soak"]["undecided"]
        verdicts.append(_target("soak: not decided", undecided, "= 0", _verdict(undecided == 0)))
    return verdicts


def show(found: dict[str, Any], verdicts: list[dict[str, Any]]) -> None:
    """The verdicts as a table."""
    table = Table("figure", "measured", "to reach", "verdict", title=f"The worker, {found['taken_at']}")
    for one in verdicts:
        table.add_row(one["target"], f"{one['figure']:g}", one["bound"] or "", one["verdict"])
    Console(width=100).print(table)


def _target(name: str, figure: float, bound: str | None, verdict: str) -> dict[str, Any]:
    return {"target": name, "figure": figure, "bound": bound, "verdict": verdict}


def _at_most(name: str, figure: float, bound: float | None, counts: bool) -> dict[str, Any]:
    if bound is None:
        return _target(name, figure, None, "shown")
    return _target(name, figure, f"<= {bound}", _verdict(figure <= bound) if counts else "floor weak")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def _on_a_stack(
    latency_s: float,
    say: Say,
    measure: Callable[[Scene], Coroutine[Any, Any, dict[str, Any]]],
    database: str | None = None,
) -> dict[str, Any]:
    with bench_stack(latency_s, say, database) as found:
        return asyncio.run(_measured(found, measure))


async def _measured(
    found: StackStatus, measure: Callable[[Scene], Coroutine[Any, Any, dict[str, Any]]]
) -> dict[str, Any]:
    from deployments.bench.worker.scene import scene  # imports Prefect, which reads its settings then

    async with scene(found) as there:
        return await measure(there)


async def _doors(there: Scene, asked: Asked, say: Say) -> dict[str, Any]:
    from blocks.connections import connections
    from blocks.prefect_api import prefect_clients
    from deployments.bench.peers.peer import Bench
    from deployments.bench.peers.plain import Floor
    from deployments.bench.worker.measure import doors
    from tasks.deliberations.plan import council_spec

    async with prefect_clients(), connections():
        bench = Bench(there.server, await council_spec("dev"), Path(there.found.home))
    return await doors(there, Floor(bench), asked.doors, asked.latency_s, say)


async def _alive(there: Scene, asked: Asked, say: Say) -> dict[str, Any]:
    from deployments.bench.worker.measure import alive

    return await alive(there, asked.alive, asked.ramp_s, say)


async def _soak(there: Scene, asked: Asked, say: Say) -> dict[str, Any]:
    from deployments.bench.worker.measure import soak

    return await soak(there, asked.soak, say)
