"""What the command lines of all benchmarks share: options that are read, what is told, where the report goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from tasks.council.exceptions import WrongUse

NOT_UP = 6
"""Exit code: the stack did not come up."""

T = TypeVar("T")


def read_option(read: Callable[[str], T], text: str | None, option: str) -> T | None:
    """What an option says; None where it was left out. Raises typer.BadParameter, which names it."""
    try:
        return None if text is None else read(text)
    except WrongUse as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def say(text: str) -> None:
    """Tell how it goes on, on standard error."""
    typer.echo(text, err=True)


def fail(text: str, code: int) -> int:
    """Tell why it ends, on standard error; gives the exit code."""
    typer.secho(f"conclave: {text}", fg="red", err=True)
    return code


def console(width: int) -> Console:
    """Standard output, of so many columns where that is no terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=width)


def write_document(file: Path | None, document: dict[str, Any]) -> None:
    """Write a report to a file as JSON, where one is named, and tell so."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n")
    say(f"written to {file}")


def draw_plot(file: Path, draw: Callable[[Path], Iterable[Path]]) -> None:
    """Draw a plot in a file, and tell so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    say(f"drawn in {' and '.join(map(str, draw(file)))}")
