"""The verb batch: a file of rows, and what a council would be asked about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deployments.cli.completion import council_names
from deployments.cli.deliberations import PANEL
from deployments.cli.support import WRONG_USE, examples, fail, guarded, put, say
from tasks.council.plain import SHOWN_INPUT, one_line, plain_json, shortened

if TYPE_CHECKING:
    from tasks.batch.checking import Checked
    from tasks.batch.records import Records
    from tasks.batch.rows import Columns, Row
    from tasks.council.council import CouncilSpec
    from tasks.council.models import Deliberation, DeliberationRequest

SOME_BAD = 3


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command."""
    epilog = examples(
        "conclave batch questions.csv --dry-run",
        'conclave batch tickets.jsonl --dry-run --id key --task-template "{{title}}: {{body}}" --context product',
        "conclave batch tickets.xlsx --dry-run --sheet March",
        "zcat chats.jsonl.gz | conclave batch - --dry-run --input-format jsonl --messages messages",
    )
    app.command(name="batch", epilog=epilog, rich_help_panel=PANEL)(batch)


def batch(
    input_: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A row for each task: .csv, .tsv, .jsonl, .parquet, a spreadsheet; a path, a URL or -.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check all rows; ask nothing.")] = False,
    council: Annotated[
        str | None,
        typer.Option("--council", "-c", help="Name of the council; dev, or the file's.", autocompletion=council_names),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="propose, rank, synthesize or escalate; the council's own.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the task; task.")] = None,
    template: Annotated[
        str | None,
        typer.Option("--task-template", help='The task of several columns, as Jinja: "{{title}}: {{body}}".'),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of a chat's messages, in place of a task."),
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
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="The sheet of a spreadsheet; the first visible one.")
    ] = None,
    input_format: Annotated[
        str | None, typer.Option(metavar="ENDING", help="What INPUT is, such as csv, whatever its name ends in.")
    ] = None,
    coerce: Annotated[bool, typer.Option("--coerce", help="Take a number or a truth value as a task's text.")] = False,
    duplicate_ids: Annotated[
        Literal["refuse", "keep"], typer.Option(help="Two rows with one id: refuse the file, or keep both.")
    ] = "refuse",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON document.")] = False,
) -> None:
    """Check a file of rows: which can be asked, what is wrong with the others, and how many calls they take.

    Running a batch comes later: only --dry-run is there, and asks nothing. Bad rows are told with place, id and field,
    the first 20; all are counted.
    Exit code: 0 all rows are good, 3 some are not, 2 wrong use, 6 stack not up.
    """
    if not dry_run:
        fail("batch: running one comes later; --dry-run reads and checks the file, and asks nothing", WRONG_USE)
    from tasks.batch.checking import check_rows
    from tasks.batch.files import opened
    from tasks.council.models import Deliberation

    columns = guarded(lambda: _columns(task, template, id_, context, coerce, messages))

    def checked() -> tuple[str, Checked, Deliberation]:
        with opened(input_, encoding, delimiter, sheet, input_format) as records:
            request = _request(records, council, strategy)
            plan = Deliberation.plan("batch", request, _council(request.council))
            return records.name, check_rows(records, columns, duplicate_ids == "keep"), plan

    name, found, plan = guarded(checked)
    if as_json:
        typer.echo(plain_json({"input": name, **_document(found, plan)}))
    else:
        _show(name, found, plan)
    if found.bad:
        raise typer.Exit(SOME_BAD)


def _request(records: Records, council: str | None, strategy: str | None) -> DeliberationRequest:
    """Whom a row asks, as the options say or the file itself does. Raises WrongUse where they differ."""
    from tasks.council.exceptions import WrongUse
    from tasks.council.models import DeliberationRequest

    for option, given, own in (("council", council, records.council), ("strategy", strategy, records.strategy)):
        if given is not None and own is not None and given != own:
            raise WrongUse(f"--{option}: {records.name} asks {own!r} itself; leave it out")
    asked = {
        "council": records.council if council is None else council,
        "strategy": records.strategy if strategy is None else strategy,
    }
    return DeliberationRequest.read({"task": "a row", **asked})


def _columns(
    task: str | None, template: str | None, id_: str | None, context: str | None, coerce: bool, messages: str | None
) -> Columns:
    """Which columns make an item. Raises WrongUse."""
    from tasks.batch.rows import Columns
    from tasks.batch.templates import TaskTemplate
    from tasks.council.exceptions import WrongUse

    if task is not None and template is not None:
        raise WrongUse("--task: a template says what the task is; give one of both")
    if messages is not None and (task is not None or template is not None):
        raise WrongUse("--messages: says what the task is; give no --task and no --task-template beside it")
    for option, column in (("--task", task), ("--id", id_), ("--messages", messages)):
        if column == "":
            raise WrongUse(f"{option}: names no column")
    names = tuple(filter(None, map(str.strip, (context or "").split(","))))
    made = None if template is None else TaskTemplate(template)
    return Columns(task, id_, names, made, coerce, messages)


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
        "place": found.place,
        "first_bad": [_bad_row(row) for row in found.first_bad],
        "characters": found.characters,
        "replaced_surrogates": found.replaced,
        "notes": dict(found.notes.most_common()),
        "most_calls": calls,
        "most_calls_total": sum(calls.values()),
    }


def _bad_row(row: Row) -> dict[str, Any]:
    field, reason, text = row.fault or ("", "", "")
    where = {"line": row.line, "row": row.number, "id": row.id}
    return {**where, "field": field, "reason": reason, "text": text}


def _show(name: str, found: Checked, plan: Deliberation) -> None:
    """What was found on standard output, the bad rows on standard error."""
    from tasks.batch.checking import calls_by_stage

    for row in found.first_bad:
        say(f"{one_line(name)} {_told(row, found.place)}")
    if found.bad > len(found.first_bad):
        say(f"and {found.bad - len(found.first_bad):,} more bad rows")
    put(f"rows         {found.rows:,}: {found.good:,} good, {found.bad:,} bad")
    for reason, count in found.reasons.most_common():
        put(f"  bad        {count:,}: {one_line(reason)}")
    put(f"characters   {found.characters:,} of tasks and contexts")
    if found.replaced:
        put(f"replaced     {found.replaced:,} lone halves of characters by U+FFFD")
    for note, count in found.notes.most_common():
        put(f"note         {count:,}: {one_line(note)}")
    calls = calls_by_stage(plan, found.good)
    put(f"calls        {sum(calls.values()):,} at most, of council {plan.council.name} by {plan.strategy}")
    for stage, count in calls.items():
        put(f"  {stage:10} {count:,}")
    say("nothing was asked; running a batch comes later")


def _told(row: Row, place: str) -> str:
    """A bad row in one line: where it is, its id, the field, and what is wrong."""
    number = [] if place == "row" else [f"row {row.number}"]
    id_ = [] if row.id is None else [f"id {shortened(repr(row.id), SHOWN_INPUT)}"]
    beside = f" ({', '.join(number + id_)})" if number or id_ else ""
    field, _, text = row.fault or ("", "", "")
    return f"{place} {row.line}{beside}: {one_line(field)}: {one_line(text)}"
