"""`conclave bench`: brings up a stack of its own, measures, judges against the targets, and takes it down.

Every figure stands beside a floor measured in the same run, interleaved with it. Medians are judged; the
spread is shown. The exit code is 1 where a target is missed or the floor itself is too weak to count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deployments.settings import load_settings
from deployments.stack import StackStatus, UpOptions, down, environment, up

WEAK_FLOOR = 0.98
"""Share of latency / wall that the plain client has to reach for one council to count as a floor."""
EXTERNAL = ("NATS_URL", "RAY_ADDRESS", "PREFECT_API_URL", "VLLM_URL", "VLLM_MODEL", "CONCLAVE_VLLM")


def main(arguments: list[str]) -> int:
    """Run the benchmark; 0 if every target is reached."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as home:
        for name in EXTERNAL:
            os.environ.pop(name, None)
        os.environ["CONCLAVE_HOME"] = home
        settings = load_settings()
        try:
            simulator = ("--latency", str(options.latency), "--slots", "1024")
            found = up(UpOptions(simulate=True, simulator_args=simulator), _say, settings)
            os.environ.update(environment(found))
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            measured = asyncio.run(_measure(found, options))
        finally:
            down(settings, _say)
    judged = judge(measured, options.latency)
    _show(measured, judged)
    if options.json:
        options.json.write_text(json.dumps({**measured, "targets": judged}, indent=2) + "\n")
        _say(f"written to {options.json}")
    return 0 if all(target["reached"] for target in judged) else 1


def judge(measured: dict[str, Any], latency: float) -> list[dict[str, Any]]:
    """Each target with its figure, and whether it was reached."""
    floors, sizes = measured["floor"], measured["conclave"]

    def over(size: str, key: str) -> float:
        return float(sizes[size][key]["median"] - floors[size]["median"])

    rows = [
        ("floor: share of latency / wall, 3 members", latency / floors["3"]["median"], WEAK_FLOOR, ">="),
        ("3 members, run started to decision, over the floor (s)", over("3", "from_start_s"), 0.25, "<="),
        ("3 members, spread of first requests (s)", sizes["3"]["spread_s"]["median"], 0.05, "<="),
        ("3 members, last answer sent to decision (s)", sizes["3"]["tail_s"]["median"], 0.1, "<="),
        (
            "5 members over 1",
            sizes["5"]["from_start_s"]["median"] / sizes["1"]["from_start_s"]["median"],
            1.1,
            "<=",
        ),
        ("64 members, run started to decision, over its floor (s)", over("64", "from_start_s"), 1.2, "<="),
    ]
    return [
        {
            "target": name,
            "figure": round(figure, 4),
            "bound": f"{sign} {bound}",
            "reached": figure >= bound if sign == ">=" else figure <= bound,
        }
        for name, figure, bound, sign in rows
    ]


async def _measure(found: StackStatus, options: argparse.Namespace) -> dict[str, Any]:
    import aiohttp

    from blocks.connections import connections, prefect_clients
    from blocks.loading import fresh, open_record
    from blocks.ray_agents import RayAgents
    from deployments.bench.samples import Sample, council, floor
    from deployments.furnish import furnish
    from tasks.plans import council_spec

    url, model = found.llm or "", found.model or ""
    connector = aiohttp.TCPConnector(limit=0)
    async with prefect_clients(), connections(), aiohttp.ClientSession(connector=connector) as session:
        await furnish(found, load_settings(), _say)
        agents, record, spec = await fresh(RayAgents), await open_record(), await council_spec("dev")
        runner = agents.task_runner()
        runner.warm()  # type: ignore[attr-defined]  # the default block's runner is the warm one
        floors: dict[int, list[float]] = {size: [] for size in options.sizes}
        ours: dict[int, list[Sample]] = {size: [] for size in options.sizes}
        for number in range(-options.warmup, options.samples):
            for size in options.sizes:
                _say(f"round {number + 1} of {options.samples}, {size} members")
                wall = await floor(session, url, spec.sized(size), model)
                await asyncio.sleep(0.5)
                sample = await council(session, url, record, runner, size)
                await asyncio.sleep(options.settle)  # the Prefect server works on for seconds
                if number >= 0:
                    floors[size].append(wall)
                    ours[size].append(sample)
        stock = []
        for number in range(-1, options.stock):
            _say(f"stock runner, {number + 1} of {options.stock}, 3 members")
            stock_runner = RayAgents(runner="stock").task_runner()
            sample = await council(session, url, record, stock_runner, 3)
            await asyncio.sleep(options.settle)
            if number >= 0:
                stock.append(sample)
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("prefect", "prefect-ray", "ray", "nats-py", "aiohttp")},
        "options": {
            "latency_s": options.latency,
            "samples": options.samples,
            "warmup": options.warmup,
            "settle_s": options.settle,
            "agent_hosts": agents.hosts,
            "stock": "RayTaskRunner, num_cpus=0, the same async flow, Ray already connected",
            "prefect_database": "SQLite",
        },
        "floor": {str(size): _summary(walls) for size, walls in floors.items()},
        "conclave": {str(size): _columns(samples) for size, samples in ours.items()},
        "stock_runner": {"3": _columns(stock)} if stock else {},
    }


def _columns(samples: list[Any]) -> dict[str, Any]:
    rows = [sample.as_dict() for sample in samples]
    return {name: _summary([row[name] for row in rows]) for name in rows[0]}


def _summary(values: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "samples": [round(value, 4) for value in values],
    }


def _show(measured: dict[str, Any], judged: list[dict[str, Any]]) -> None:
    console = Console()
    table = Table(title="Seconds, median (min to max)", title_justify="left")
    for column in ("members", "floor", "started to decision", "called to decision", "spread", "tail"):
        table.add_column(column, justify="right")
    rows = [(f"{size}", measured["floor"][size], each) for size, each in measured["conclave"].items()]
    rows += [(f"{size} (stock)", measured["floor"][size], each) for size, each in measured["stock_runner"].items()]
    for name, floor_of, each in rows:
        figures = (each[key] for key in ("from_start_s", "from_call_s", "spread_s", "tail_s"))
        table.add_row(name, *(_cell(figure) for figure in (floor_of, *figures)))
    console.print(table)
    targets = Table(title="Targets", title_justify="left")
    for column in ("target", "figure", "bound", ""):
        targets.add_column(column)
    for target in judged:
        mark = "reached" if target["reached"] else "MISSED"
        targets.add_row(target["target"], f"{target['figure']:.3f}", target["bound"], mark)
    console.print(targets)


def _cell(summary: dict[str, Any]) -> str:
    return f"{summary['median']:.3f} ({summary['min']:.3f} to {summary['max']:.3f})"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conclave bench", description=__doc__)
    parser.add_argument("--samples", type=int, default=7, help="rounds that count (7)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before (1)")
    parser.add_argument("--latency", type=float, default=0.5, help="seconds that the simulator takes to answer (0.5)")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between samples (3)")
    parser.add_argument("--stock", type=int, default=2, help="samples of the stock runner; -1 leaves it out (2)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args(arguments)
    options.sizes = (1, 3, 5, 64)
    return options


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
