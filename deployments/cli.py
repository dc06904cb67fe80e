"""The command `conclave`. Prefect and Ray are imported only by the verbs that need them.

Exit codes: 0 decided, 3 degraded or some items not decided, 4 timeout, 5 cancelled, 1 failed, 2 wrong use,
6 the stack is not up or a part of it does not answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from deployments.settings import Settings, SettingsError, load_settings
from deployments.stack import StackError, StackStatus, UpOptions, down, environment, status, up
from tasks.council.models import DeliberationRequest, check_id

FAILED, WRONG_USE, NOT_UP = 1, 2, 6

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A council of LLM agents that deliberates: members propose, a decision comes out, all of it on record.",
    epilog="Exit codes: 0 decided, 3 degraded, 4 timeout, 5 cancelled, 1 failed, 2 wrong use, 6 stack not up.",
)
councils = typer.Typer(no_args_is_help=True, help="The councils: who sits in them.")
app.add_typer(councils, name="councils")


def main() -> None:
    """Entry point."""
    app()


@app.command(name="up")
def up_(
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything is up.")] = False,
    llm_url: Annotated[str | None, typer.Option(help="Model server with an OpenAI-compatible API.")] = None,
    model: Annotated[str | None, typer.Option(help="Model on that server; its first where left out.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the simulator: rehearsals, never decisions.")
    ] = False,
    simulator: Annotated[str | None, typer.Option(help="Arguments for the simulator, such as '--latency 0.5'.")] = None,
) -> None:
    """Start what is not there yet: NATS, Prefect, Ray, and a model server or the simulator."""
    options = _guarded(
        lambda: UpOptions(
            llm_url=llm_url, model=model, simulate=simulate, simulator_args=tuple((simulator or "").split())
        )
    )
    settings = _settings()
    found = _guarded(lambda: up(options, _say, settings))
    _use(found)
    _furnish(found, settings)
    _show_stack(found)
    if not detach:
        _stay(settings)


@app.command(name="down")
def down_() -> None:
    """End what `conclave up` started; what is on record stays."""
    settings = _settings()
    ended = _guarded(lambda: down(settings, _say))
    _say("the stack is down" if ended else "nothing was running")


@app.command(name="status")
def status_(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say where each part is and whether it answers."""
    found = _guarded(lambda: status(_settings()))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show_stack(found)
    if not found.is_up:
        raise typer.Exit(NOT_UP)


