"""The command line of `conclave bench gateway`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deployments.bench.targets import MISSED, REACHED
from deployments.bench.terminal import NOT_UP, fail, say, write_document

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Exit codes: 0 every target reached, 1 one missed, 6 no stack.")
def gateway(
    rate: Annotated[float, typer.Option(min=1, help="Requests a second, sent when they are due.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1, help="For so long.")] = 30.0,
    listeners: Annotated[int, typer.Option(min=0, help="Listeners of one deliberation at once.")] = 100,
    idle: Annotated[int, typer.Option(min=0, help="Idle listeners whose memory is measured.")] = 1000,
    draining: Annotated[bool, typer.Option("--draining", help="Only POST, while a worker drains the queue.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
) -> None:
    """Measure the gateway on a stack of its own: POST, stored durably; GET of a result; listeners."""
    from deployments.bench.gateway.measure import Asked, judged, measured
    from deployments.bench.worker.stack import bench_stack
    from deployments.stack import StackError

    asked = Asked(rate, seconds, 0, 0) if draining else Asked(rate, seconds, listeners, idle)
    try:
        with bench_stack(0.5, say, worker=draining) as found:
            figures = asyncio.run(measured(found, asked, say))
    except StackError as error:
        raise typer.Exit(fail(str(error), NOT_UP)) from error
    if draining:
        figures = {f"draining_{name}": value for name, value in figures.items()}
    verdicts = judged(figures)
    for name, value in figures.items():
        told = verdicts.get(name, {})
        bound = f"  (at most {told['at_most']:g}: {told['verdict']})" if told else ""
        typer.echo(f"{name:46} {value:10.2f}{bound}")
    write_document(json_, {"figures": figures, "targets": verdicts})
    missed = any(each["verdict"] == "missed" for each in verdicts.values())
    raise typer.Exit(MISSED if missed else REACHED)
