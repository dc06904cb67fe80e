"""How the verb batch runs one: through the gateway, with a progress that can be watched, and a code at the end."""

from __future__ import annotations

import importlib
import io
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from blocks.files import BoundedReader
from deployments.batches.run import BatchOfFile, Told
from deployments.cli.batch_checks import council_named, request_for, told_bad
from deployments.cli.gateway import asked as asked_gateway
from deployments.cli.gateway import client
from deployments.cli.support import WRONG_USE, fail, guarded, put, say
from tasks.batch.asked import BatchRequest
from tasks.batch.job import InputFile, Job
from tasks.batch.lines import MAX_FILE
from tasks.batch.output.folder import Finished, Order, OutputFolder, open_output
from tasks.batch.output.report import batch_report, write_report
from tasks.batch.output.target import shown_url
from tasks.batch.records import BatchFileError
from tasks.council.models import Status
from tasks.council.plain import one_line, plain_json

if TYPE_CHECKING:
    from rich.progress import Progress

SOME, CANCELLED, NONE = 3, 5, 1
TELL_S = 10.0
"""How often progress is told where standard error is no terminal."""
REPORT = ".report.md"


@dataclass(frozen=True)
class RunOptions:
    """What the command line says of a run, beside what is asked."""

    input: str
    output: str
    output_format: str | None
    order: Order
    resume: bool
    replace: bool
    retry: Literal["none", "failed"]
    dedupe: bool
    sample: int | None
    budget: dict[str, Any]
    window: int | None
    stop_at_bad: bool
    as_json: bool


@contextmanager
def spooled_input(named: str, input_format: str | None, is_run: bool) -> Iterator[str]:
    """The input's name; standard input is put into a file for a run, which reads it more than once."""
    if named != "-" or not is_run:
        yield named
        return
    if input_format is None:
        fail("--input-format: has to say what standard input is", WRONG_USE)
    if sys.stdin.isatty():
        fail("INPUT: standard input is a terminal; give a file, or put one in by a pipe", WRONG_USE)
    with tempfile.TemporaryDirectory(prefix="conclave-batch-") as folder:
        path = Path(folder) / f"standard-input.{input_format}"
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(io.BufferedReader(BoundedReader(sys.stdin.buffer.read, MAX_FILE)), file)
        except OSError as error:
            fail(f"INPUT: standard input cannot be kept: {error.strerror or error}", WRONG_USE)
        yield str(path)


def run_batch(source: InputFile, asked: dict[str, Any], options: RunOptions) -> NoReturn:
    """Run it, say what it came to, and end with its code."""
    began = time.monotonic()
    asked = guarded(lambda: _asked_of(source, asked))
    request = guarded(lambda: BatchRequest.read({"agendas": 1, **asked, **_given(options)}))
    asks = guarded(lambda: request.asks(council_named(request.council)))
    if options.stop_at_bad:
        guarded(lambda: _require_good(source))
    _require_other_file(options)
    with guarded(lambda: _opened(asked, source, options)) as output:
        for told in output.told:
            say(told)
        job = Job(source, output, asks, options.retry, options.dedupe, options.sample)
        batch = BatchOfFile(client(timeout_s=120.0), job, {**asked, **_given(options)})
        threading.Thread(target=_prepare_end, daemon=True).start()
        try:
            reason = _followed(batch)
        except BaseException:
            if not output.states:  # nothing was asked: there is nothing to go on with
                output.discard()
            raise
        if options.sample is not None and job.undecided:
            _tell_sample(job, batch.told, options)
        finished = guarded(lambda: job.finish(reason, options.order, None if job.stood else time.monotonic() - began))
    _end(job, finished, batch, reason, time.monotonic() - began, options)


def _prepare_end() -> None:
    """Import what only the end needs, which takes most of a second, while others are at work."""
    importlib.import_module("matplotlib.figure")
    importlib.import_module("matplotlib.backends.backend_svg")


def _asked_of(source: InputFile, asked: dict[str, Any]) -> dict[str, Any]:
    """What is asked for all rows, with what the file itself says. Raises WrongUse."""
    from tasks.council.closed_answers import format_of

    if asked["answer_format"] is not None:
        asked = {**asked, "answer_format": format_of(asked["answer_format"])}
    with source.opened() as records:
        request = request_for(records, asked["council"], asked["strategy"])
    return {**asked, "council": request.council, "strategy": request.strategy}


def _given(options: RunOptions) -> dict[str, Any]:
    budget = {name: value for name, value in options.budget.items() if value is not None}
    return {"budget": budget or None, "window": options.window}


def _require_good(source: InputFile) -> None:
    """Raise BatchFileError where a row cannot be asked."""
    with source.opened() as records:
        place = records.place
    for row in source.rows():
        if row.item is None:
            raise BatchFileError(f"{one_line(source.named)} {told_bad(row, place)}; nothing was asked")


def _require_other_file(options: RunOptions) -> None:
    """End where OUTPUT is INPUT, which would be gone."""
    if "://" in options.input or "://" in options.output or options.input == "-":
        same = options.input == options.output
    else:
        given, made = Path(options.input), Path(options.output)
        same = made.exists() and given.exists() and made.samefile(given)
    if same:
        fail("OUTPUT: is INPUT itself; name another file", WRONG_USE)


