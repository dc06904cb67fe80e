"""The command `conclave`: verbs for the stack, for deliberations, and for councils.

Nothing but typer is imported until a verb runs, so that help and completion come at once. Exit codes: 0 decided,
3 degraded or some items not decided, 4 timeout, 5 cancelled, 1 failed, 2 wrong use, 6 the stack is not up or a
part of it does not answer.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli import (
    batch,
    councils,
    dead,
    deliberations,
    evaluation,
    signing_secrets,
    stack,
    support,
    tokens,
    webhooks,
)
from deployments.cli.output import flush_answer, guard_streams

__all__ = ["app", "main"]

GARBAGE_EVERY = 50_000
"""Objects that are made before garbage is looked for: a verb's imports make very many, and no garbage."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A council of LLM agents that deliberates: members propose, a decision comes out, all of it on record.",
    epilog='First: [bold]conclave up --detach[/], then [bold]conclave deliberate "Design a rate limiter"[/], and '
    "[bold]conclave doctor[/] if something is wrong. "
    "Exit codes: 0 decided, 3 degraded, 4 timeout, 5 cancelled, 1 failed, 2 wrong use, 6 stack not up.",
    rich_markup_mode="rich",
)
stack.add_to(app)
deliberations.add_to(app)
batch.add_to(app)
evaluation.add_to(app)
app.add_typer(councils.app, name="councils", rich_help_panel=deliberations.PANEL)
app.add_typer(tokens.app, name="tokens", rich_help_panel=stack.PANEL)
app.add_typer(signing_secrets.app, name="secrets", rich_help_panel=stack.PANEL)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=stack.PANEL)
app.add_typer(dead.app, name="dead", rich_help_panel=deliberations.PANEL)


def main() -> None:
    """Entry point."""
    gc.set_threshold(GARBAGE_EVERY)
    guard_streams()
    _require_working_directory()
    try:
        app()
    finally:
        flush_answer()


def _require_working_directory() -> None:
    """Say so where it was removed: Ray needs one, and says then that there is no cluster."""
    try:
        Path.cwd()
    except OSError as error:
        support.say(f"the working directory cannot be used ({error.strerror}): cd to one that is there")
        raise SystemExit(support.WRONG_USE) from None


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and leave.")] = False,
) -> None:
    """Options of the command itself."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("conclave"))
        raise typer.Exit
