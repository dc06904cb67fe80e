"""The command line of `conclave bench worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.bench.targets import MISSED, NOT_JUDGED, REACHED
from deployments.bench.terminal import NOT_UP, fail, say, write_document

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Exit codes: 0 every target reached, 1 one missed, 3 not all could be judged, 6 no stack.")
def worker(
    doors: Annotated[int, typer.Option(min=0, help="Rounds of every door (9); 0 leaves them out.")] = 9,
    alive: Annotated[int, typer.Option(min=0, help="Deliberations alive at once (0: not measured).")] = 0,
    alive_latency: Annotated[float, typer.Option(min=0.1, help="Seconds of each answer in that.")] = 60.0,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds between two of them.")] = 0.5,
    database: Annotated[
        str | None, typer.Option(help="PostgreSQL for Prefect in that, as in CONCLAVE_PREFECT_DATABASE.")
    ] = None,
    soak: Annotated[int, typer.Option(min=0, help="Deliberations one after another (0: not measured).")] = 0,
    latency: Annotated[float, typer.Option(min=0.01, help="Seconds of each answer for the doors.")] = 0.5,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
) -> None:
    """Measure the worker: from UI, schedule and CLI to the decision; many alive at once; memory over many runs.

    Each measurement brings up a stack of its own, with its worker, and takes it down.
    """
    from deployments.bench.program import BenchError
    from deployments.bench.worker.program import Asked, judged, run, show
    from deployments.stack import StackError

    asked = Asked(doors, alive, alive_latency, ramp, database, soak, latency)
    try:
        found = run(asked, say)
    except StackError as error:
        raise typer.Exit(fail(str(error), NOT_UP)) from error
    except (BenchError, TimeoutError) as error:
        raise typer.Exit(fail(str(error) or "no answer in time", MISSED)) from error
    verdicts = judged(found)
    show(found, verdicts)
    write_document(json_, {**found, "targets": verdicts})
    raise typer.Exit(_exit_code({each["verdict"] for each in verdicts}))


def _exit_code(verdicts: set[str]) -> int:
    if "missed" in verdicts:
        return MISSED
    return NOT_JUDGED if "floor weak" in verdicts else REACHED
