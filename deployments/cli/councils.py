"""Verbs for councils: apply, list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.completion import council_names
from deployments.cli.support import examples, guarded, run, running_stack, say, settings

app = typer.Typer(no_args_is_help=True, help="The councils: who sits in them, and the rules they decide by.")


@app.command(epilog=examples("conclave councils apply", "conclave councils apply my-councils.yaml"))
def apply(
    file: Annotated[
        Path | None,
        typer.Argument(help="A file like deployments/provisioning/councils.yaml, which is taken if left out."),
    ] = None,
) -> None:
    """Save the councils of a file as Prefect blocks; those that are the same already are left alone."""
    running_stack()  # first, since Prefect reads where its server is when it is imported
    from deployments.provisioning.councils import DEFAULTS, apply_own_councils, read_councils

    read = guarded(lambda: read_councils(file or DEFAULTS))
    for name, done in run(apply_own_councils(read, settings())).items():
        say(f"{name}: {done}")


@app.command(name="list")
def list_() -> None:
    """List the councils that Prefect holds."""
    running_stack()
    from deployments.provisioning.councils import stored_councils
    from deployments.terminal import show_councils, stdout

    show_councils(run(stored_councils()), stdout())


@app.command(epilog=examples("conclave councils show dev > dev.yaml", "conclave councils apply dev.yaml"))
def show(name: Annotated[str, typer.Argument(help="Name of the council.", autocompletion=council_names)]) -> None:
    """Print a council as a file that `councils apply` takes."""
    running_stack()
    from deployments.provisioning.councils import as_file
    from tasks.deliberations.plan import council_spec

    run(council_spec(name))
    from blocks.council import Council
    from blocks.documents import fresh

    typer.echo(as_file({name: run(fresh(Council, name))}), nl=False)
