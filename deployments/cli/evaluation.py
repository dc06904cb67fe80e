"""The verb evaluate: is a council better than one call?"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.completion import council_names
from deployments.cli.deliberations import MEASURING
from deployments.cli.support import FAILED, WRONG_USE, examples, fail, guarded, run, running_stack, say
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from tasks.council.evaluation.arms import Scoresheet

CANCELLED, UNDECIDED = 5, 3


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command."""
    epilog = examples(
        "conclave evaluate docs/examples/questions.jsonl --council dev",
        "conclave evaluate questions.jsonl --members 5 --rounds 1 --output scores.csv",
        "conclave evaluate questions.jsonl --id ID   # the same id again: resumes, scores anew, repeats no call",
    )
    app.command(name="evaluate", epilog=epilog, rich_help_panel=MEASURING)(evaluate)


def evaluate(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help='JSON lines, each like {"task": "...", "check": {"type": "numeric", "answer": 42}}; '
            "checks are exact, numeric, regex and predicate.",
        ),
    ],
    council: Annotated[
        str, typer.Option("--council", "-c", help="Name of the council.", autocompletion=council_names)
    ] = "dev",
    members: Annotated[int | None, typer.Option(help="The council's first N members, or more in their roles.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How often authors revise their proposals, 0 to 3; the council's own.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds for each question; the council's own.")] = None,
    rivals: Annotated[
        bool, typer.Option(help="Also ask the task alone, five times for each question, and once more in waves.")
    ] = True,
    id_: Annotated[str | None, typer.Option("--id", help="Its id; the same id again resumes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write one row for each question and arm to this CSV file.")
    ] = None,
) -> None:
    """Compare a council's ways to an answer over the same proposals, and with plain calls to the same models.

    One member's answer, the majority's, the ranking's and the synthesis; beside them the task asked alone (bare), the
    vote of five such calls (bare-5), and the council in waves (escalate): accuracy with 95 % intervals, tokens per
    right answer, latency. The table goes to standard output.
    Exit code: 0 all decided, 3 some questions were not, 5 cancelled, 1 failed, 2 wrong use, 6 stack not up.
    """
    from tasks.council.models import DeliberationRequest, check_id
    from tasks.evaluate.question_files import QuestionFile

    fields: dict[str, Any] = {"council": council, "members": members, "rounds": rounds, "deadline_s": deadline}
    guarded(lambda: (DeliberationRequest.read({**fields, "task": "read first"}), check_id(id_ or "new")))
    _require_writable(output)
    asked = guarded(lambda: QuestionFile(questions))
    run(asked.try_checks())
    stack = running_stack()
    from deployments.evaluation import AnswersWatcher, run_evaluation, show_evaluation
    from deployments.starts import at_will, starting
    from deployments.terminal import stdout
    from tasks.artifacts.keys import artifact_key

    starts = starting(Path(stack.home)) if stack.database == "sqlite" else at_will()
    fields["rivals"] = rivals
    found = run(run_evaluation(asked, fields, id_ or str(uuid.uuid4()), AnswersWatcher(), starts))
    if found is None:
        told = "what was answered is on the record, and a cancelled one stays so: another --id evaluates anew"
        fail(f"the evaluation was cancelled; {told}", CANCELLED)
    evaluation, sheet, run_url = found
    if as_json:
        typer.echo(plain_json(evaluation.model_dump(mode="json")))
    else:
        show_evaluation(evaluation, stdout())
        if run_url:
            say(f"Report in Prefect's UI, artifact {artifact_key('evaluation', evaluation.id)}: {run_url}")
        say(f"Again, without a call: the same command with --id {evaluation.id}")
    if output is not None:
        _write(sheet, output)
    if evaluation.undecided:
        raise typer.Exit(UNDECIDED)


def _require_writable(output: Path | None) -> None:
    """Fail before anything is asked where the file could not be written at the end."""
    if output is None:
        return
    folder = output.absolute().parent
    if not folder.is_dir():
        fail(f"output: there is no folder {folder}", WRONG_USE)
    if output.is_dir() or not os.access(output if output.exists() else folder, os.W_OK):
        fail(f"output: {output} is a folder, or cannot be written", WRONG_USE)


def _write(sheet: Scoresheet, output: Path) -> None:
    from deployments.evaluation import write_scores

    try:
        write_scores(sheet, output)
    except OSError as error:
        fail(f"output: {output} cannot be written: {error.strerror}", FAILED)
    say(f"{len(sheet.scores)} scores are in {output}")
