"""Verbs for dead letters: list, show, replay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.support import examples, put, run, running_stack, say

if TYPE_CHECKING:
    from blocks.record.dead_letters import DeadLetter

app = typer.Typer(no_args_is_help=True, help="Requests that could not be dealt with, each kept with the reason.")

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Its number, as `conclave dead list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the dead letters, oldest first: number, time, id, deliveries, reason."""
    running_stack()
    letters = run(_all())
    if as_json:
        put(json.dumps(letters, indent=2))
        return
    for letter in letters:
        when, often = letter["died"][:19], f"{letter['deliveries']} x"
        put(f"{letter['number']:6} {when} {letter['id']:36} {often:>5}  {letter['reason']}")
    if not letters:
        say("there are no dead letters")


@app.command(epilog=examples("conclave dead show 3"))
def show(number: Number) -> None:
    """Show one of them, with what it asked for, as JSON."""
    running_stack()
    put(json.dumps(run(_shown(number)), indent=2))


@app.command(epilog=examples("conclave dead replay 3"))
def replay(number: Number) -> None:
    """Ask for its deliberation again, under a new id, which is printed. The letter stays.

    Exit code 2 where it is no request that can be run.
    """
    running_stack()
    put(run(_replayed(number)))


async def _all() -> list[dict[str, Any]]:
    from blocks.connections import connections
    from blocks.documents import open_record
    from blocks.record.dead_letters import dead_letters

    async with connections():
        return [_line(letter) async for letter in dead_letters(await open_record())]


async def _shown(number: int) -> dict[str, Any]:
    from blocks.connections import connections
    from blocks.documents import open_record
    from tasks.deliberations.dead_letters import content_of, letter_of

    async with connections():
        record = await open_record()
        letter = await letter_of(record, number)
        return {**_line(letter), "subject": letter.subject, "body": await content_of(record, letter)}


async def _replayed(number: int) -> str:
    from blocks.connections import connections
    from blocks.documents import open_record
    from tasks.deliberations.dead_letters import replay

    async with connections():
        return await replay(await open_record(), number)


def _line(letter: DeadLetter) -> dict[str, Any]:
    return {
        "number": letter.sequence,
        "id": letter.id,
        "died": letter.died,
        "deliveries": letter.deliveries,
        "reason": letter.reason,
    }
