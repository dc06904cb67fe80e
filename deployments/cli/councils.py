"""Verbs for councils: apply, list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.completion import council_names
from deployments.cli.support import WRONG_USE, examples, fail, guarded, run, running_stack, say, settings

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
    """List the councils."""
    from deployments.cli.gateway import asked, client
    from deployments.terminal import show_councils, stdout
    from tasks.council.council import CouncilSpec

    found = asked(lambda: client().councils())
    show_councils({name: CouncilSpec.from_record(spec) for name, spec in found.items()}, stdout())


@app.command(epilog=examples("conclave councils show dev > dev.yaml", "conclave councils apply dev.yaml"))
def show(name: Annotated[str, typer.Argument(help="Name of the council.", autocompletion=council_names)]) -> None:
    """Print a council as a file that `councils apply` takes."""
    from deployments.cli.gateway import asked, client
    from tasks.council.council import CouncilSpec

    found = asked(lambda: client().councils())
    if name not in found:
        fail(f"council: {name!r} is unknown; known are {', '.join(found) or 'none'}", WRONG_USE)
    from deployments.council_files import as_file

    typer.echo(as_file({name: CouncilSpec.from_record(found[name])}), nl=False)
