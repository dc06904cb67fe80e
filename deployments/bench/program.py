"""The run itself: a stack of its own, every peer at every size in rotating turns, and what that came to."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.bench.figures import Measured, check_floors, rows
from deployments.bench.machine import commit, machine, nats_version, versions
from deployments.bench.options import Options, turns
from deployments.bench.quiet import BUSY_SHARE, Watch, busy
from deployments.bench.report import Report
from deployments.bench.targets import judge
from deployments.settings import Settings, load_settings
from deployments.stack import StackStatus, UpOptions, authorization, down, environment, up
from tasks.council.exceptions import ConclaveError

if TYPE_CHECKING:
    from deployments.bench.peers.peer import Bench, Peer

Say = Callable[[str], None]

EXTERNAL = ("NATS_URL", "RAY_ADDRESS", "PREFECT_API_URL", "VLLM_URL", "VLLM_MODEL", "CONCLAVE_VLLM")
SLOTS = 1024
FIRST_LOOK_S = 2.0


class BenchError(ConclaveError):
    """A sample could not be taken; the text says whose, and why."""


def run(options: Options, say: Say) -> Report:
    """Bring a stack up, measure, and take it down again. Raises StackError and BenchError."""
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as home:
        for name in EXTERNAL:
            os.environ.pop(name, None)
        os.environ["CONCLAVE_HOME"] = home
        settings = load_settings()
        try:
            simulator = ("--latency", str(options.latency_s), "--slots", str(SLOTS))
            found = up(UpOptions(simulate=True, simulator_args=simulator, worker=False), say, settings)
            os.environ.update(environment(found))
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            os.environ.setdefault("DO_NOT_TRACK", "1")
            return asyncio.run(_measure(found, settings, options, say))
        finally:
            down(settings, say)


async def _measure(found: StackStatus, settings: Settings, options: Options, say: Say) -> Report:
    from prefect.settings import PREFECT_API_URL

    from blocks.connections import connections
    from blocks.prefect_api import prefect_clients
    from blocks.warm.garbage import spare_what_is_loaded
    from deployments.bench.peers.peer import Bench
    from deployments.bench.workload import ModelServer
    from deployments.provisioning.blocks import provision
    from tasks.deliberations.plan import council_spec

    if PREFECT_API_URL.value() != found.prefect:  # else a temporary server would be measured, and not watched
        raise BenchError("Prefect was imported before the stack was up, and does not know it")
    watch = Watch(Path(found.home), found.parts["prefect"].pid)
    async with AsyncExitStack() as scope:
        await scope.enter_async_context(prefect_clients())
        await scope.enter_async_context(connections())
        session = await scope.enter_async_context(ModelServer.session())
        await provision(found, settings, say)
        server = ModelServer(session, found.llm or "", found.model or "", authorization(found, "llm"))
        bench = Bench(server, await council_spec("dev"), Path(found.home))
        peers, left_out = await _open_peers(scope, bench, options, say)
        spare_what_is_loaded()  # as a worker does
        at_first = await _first_look(watch, options, say)
        measured = await _rounds(peers, watch, options, say)
        nats = await nats_version(environment(found)["NATS_URL"])
    floors = check_floors(measured, options.latency_s)
    found_rows = rows(measured, floors)
    others = statistics.median(each.others_cores for each in measured)
    packages = chain.from_iterable(peer.packages for peer in peers.values())
    return Report(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        latency_s=options.latency_s,
        machine=machine(),
        git=commit(),
        versions={**versions(packages), "nats-server": nats},
        options=_shown(options),
        peers={name: {"title": peer.title, "options": dict(peer.options)} for name, peer in peers.items()},
        left_out=left_out,
        others_cores=round(others, 2),
        floors=floors,
        rows=found_rows,
        targets=judge(found_rows, floors),
        samples=measured,
        warnings=_warnings(measured, others, at_first),
    )


async def _open_peers(
    scope: AsyncExitStack, bench: Bench, options: Options, say: Say
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers of the run, open until the scope ends, and why others are left out."""
    from deployments.bench.peers import opened
    from deployments.bench.peers.peer import PeerMissing

    peers: dict[str, Peer] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in turns(options, 0)):
        try:
            peers[name] = await scope.enter_async_context(opened(name, bench))
        except PeerMissing as missing:
            left_out[name] = str(missing)
            say(f"{name} is left out: {missing}")
    return peers, left_out


async def _rounds(peers: Mapping[str, Any], watch: Watch, options: Options, say: Say) -> list[Measured]:
    measured = []
    for number in range(-options.warmup, options.samples):
        say(f"round {number + 1} of {options.samples}" if number >= 0 else "warm-up")
        for name, size in turns(options, number + options.warmup):
            if name not in peers:
                continue
            taken = await _one(name, peers[name], size, number, watch, options)
            say(f"  {size:3} members  {name:9} {taken.sample.wall_s:.3f} s")
            if number >= 0:
                measured.append(taken)
    return measured


async def _one(name: str, peer: Any, size: int, number: int, watch: Watch, options: Options) -> Measured:
    settled = await watch.settle(options.settle_s)
    before = watch.reading()
    try:
        sample = await peer.sample(size)
    except Exception as error:
        raise BenchError(f"{name} with {size} members: {type(error).__name__}: {error}") from error
    others = watch.reading().others(before)
    return Measured(name, size, number, sample, settled.seconds, settled.quiet, round(others, 2))


async def _first_look(watch: Watch, options: Options, say: Say) -> float:
    """Cores that others use before anything is measured; says so where it is much."""
    await watch.settle(options.settle_s)
    before = watch.reading()
    await asyncio.sleep(FIRST_LOOK_S)
    others = watch.reading().others(before)
    if others > BUSY_SHARE * (os.cpu_count() or 1):
        say(f"{busy(others)}; figures will be worse than they could be")
    return others


def _warnings(measured: list[Measured], others: float, at_first: float) -> list[str]:
    warnings = []
    if max(others, at_first) > BUSY_SHARE * (os.cpu_count() or 1):
        warnings.append(f"BUSY MACHINE: {busy(others)} (median). Compare inside this run only, or take it again.")
    restless = sum(not each.quiet for each in measured)
    if restless:
        warnings.append(f"{restless} of {len(measured)} samples began before Prefect's server was quiet (--settle).")
    return warnings


def _shown(options: Options) -> dict[str, Any]:
    """The options for the JSON file, with what is fixed here."""
    asked = {name: value for name, value in asdict(options).items() if name not in ("json", "plot")}
    return {**asked, "slots": SLOTS, "order": "sizes and peers rotate by round"}