def _opened(asked: dict[str, Any], source: InputFile, options: RunOptions) -> OutputFolder:
    """The output, held for this run. Raises BatchFileError."""
    from deployments.cli.support import settings

    columns = source.columns
    template = None if columns.template is None else columns.template.source
    told = {
        **{name: value for name, value in asked.items() if value is not None and name not in BatchRequest.PACE},
        "columns": [columns.task, columns.id, list(columns.context), template, columns.coerce, columns.messages],
        "dedupe": options.dedupe,
    }
    parts_in = settings().home / "batches" if "://" in options.output else None
    if parts_in is not None:
        parts_in.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_output(
        options.output,
        told,
        resume=options.resume,
        replace=options.replace,
        output_format=options.output_format,
        parts_in=parts_in,
    )


# --- watching -------------------------------------------------------------------------------------


def _followed(batch: BatchOfFile) -> str | None:
    """Follow it to its end; Ctrl-C asks it to stop, and once more leaves it running."""
    with _watching(batch):
        try:
            return asked_gateway(lambda: guarded(batch.run))
        except KeyboardInterrupt:
            if batch.id is None:
                raise
            say("stopping the batch; once more leaves it running")
            try:
                return asked_gateway(lambda: guarded(batch.stop))
            except KeyboardInterrupt:
                fail(f"batch {batch.id} goes on; --resume writes what it comes to", CANCELLED)


@contextmanager
def _watching(batch: BatchOfFile) -> Iterator[None]:
    """Show how far it is, while the block runs."""
    if not sys.stderr.isatty():
        batch.watch(_Lines())
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        batch.watch(_Bar(progress))
        yield


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, told: Told) -> None:
        if time.monotonic() - self._told_at < TELL_S:
            return
        self._told_at = time.monotonic()
        left = f"{(told.rows - told.decided) / told.rate:,.0f} s left" if told.rate else "time left not known yet"
        say(f"{told.decided:,} of {told.rows:,} rows, {told.rate:,.1f} a second, {left}")


class _Bar:
    """A bar with rate and time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("rows", total=None, rate="")

    def __call__(self, told: Told) -> None:
        rate = f"{told.rate:,.1f} rows/s" if told.rate else ""
        self._progress.update(self._bar, completed=told.decided, total=told.rows or None, rate=rate)


# --- the end --------------------------------------------------------------------------------------


def _tell_sample(job: Job, told: Told, options: RunOptions) -> NoReturn:
    """Say what all rows will take, by those that were asked, and end."""
    summary = job.output.summary()
    asked = max(1, summary.decided + summary.failed)
    left = job.undecided
    share = (left + asked) / asked
    seconds = (left + asked) / told.rate if told.rate else 0.0
    estimate = {
        "rows": job.rows,
        "sampled": asked,
        "calls": round(summary.calls * share),
        "prompt_tokens": round(summary.prompt_tokens * share),
        "completion_tokens": round(summary.completion_tokens * share),
        "seconds": round(seconds, 1),
        "seconds_is": "at the pace of so few rows; more at once are faster",
    }
    if options.as_json:
        typer.echo(plain_json({"output": shown_url(options.output), "estimate": estimate}))
    else:
        put(f"sampled      {asked:,} of {job.rows:,} rows")
        for name in ("calls", "prompt_tokens", "completion_tokens", "seconds"):
            put(f"{name:21} {estimate[name]:,} for all rows")
        say("the rows that were asked are kept; --resume asks the others")
    raise typer.Exit(0)


def _end(
    job: Job, finished: Finished, batch: BatchOfFile, reason: str | None, seconds: float, options: RunOptions
) -> NoReturn:
    """Write the report, say what it came to, and end with its code."""
    summary, body = finished.summary, batch.told.batch
    report = None
    if "://" not in options.output:
        report = f"{options.output}{REPORT}"
        guarded(lambda: write_report(Path(report), batch_report(summary, Path(options.output).name)))
    if options.as_json:
        run_s = _seconds(body.get("started_at"), body.get("last_decision_at"))
        document = {
            "id": body.get("id"),
            "output": finished.path,
            "report": report,
            "errors": finished.errors,
            "error": reason,
            "seconds": {"command": round(seconds, 3), "run": run_s},
            "summary": summary.as_dict(),
        }
        typer.echo(plain_json(document))
    else:
        for line in summary.lines():
            put(line)
        put(f"output       {finished.path}")
        if report is not None:
            put(f"report       {one_line(report)}")
        if reason is not None:
            say(f"stopped early: {one_line(reason)}; --resume goes on")
    raise typer.Exit(_code(job, finished, body))


def _seconds(began: str | None, ended: str | None) -> float | None:
    from datetime import datetime

    if began is None or ended is None:
        return None
    return round((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds(), 3)


def _code(job: Job, finished: Finished, body: dict[str, Any]) -> int:
    summary = finished.summary
    if body.get("status") == Status.CANCELLED.value:
        return CANCELLED
    if summary.decided == summary.rows and not summary.degraded:
        return 0
    return SOME if summary.decided else NONE