@app.command()
def deliberate(
    task: Annotated[str, typer.Argument(help="What the council decides.")],
    council: Annotated[str, typer.Option(help="Name of the council.")] = "dev",
    rubric: Annotated[str | None, typer.Option(help="How proposals are judged.")] = None,
    requirement: Annotated[list[str] | None, typer.Option(help="What a proposal has to meet; repeatable.")] = None,
    strategy: Annotated[str, typer.Option(help="propose: deterministic checks decide.")] = "propose",
    members: Annotated[int | None, typer.Option(help="The council's first N members, or more in their roles.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Answers that decide; more than half where left out.")] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds to wait after the quorum; to the deadline.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds for the deliberation; the council's own.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Its id; the same id again resumes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Let a council decide a task; watch its members answer, then read the decision."""
    fields: dict[str, Any] = {
        "task": task,
        "council": council,
        "rubric": rubric,
        "requirements": requirement or None,
        "strategy": strategy,
        "members": members,
        "quorum": quorum,
        "grace_s": grace,
        "deadline_s": deadline,
    }
    _guarded(lambda: (DeliberationRequest.read(fields), check_id(id_ or "new")))
    found = _stack()
    from deployments.deliberations import run_deliberation
    from deployments.terminal import TerminalWatcher

    result = _run(run_deliberation(fields, id_ or str(uuid.uuid4()), TerminalWatcher()))
    _present(result, as_json, found)


@app.command()
def result(
    deliberation_id: Annotated[str, typer.Argument(metavar="ID")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the result of an earlier deliberation."""
    found = _stack()
    from deployments.deliberations import read_result

    _present(_run(read_result(deliberation_id)), as_json, found)


@app.command()
def cancel(deliberation_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Ask a running deliberation to stop; its members' calls are closed."""
    _stack()
    from deployments.deliberations import ask_cancel

    ended = _run(ask_cancel(deliberation_id))
    _say(f"{deliberation_id} has ended already: {ended}" if ended else f"asked {deliberation_id} to stop")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Measure this machine: Conclave beside the floor and the stock runner. `conclave bench --help` for options."""
    from deployments.bench import main as bench_main

    raise typer.Exit(bench_main(context.args))


@councils.command()
def apply(file: Annotated[Path | None, typer.Argument(help="A file like deployments/councils.yaml.")] = None) -> None:
    """Save the councils of a file as blocks; those that are the same already are left alone."""
    _stack()
    from deployments.councils import DEFAULTS, apply_councils, read_councils

    read = _guarded(lambda: read_councils(file or DEFAULTS))
    for name, done in _run(apply_councils(read, overwrite=True)).items():
        _say(f"{name}: {done}")


@councils.command(name="list")
def list_() -> None:
    """List the councils that Prefect holds."""
    _stack()
    from blocks.loading import council_names

    for name in _run(council_names()):
        typer.echo(name)


# --- shared -------------------------------------------------------------------------------------------


def _settings() -> Settings:
    return _guarded(load_settings)


def _stack() -> StackStatus:
    """The stack that is up, with its environment taken on. Ends with code 6 where there is none."""
    found = _guarded(lambda: status(_settings(), ask=False))
    if found.prefect is None and not os.environ.get("PREFECT_API_URL"):
        _fail("the stack is not up: `conclave up --detach` starts it", NOT_UP)
    _use(found)
    return found


def _use(found: StackStatus) -> None:
    os.environ.update(environment(found))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL", "CRITICAL")  # tracebacks while its server is away
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect would put a notice about telemetry between our lines


def _furnish(found: StackStatus, settings: Settings) -> None:
    from deployments.furnish import furnish

    agents = _run(furnish(found, settings, _say))
    started = time.monotonic()
    from blocks.exceptions import ConclaveError

    try:
        hosts = agents.task_runner().warm() if agents.runner == "warm" else []
    except ConclaveError as error:
        _fail(str(error), NOT_UP)
    _say(f"{len(hosts)} agent hosts ready ({time.monotonic() - started:.1f} s)")


def _show_stack(found: StackStatus) -> None:
    if found.prefect is None:
        _say(f"the stack of {found.home} is not up: `conclave up` starts it")
        return
    for name, part in found.parts.items():
        note = f" ({part.reason})" if part.reason else ""
        typer.echo(f"{name:8} {part.state:9} {part.url or ''}{note}")
    if found.prefect:
        typer.echo(f"Look at deliberations in Prefect's UI: {found.prefect.removesuffix('/api')}")
    if found.simulated:
        typer.secho("The model server is the SIMULATOR: texts are made up, for rehearsals only.", fg="yellow", err=True)


def _stay(settings: Settings) -> None:
    _say("press Ctrl-C to end the stack")
    try:
        while status(settings, ask=False).prefect:
            time.sleep(2)
    except KeyboardInterrupt:
        down(settings, _say)


def _present(result: dict[str, Any], as_json: bool, found: StackStatus) -> NoReturn:
    from deployments.results import exit_code
    from deployments.terminal import show_result, stdout

    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show_result(result, stdout(), _where(result))
    raise typer.Exit(exit_code(result))


def _where(result: dict[str, Any]) -> list[str]:
    run = result["links"].get("prefect_run")
    lines = [f"Report in Prefect's UI: {run}"] if run else []
    return [*lines, f"Again, as JSON: conclave result {result['id']} --json"]


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run async work; wrong requests end with code 2, absent parts with code 6."""
    import httpx

    from blocks.exceptions import ConclaveError
    from tasks.council.models import InvalidRequest

    try:
        return asyncio.run(work)
    except InvalidRequest as error:
        _fail(str(error), WRONG_USE)
    except (ConclaveError, httpx.TransportError) as error:
        _fail(f"{type(error).__name__}: {error}; `conclave status` says which part is away", NOT_UP)
    except RuntimeError as error:
        _fail(str(error), NOT_UP if "Failed to reach API" in str(error) else FAILED)


def _guarded(call: Any) -> Any:
    """Call; the known errors end with their code and one line."""
    from pydantic import ValidationError

    try:
        return call()
    except (SettingsError, ValidationError) as error:
        _fail(str(error), WRONG_USE)
    except StackError as error:
        _fail(str(error), NOT_UP)
    except ValueError as error:
        _fail(str(error), WRONG_USE)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _fail(text: str, code: int) -> NoReturn:
    typer.secho(f"conclave: {text}", fg="red", err=True)
    raise typer.Exit(code)
