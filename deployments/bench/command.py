"""The command line of `conclave bench`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.bench.options import (
    AGAINST_DOORS,
    PEERS,
    SIZES,
    STOCK_SIZES,
    Options,
    read_doors,
    read_peers,
    read_sizes,
)
from deployments.bench.targets import MISSED, exit_code
from deployments.bench.terminal import NOT_UP, console, draw_plot, fail, read_option, say, write_document
from tasks.council.exceptions import WrongUse

WIDTH = 100
"""Columns where the output is not a terminal."""
QUICK = Options(samples=1, warmup=1, latency_s=0.2, settle_s=3.0, sizes=(1, 3), stock_sizes=())
AGAINST = Options(samples=10, latency_s=0.2, sizes=(1, 3, 15), stock_sizes=(), peers=("floor", "conclave", "rank"))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main(arguments: list[str]) -> int:
    """Run `conclave bench`, or what it measures besides, with these arguments; gives the exit code."""
    chosen, given, name = app, arguments, "conclave bench"
    if arguments[:1] == ["worker"]:
        from deployments.bench.worker.command import app as worker

        chosen, given, name = worker, arguments[1:], "conclave bench worker"
    elif arguments[:1] == ["gateway"]:
        from deployments.bench.gateway.command import app as gateway

        chosen, given, name = gateway, arguments[1:], "conclave bench gateway"
    elif arguments[:1] == ["batch"]:
        from deployments.bench.batch.command import app as batch

        chosen, given, name = batch, arguments[1:], "conclave bench batch"
    try:
        chosen(args=given, prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else MISSED
    return 0


@app.command(
    epilog="Exit codes: 0 every target reached, 1 a target missed (or a sample failed), 2 wrong use, "
    "3 none missed but not all could be judged (a weak floor, or a size left out), 6 the stack did not come up. "
    "With --against: 0 no loss shown, 1 a loss shown (or a sample failed), 3 too wide an interval to tell."
)
def bench(
    samples: Annotated[int | None, typer.Option(min=1, help="Rounds that count (7).")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Rounds before them (1).")] = None,
    latency: Annotated[float | None, typer.Option(min=0.01, help="Seconds that every answer takes (0.5).")] = None,
    settle: Annotated[
        float | None, typer.Option(min=0, help="Most seconds to wait for a quiet Prefect server (15).")
    ] = None,
    sizes: Annotated[str | None, typer.Option(help=f"Members of the councils ({','.join(map(str, SIZES))}).")] = None,
    stock_sizes: Annotated[
        str | None, typer.Option(help=f"Those for the stock runner, which is slow ({','.join(map(str, STOCK_SIZES))}).")
    ] = None,
    peers: Annotated[str | None, typer.Option(help=f"Who is measured ({','.join(PEERS)}).")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the plot here, as SVG and as PNG.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round with 1 and 3 members and short answers: a look, not a verdict.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Measure another checkout in turns with this one, and tell the ratio of new to old."),
    ] = None,
    doors: Annotated[
        str | None, typer.Option(help=f"With --against: doors to the worker ({','.join(AGAINST_DOORS)}; none: '').")
    ] = None,
) -> None:
    """Measure this machine: Conclave beside the floor (a plain client), the stock runner and LangGraph.

    `conclave bench worker` measures the worker: doors, many at once, memory; `conclave bench gateway` the HTTP API;
    `conclave bench batch` thousands of questions.
    `--against` compares two checkouts.

    Brings up a stack of its own with the simulator, measures in rotating turns, judges, and takes it down.
    """
    given: dict[str, Any] = {
        "samples": samples,
        "warmup": warmup,
        "latency_s": latency,
        "settle_s": settle,
        "sizes": read_option(read_sizes, sizes, "--sizes"),
        "stock_sizes": read_option(read_sizes, stock_sizes, "--stock-sizes"),
        "peers": read_option(read_peers, peers, "--peers"),
        "json": json_,
        "plot": plot,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    if against is not None:
        raise typer.Exit(_compare(asked, quick, against, doors))
    if doors is not None:
        raise typer.BadParameter("belongs to --against, or to `conclave bench worker`", param_hint="--doors")
    raise typer.Exit(measure(replace(QUICK if quick else Options(), **asked)))


def measure(options: Options) -> int:
    """Run, show, and write what was asked for; gives the exit code."""
    from deployments.bench.program import BenchError, run
    from deployments.bench.report import show
    from deployments.stack import StackError

    try:
        report = run(options, say)
    except StackError as error:
        return fail(str(error), NOT_UP)
    except BenchError as error:
        return fail(str(error), MISSED)
    show(report, console(WIDTH))
    write_document(options.json, report.document())
    if options.plot:
        from deployments.bench.plot import draw

        draw_plot(options.plot, partial(draw, report))
    return exit_code(report.targets)


def _compare(asked: dict[str, Any], quick: bool, against: Path, doors: str | None) -> int:
    from deployments.bench.against.pairs import LEAST_PAIRS
    from deployments.bench.against.sides import checked

    if quick or "plot" in asked or "stock_sizes" in asked:
        raise typer.BadParameter("goes without --quick, --plot and --stock-sizes", param_hint="--against")
    options = replace(AGAINST, **asked)
    if options.samples < LEAST_PAIRS:
        raise typer.BadParameter(f"an interval needs {LEAST_PAIRS} rounds", param_hint="--samples")
    chosen = AGAINST_DOORS if doors is None else read_option(read_doors, doors, "--doors") or ()
    if not chosen and options.peers == ("floor",):
        raise typer.BadParameter("nothing is left to compare but the floor", param_hint="--peers")
    try:
        checkout = checked(against)
    except WrongUse as error:
        raise typer.BadParameter(str(error), param_hint="--against") from None
    return compare(options, chosen, checkout)


def compare(options: Options, doors: tuple[str, ...], checkout: Path) -> int:
    """Measure this checkout against another, show, and write what was asked for; gives the exit code."""
    from deployments.bench.against.program import run, show
    from deployments.bench.against.sides import NotUpError
    from deployments.bench.program import BenchError

    try:
        found = run(options, doors, checkout, say)
    except NotUpError as error:
        return fail(str(error), NOT_UP)
    except BenchError as error:
        return fail(str(error), MISSED)
    show(found, console(WIDTH))
    write_document(options.json, found.document())
    return found.comparison.exit_code
