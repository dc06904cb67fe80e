"""A run as it is shown and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from deployments.bench.batch.bounds import bound_s
from deployments.bench.batch.figures import Found, Measured, Row
from deployments.bench.batch.options import Case
from deployments.bench.report import targets_table, verdict
from deployments.bench.targets import Judged

SCHEMA = "conclave-bench-batch/1"
BY_FLOOR = ("batch", "changing", "rank")
"""Kinds of cases that are judged beside the floor, which has to count there."""
NOTES = {
    "floor": "plain aiohttp, `slots` in flight, the very bodies of the members' calls, written before; answers are "
    "read and not parsed, but where members rank, since a ballot's call is made of its proposals",
    "conclave": "conclave batch on a stack with its worker; seconds from its run's start to its last decision",
    "langgraph": "StateGraph, Send to each member, AsyncSqliteSaver on a file; semaphore of `slots`, two windows begun",
    "prefect": "a flow on RayTaskRunner, a task for each council, 8 at once, its own Ray; up to 100 rows only",
    "raydata": "HttpRequestProcessorConfig on its own Ray: batch_size 1 and `slots` batches at once in one actor, as "
    "the requests of a batch go one after another; its actor starts inside the clock",
    "curator": "LLM of backend openai: max_concurrent_requests `slots`, no limit a minute, no retries, a new cache",
}


@dataclass(frozen=True)
class Report:
    """A whole run. `left_out` says what was not measured, and why."""

    taken_at: str
    machine: Mapping[str, Any]
    git: Mapping[str, Any] | None
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    others_cores: float
    rows: Sequence[Row]
    targets: Sequence[Judged]
    measured: Sequence[Measured]
    seconds: float
    warnings: Sequence[str] = field(default=())

    def document(self) -> dict[str, Any]:
        """For the JSON file."""
        found = {**asdict(self), "measured": [_flat(one) for one in self.measured]}
        return {"schema": SCHEMA, "notes": NOTES, **found}


def show(report: Report, console: Console) -> None:
    """The tables, then everything that a reader has to know beside them."""
    table = Table(title="Batches; medians", title_justify="left", box=SIMPLE, padding=0)
    for column in ("case", "peer"):
        table.add_column(column)
    for column in ("seconds", "calls/s", "of floor", "of bound", "CPU ms", "beside", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = ""
    for row in report.rows:
        case, previous = "" if row.case == previous else row.case, row.case
        table.add_row(case, *_cells(row))
    console.print(table)
    console.print(
        "of floor: of the plain client's rate; of bound: of what no client can beat, ceil(calls / slots) x latency "
        "where slots are constant; CPU ms: a call; beside: NATS, Prefect, Ray's daemons, simulator; MiB: PSS at the "
        "end, without those",
        highlight=False,
    )
    console.print(targets_table(report.targets))
    for line in [*remarks(report), verdict(report.targets)]:
        console.print(line, highlight=False)


def remarks(report: Report) -> Iterator[str]:
    """Bounds, weak floors, what failed, and a disturbed machine, in words."""
    yield from map(_bound, dict.fromkeys(one.case for one in report.measured if _by_latency(one.case)))
    weak = (row.case for row in report.rows if row.weak_floor and row.case.startswith(BY_FLOOR))
    for name in dict.fromkeys(weak):
        yield f"WEAK FLOOR: {name}: the plain client did not reach its bound; a longer --latency would do"
    failed = (one for one in report.measured if one.outcome is None)
    yield from (f"left out: {one.peer}: {one.case.name}: {one.reason}" for one in failed)
    yield from report.warnings


def _by_latency(case: Case) -> bool:
    """Whether the model bounds it; short answers are bounded by the processor."""
    return case.latency_s is not None and case.kind != "short"


def _bound(case: Case) -> str:
    return f"bound: {case.name}: {bound_s(case.calls, case.slots, case.latency_s or 0.0, case.narrow):.1f} s"


def report_rows(measured: Sequence[Measured]) -> list[Row]:
    """The table's lines."""
    return Found(measured).rows()


def _cells(row: Row) -> list[str]:
    share = "" if row.share is None or row.peer == "floor" else f"{row.share:.3f}"
    of_bound = "" if row.of_bound is None else f"{row.of_bound:.3f}"
    beside = f"{sum(row.beside_ms.values()):.2f}" if row.beside_ms else ""
    numbers = (f"{row.seconds:.2f}", f"{row.calls_a_second:.0f}", share, of_bound, f"{row.cpu_ms:.2f}")
    return [row.peer, *numbers, beside, f"{row.memory_mib:.0f}"]


def _flat(one: Measured) -> dict[str, Any]:
    case: Case = one.case
    told = {"case": case._asdict(), "peer": one.peer, "reason": one.reason}
    return told if one.outcome is None else {**told, **asdict(one.outcome)}
