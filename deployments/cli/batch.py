"""The verb batch: a file of rows, each decided by a council, or what that would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deployments.cli.completion import council_names
from deployments.cli.deliberations import PANEL
from deployments.cli.support import WRONG_USE, examples, fail, guarded

if TYPE_CHECKING:
    from tasks.batch.rows import Columns


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command."""
    epilog = examples(
        "conclave batch questions.csv decisions.csv",
        "conclave batch questions.csv decisions.csv --resume --max-calls 5000   # after a kill, or a budget that ended",
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
    output: Annotated[
        str | None,
        typer.Argument(metavar="OUTPUT", help="A row for each of INPUT: .parquet, .jsonl or .csv; a path or a URL."),
    ] = None,
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
    bad_rows: Annotated[
        Literal["skip", "stop"], typer.Option(help="Rows that cannot be asked: tell them in OUTPUT, or ask nothing.")
    ] = "skip",
    rounds: Annotated[int | None, typer.Option(help="How often authors revise, 0 to 3; the council's own.")] = None,
    members: Annotated[int | None, typer.Option(help="The council's first N members, or more in their roles.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Answers that decide; more than half where left out.")] = None,
    grace_s: Annotated[float | None, typer.Option("--grace", help="Seconds to wait after the quorum.")] = None,
    deadline_s: Annotated[float | None, typer.Option("--deadline", help="Seconds for each row.")] = None,
    answer_format: Annotated[
        str | None, typer.Option(help="Of a closed answer: number, text-exact, or a choice's options: yes,no.")
    ] = None,
    output_format: Annotated[
        Literal["parquet", "jsonl", "csv", "openai"] | None, typer.Option(help="Whatever the end of OUTPUT's name is.")
    ] = None,
    order: Annotated[
        Literal["completion", "input"],
        typer.Option("--output-order", help="Of OUTPUT's rows: as they were decided, or as in INPUT."),
    ] = "completion",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an OUTPUT that is not finished.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write another OUTPUT in the place of one.")] = False,
    retry: Annotated[
        Literal["none", "failed"], typer.Option(help="With --resume: ask rows again that failed.")
    ] = "none",
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Ask rows that are equal but for their id once.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Ask so many rows, tell what all will take, and stop; then --resume.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Calls of models at most.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens-total", min=1, help="Tokens of prompts and answers at most.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes at most.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Calls in flight at each model server at the beginning; 256.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON document.")] = False,
) -> None:
    """Let a council decide every row of a file, and write a row for each; or, with --dry-run, say what that takes.

    The gateway takes the rows, workers decide them; what is decided is written to parts beside OUTPUT at once. Whatever
    is killed, --resume goes on and asks no finished row again. Ctrl-C once stops the batch, twice leaves it running.
    Bad rows are told with place, id and field, the first 20; all are counted, and stand in OUTPUT.
    Exit code: 0 every row is decided (or can be asked), 3 some are not, or degraded, 5 cancelled, 1 none is decided,
    2 wrong use, 6 stack not up.
    """
    from deployments.cli.batch_checks import dry_run_of
    from deployments.cli.batch_run import RunOptions, run_batch, spooled_input
    from tasks.batch.job import InputFile

    columns = guarded(lambda: _columns(task, template, id_, context, coerce, messages))
    if not dry_run and output is None:
        fail("OUTPUT: name the file for the decisions; or --dry-run checks INPUT, and asks nothing", WRONG_USE)
    with spooled_input(input_, input_format, not dry_run) as named:
        keep = duplicate_ids == "keep"
        source = InputFile(named, columns, encoding, delimiter, sheet, input_format, keep)
        if dry_run:
            dry_run_of(source, council, strategy, as_json)
            return
        asked = {
            "council": council,
            "strategy": strategy,
            "rounds": rounds,
            "members": members,
            "quorum": quorum,
            "grace_s": grace_s,
            "deadline_s": deadline_s,
            "answer_format": answer_format,
        }
        budget = {"max_calls": max_calls, "max_tokens": max_tokens, "max_s": max_minutes and 60 * max_minutes}
        options = RunOptions(
            input_,
            str(output),
            output_format,
            order,
            resume,
            replace,
            retry,
            dedupe,
            sample,
            budget,
            window,
            bad_rows == "stop",
            as_json,
        )
        run_batch(source, asked, options)


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
