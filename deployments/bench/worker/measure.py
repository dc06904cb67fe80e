"""The three measurements: from door to decision, many alive at once, memory over many runs one after another."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deployments.bench.figures import FLOOR_SHARE, summary
from deployments.bench.options import WORKER_DOORS, rotated
from deployments.bench.peers.plain import Floor
from deployments.bench.quiet import Watch
from deployments.bench.worker.scene import PATIENCE_S, Scene
from deployments.bench.worker.stack import MEMBERS, Say
from deployments.stack.processes import family

SETTLE_S = 10.0
SAMPLE_S = 0.5
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
FIRST = 200
"""Runs after which memory is first read."""


@dataclass
class Door:
    """Seconds from a door to the decision, less what the slowest member took, as the model server saw it."""

    name: str
    over_slowest: list[float] = field(default_factory=list)
    first_call: list[float] = field(default_factory=list)
    """Of these the ones before the model server's first request."""
    wall: list[float] = field(default_factory=list)


async def doors(scene: Scene, floor: Floor, rounds: int, latency_s: float, say: Say) -> dict[str, Any]:
    """Every door in rotating turns, with the plain client in each round."""
    measured = {name: Door(name) for name in WORKER_DOORS}
    floors: list[float] = []
    watch = Watch(Path(scene.found.home), scene.found.parts["prefect"].pid)
    async with scene.decisions() as decided:
        await watch.settle(SETTLE_S)
        await watch.rest()
        for number in range(-1, rounds):
            await watch.settle(SETTLE_S)
            plain = await floor.sample(MEMBERS)
            for name in rotated(WORKER_DOORS, number):
                await watch.settle(SETTLE_S)
                await scene.server.forget()
                run = await getattr(scene, name)()
                arrived = await decided(run.id)
                sample = await scene.server.sample(f"{run.id}", run.asked_at, run.asked_at, arrived)
                if number >= 0:
                    measured[name].wall.append(sample.wall_s)
                    measured[name].over_slowest.append(sample.wall_s - sample.server_s)
                    measured[name].first_call.append(sample.wall_s - sample.server_s - sample.tail_s)
                over_s = sample.wall_s - sample.server_s
                say(
                    f"  {name:9} {over_s:.3f} s over the slowest member, {over_s - sample.tail_s:.3f} to the first call"
                )
            if number >= 0:
                floors.append(plain.wall_s)
    share = latency_s / statistics.median(floors)
    return {
        "floor_s": asdict(summary(floors)),
        "floor_share": round(share, 4),
        "floor_counts": share >= FLOOR_SHARE,
        "doors": {
            name: {
                "wall_s": asdict(summary(door.wall)),
                "over_slowest_s": asdict(summary(door.over_slowest)),
                "first_call_s": asdict(summary(door.first_call)),
            }
            for name, door in measured.items()
        },
    }


async def alive(scene: Scene, count: int, ramp_s: float, say: Say) -> dict[str, Any]:
    """So many deliberations asked for, one each `ramp_s`; how many were really in flight, and what became of them."""
    started = time.time()
    peaks = {"deliberations": 0, "calls": 0}
    runs = []

    async def watch() -> None:
        while True:
            calls, told = await scene.running_calls(), await scene.health()
            peaks["calls"] = max(peaks["calls"], calls)
            peaks["deliberations"] = max(peaks["deliberations"], told["in_work"])
            await asyncio.sleep(SAMPLE_S)

    async with scene.decisions() as decided:
        watching = asyncio.create_task(watch())
        try:
            for number in range(count):
                runs.append(await scene.ui())
                await asyncio.sleep(max(0.0, started + (number + 1) * ramp_s - time.time()))
            say(f"  {count} asked for after {time.time() - started:.1f} s")
            arrived = await asyncio.gather(*(decided(run.id) for run in runs))
        finally:
            watching.cancel()
    states = await _final_states(scene, [run.id for run in runs])
    walls = [at - run.asked_at for at, run in zip(arrived, runs, strict=True)]
    return {
        "asked": count,
        "states": {name: states.count(name) for name in sorted(set(states))},
        "peak_deliberations": peaks["deliberations"],
        "peak_calls": peaks["calls"],
        "wall_s": asdict(summary(walls)),
        "all_s": round(max(arrived) - started, 2),
    }


async def soak(scene: Scene, count: int, say: Say) -> dict[str, Any]:
    """So many deliberations one after another; memory of every process after the first ones and at the end."""
    first: dict[str, float] = {}
    undecided = 0
    started = time.time()
    async with scene.decisions() as decided:
        for number in range(1, count + 1):
            run = await scene.ui()
            try:
                await decided(run.id)
                (state,) = await _final_states(scene, [run.id])
                undecided += state != "COMPLETED"
            except TimeoutError:
                undecided += 1
            if number % 100 == 0:
                await scene.server.forget()
                now = memory_mib(Path(scene.found.home))
                say(f"  {number}: {time.time() - started:.0f} s, worker {now.get('worker', 0):.0f} MiB")
                if number == min(FIRST, count):
                    first = now
    last = memory_mib(Path(scene.found.home))
    return {
        "runs": count,
        "undecided": undecided,
        "seconds": round(time.time() - started, 1),
        "mib_first": first,
        "mib_last": last,
        "growth": {name: round(last[name] / first[name], 3) for name in first if name in last},
    }


def memory_mib(home: Path) -> dict[str, float]:
    """Memory of each part of a stack with its children, MiB: what is its own, not shared with others (USS)."""
    found: dict[str, float] = {}
    for name, process in family(home).parts.items():
        total = 0
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        found[name] = round(total / 2**20, 1)
    return found


async def _final_states(scene: Scene, ids: list[str]) -> list[str]:
    states = []
    async with asyncio.timeout(PATIENCE_S):
        for one in ids:
            while (state := (await scene.state(one)).get("type")) not in FINAL:  # noqa: ASYNC110  # Prefect is asked
                await asyncio.sleep(0.02)
            states.append(str(state))
    return states
