"""The command line of `conclave bench batch`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.bench.batch.options import (
    KINDS,
    PEERS,
    QUICK,
    ROWS,
    SLOTS,
    Options,
    read_kinds,
    read_peers,
    read_rows,
    read_slots,
    with_floor,
)
from deployments.bench.targets import MISSED, exit_code
from deployments.bench.terminal import NOT_UP, console, draw_plot, fail, read_option, say, write_document

WIDTH = 120
"""Columns where the output is not a terminal."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Exit codes: 0 every target reached, 1 one missed (or our own side failed), 2 wrong use, "
    "3 none missed but not all could be judged, 6 no stack."
)
def batch(
    rows: Annotated[str | None, typer.Option(help=f"Questions, beside all peers ({','.join(map(str, ROWS))}).")] = None,
    slots: Annotated[
        str | None,
        typer.Option(
            help=f"Slots of the simulator, the first for all but the cases about slots ({','.join(map(str, SLOTS))})."
        ),
    ] = None,
    latency: Annotated[float | None, typer.Option(min=0.01, help="Seconds of each answer (2).")] = None,
    peers: Annotated[str | None, typer.Option(help=f"Who is measured ({','.join(PEERS)}).")] = None,
    only: Annotated[str | None, typer.Option(help=f"Kinds of cases ({','.join(KINDS)}).")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Rounds, in rotating turns (1).")] = None,
    council: Annotated[str | None, typer.Option(help="The council that is asked (dev).")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A model server of your own; its key is in CONCLAVE_LLM_API_KEY. Only --rows then."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its model; the first that it lists.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the plot here, as SVG and as PNG.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rows, short answers: a look, not a verdict.")] = False,
) -> None:
    """Measure a batch of questions beside a plain client, LangGraph, Prefect with Ray, Ray Data and curator.

    On a stack of its own with the simulator, or with --url on a model server of yours, which --slots says the slots of.
    """
    if model is not None and url is None:
        raise typer.BadParameter("belongs to --url", param_hint="--model")
    if url is not None and latency is not None:
        raise typer.BadParameter("a server of your own has its own pace", param_hint="--latency")
    given: dict[str, Any] = {
        "rows": read_option(read_rows, rows, "--rows"),
        "slots": read_option(read_slots, slots, "--slots"),
        "peers": read_option(read_peers, peers, "--peers"),
        "latency_s": latency,
        "only": read_option(read_kinds, only, "--only"),
        "samples": samples,
        "council": council,
        "url": url,
        "model": model,
        "json": json_,
        "plot": plot,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(measure(with_floor(replace(QUICK if quick else Options(), **asked))))


def measure(options: Options) -> int:
    """Run, show, and write what was asked for; gives the exit code."""
    from deployments.bench.batch.program import run
    from deployments.bench.batch.report import show
    from deployments.bench.program import BenchError
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
        from deployments.bench.batch.plot import draw

        draw_plot(options.plot, partial(draw, report))
    return exit_code(report.targets)
