"""An evaluation run from the command line, in this process: checked first, watched while it runs, then shown."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from prefect import tags
from prefect.client.schemas.objects import State
from prefect.utilities.urls import url_for
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from blocks.background import background
from blocks.connections import connections
from blocks.documents import open_record
from blocks.names import tag_of
from blocks.prefect_api import prefect_clients, prefect_named
from blocks.task_runner import with_agents
from deployments.local_run import Starts, begun, cancellable, planned
from deployments.terminal import stderr
from flows.evaluate import evaluate
from tasks.council.answer import Answer
from tasks.council.engines import SIMULATOR
from tasks.council.evaluation.arms import Evaluation, Scoresheet
from tasks.council.evaluation.report import COLUMNS, SIMULATED, brief, notes
from tasks.council.models import Deliberation
from tasks.council.plain import plain
from tasks.council.stages import PROPOSE, kind_of
from tasks.deliberations.watch import Watcher, watching
from tasks.evaluate.question_files import QuestionFile, handed_over
from tasks.evaluate.steps import in_waves


class Ended(NamedTuple):
    """What an evaluation came to, and the address of its flow run in Prefect's UI, None where Prefect has none."""

    evaluation: Evaluation
    sheet: Scoresheet
    run_url: str | None


async def run_evaluation(
    questions: QuestionFile, fields: dict[str, Any], deliberation_id: str, watcher: Watcher, starts: Starts
) -> Ended | None:
    """Check the request and its model servers, run the flow; None where it was cancelled.

    Raises InvalidRequest before anything is written, and ConclaveError where a part does not answer.
    """
    async with prefect_clients(), connections():
        record = await open_record()
        of_the_council = {name: value for name, value in fields.items() if name != "rivals"}
        asked = {**of_the_council, "items": questions.items, "strategy": "synthesize"}
        plan = await planned(record, asked, deliberation_id)
        if fields.get("rivals"):
            in_waves(plan.id)  # whose id may be too long
        async with AsyncExitStack() as scopes:
            await scopes.enter_async_context(watching(record, plan, watcher))
            await scopes.enter_async_context(cancellable(record, plan.id, watcher))
            started = await scopes.enter_async_context(starts)
            await scopes.enter_async_context(background(begun(record, plan.id, started)))
            scopes.enter_context(prefect_named())
            scopes.enter_context(tags(tag_of(record.installation)))
            scopes.enter_context(handed_over(questions))
            flow: Any = await with_agents(evaluate)
            state: State[Any] = await flow(str(questions.path), **fields, deliberation_id=plan.id, return_state=True)
        if state.is_cancelled():
            return None
        evaluation, sheet = await state.aresult()
        run = state.state_details.flow_run_id
        return Ended(evaluation, sheet, url_for("flow-run", run) if run else None)


class AnswersWatcher(Watcher):
    """Shows how many proposals, ballots and texts are in; counts only, however many questions; on standard error."""

    def __init__(self) -> None:
        self._console = stderr()
        self._progress = Progress(
            TextColumn("proposals"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._bar: TaskID | None = None
        self._later: Counter[str] = Counter()

    def began(self, plan: Deliberation) -> None:
        """Show who is asked."""
        members = len(plan.council.members)
        what = f"council {plan.council.name}, {members} members, {len(plan.agenda)} questions"
        self._console.print(Text(what))
        self._console.print(Text(f"deliberation {plan.id}", style="dim"))
        self._bar = self._progress.add_task("", total=members * len(plan.agenda))
        self._progress.start()

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        if self._bar is None:
            return
        if answer.stage == PROPOSE:
            self._progress.advance(self._bar)
        else:
            self._later[kind_of(answer.stage)] += 1
            told = ", ".join(f"{kind} {count}" for kind, count in self._later.items())
            self._progress.update(self._bar, description=told)

    def ended(self) -> None:
        """Leave the counts on the screen."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Say a line."""
        self._console.print(Text(text))


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The arms side by side, and what has to be known with them."""
    if evaluation.engine == SIMULATOR:
        console.print(Text(SIMULATED, style="bold yellow"))
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for row in brief(evaluation):
        table.add_row(*row)
    console.print(table)
    for note in notes(evaluation):
        console.print(Text(note))
    for problem in evaluation.problems:
        console.print(Text(f"  {plain(problem)}"))


def write_scores(sheet: Scoresheet, path: Path) -> None:
    """One row for each question and arm that applies to it, as CSV."""
    rows = [
        {
            "item": score.item,
            "arm": score.arm,
            "right": score.right,
            "answered": score.answered,
            "prompt_tokens": score.usage.prompt_tokens,
            "completion_tokens": score.usage.completion_tokens,
            "duration_ms": score.duration_ms,
            "problem": score.problem and plain(score.problem),
        }
        for score in sheet.scores
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
