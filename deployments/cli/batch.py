"""The verb batch: a file of rows, and what a council would be asked about each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deployments.cli.completion import council_names
from deployments.cli.deliberations import PANEL
from deployments.cli.support import WRONG_USE, examples, fail, guarded, put, say
from tasks.council.plain import SHOWN_INPUT, one_line, plain_json, shortened

if TYPE_CHECKING:
    from tasks.batch.checking import Checked
    from tasks.batch.rows import Columns, Row
    from tasks.council.council import CouncilSpec
    from tasks.council.models import Deliberation

SOME_BAD = 3


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command."""
    epilog = examples(
        "conclave batch questions.csv --dry-run",
        'conclave batch tickets.jsonl --dry-run --id key --task-template "{{title}}: {{body}}" --context product',
    )
    app.command(name="batch", epilog=epilog, rich_help_panel=PANEL)(batch)


def batch(
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A row for each task: .csv or .tsv with a header, or .jsonl.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check all rows; ask nothing.")] = False,
    council: Annotated[
        str, typer.Option("--council", "-c", help="Name of the council.", autocompletion=council_names)
    ] = "dev",
    strategy: Annotated[
        str | None, typer.Option(help="propose, rank, synthesize or escalate; the council's own.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the task; task.")] = None,
    template: Annotated[
        str | None,
        typer.Option("--task-template", help='The task of several columns, as Jinja: "{{title}}: {{body}}".'),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="COLUMN", help="The column of its id; id, else the row's number."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="COLUMN,...", help="Columns with facts that members should know.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="What the file is in, such as cp1252; UTF-8, or by its byte order mark.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What separates cells of CSV; comma, semicolon and tab are found.")
    ] = None,
    coerce: Annotated[
        bool, typer.Option("--coerce", help="Take a number or a truth value of JSON as a task's text.")
    ] = False,
    duplicate_ids: Annotated[
        Literal["refuse", "keep"], typer.Option(help="Two rows with one id: refuse the file, or keep both.")
    ] = "refuse",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON document.")] = False,
) -> None:
    """Check a file of rows: which can be asked, what is wrong with the others, and how many calls they take.

    Running a batch comes later: only --dry-run is there, and asks nothing. Bad rows are told with line, id and field,
    the first 20; all are counted.
    Exit code: 0 all rows are good, 3 some are not, 2 wrong use, 6 stack not up.
    """
    if not dry_run:
        fail("batch: running one comes later; --dry-run reads and checks the file, and asks nothing", WRONG_USE)
    from tasks.batch.checking import check_rows
    from tasks.batch.files import opened
    from tasks.council.models import Deliberation, DeliberationRequest

    columns = guarded(lambda: _columns(task, template, id_, context, coerce))
    request = guarded(lambda: DeliberationRequest.read({"task": "a row", "council": council, "strategy": strategy}))

    def checked() -> tuple[Checked, Deliberation]:
        with opened(input_, encoding, delimiter) as records:
            plan = Deliberation.plan("batch", request, _council(council))
            return check_rows(records, columns, duplicate_ids == "keep"), plan

    found, plan = guarded(checked)
    if as_json:
        typer.echo(plain_json({"input": input_.name, **_document(found, plan)}))
    else:
        _show(input_.name, found, plan)
    if found.bad:
        raise typer.Exit(SOME_BAD)


def _columns(task: str | None, template: str | None, id_: str | None, context: str | None, coerce: bool) -> Columns:
    """Which columns make an item. Raises WrongUse."""
    from tasks.batch.rows import TASK, Columns
    from tasks.batch.templates import TaskTemplate
    from tasks.council.exceptions import WrongUse

    if task is not None and template is not None:
        raise WrongUse("--task: a template says what the task is; give one of both")
    for option, column in (("--task", task), ("--id", id_)):
        if column == "":
            raise WrongUse(f"{option}: names no column")
    names = tuple(filter(None, map(str.strip, (context or "").split(","))))
    made = None if template is None else TaskTemplate(template)
    return Columns(TASK if task is None else task, id_, names, made, coerce)


def _council(name: str) -> CouncilSpec:
    """The council of that name, from the gateway."""
    from deployments.cli.gateway import asked, client
    from tasks.council.council import CouncilSpec

    found = asked(lambda: client().councils())
    if name not in found:
        fail(f"council: {name!r} is unknown; known are {', '.join(found) or 'none'}", WRONG_USE)
    return CouncilSpec.from_record(found[name])


def _document(found: Checked, plan: Deliberation) -> dict[str, Any]:
    from tasks.batch.checking import calls_by_stage

    calls = calls_by_stage(plan, found.good)
    return {
        "council": plan.council.name,
        "strategy": plan.strategy,
        "rows": found.rows,
        "good": found.good,
        "bad": found.bad,
        "bad_by_reason": dict(found.reasons.most_common()),
        "first_bad": [_bad_row(row) for row in found.first_bad],
        "characters": found.characters,
        "replaced_surrogates": found.replaced,
        "most_calls": calls,
        "most_calls_total": sum(calls.values()),
    }


def _bad_row(row: Row) -> dict[str, Any]:
    field, reason, text = row.fault or ("", "", "")
    return {"line": row.line, "row": row.number, "id": row.id, "field": field, "reason": reason, "text": text}


def _show(name: str, found: Checked, plan: Deliberation) -> None:
    """What was found on standard output, the bad rows on standard error."""
    from tasks.batch.checking import calls_by_stage

    for row in found.first_bad:
        say(f"{one_line(name)} {_told(row)}")
    if found.bad > len(found.first_bad):
        say(f"and {found.bad - len(found.first_bad):,} more bad rows")
    put(f"rows         {found.rows:,}: {found.good:,} good, {found.bad:,} bad")
    for reason, count in found.reasons.most_common():
        put(f"  bad        {count:,}: {one_line(reason)}")
    put(f"characters   {found.characters:,} of tasks and contexts")
    if found.replaced:
        put(f"replaced     {found.replaced:,} lone halves of characters by U+FFFD")
    calls = calls_by_stage(plan, found.good)
    put(f"calls        {sum(calls.values()):,} at most, of council {plan.council.name} by {plan.strategy}")
    for stage, count in calls.items():
        put(f"  {stage:10} {count:,}")
    say("nothing was asked; running a batch comes later")


def _told(row: Row) -> str:
    """A bad row in one line: where it is, its id, the field, and what is wrong."""
    id_ = "" if row.id is None else f", id {shortened(repr(row.id), SHOWN_INPUT)}"
    field, _, text = row.fault or ("", "", "")
    return f"line {row.line} (row {row.number}{id_}): {one_line(field)}: {one_line(text)}"
