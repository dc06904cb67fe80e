"""Verbs for the stack: up, down, status, env, doctor, logs."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.completion import part_names
from deployments.cli.support import NOT_UP, WRONG_USE, examples, fail, guarded, put, run, say, settings, use
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from deployments.settings import Settings
    from deployments.stack import PartStatus, StackStatus

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
PANEL = "The stack"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
WATCH_EVERY_S = 2.0
USERS_KEYS = (
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "CONCLAVE_LLM_API_KEY",
)
"""What a user sets to get into parts from outside."""
EVENTS_INBOX = "_INBOX_events"
"""Where a client of NATS' user for outside gets answers, since only our parts listen on `_INBOX`."""


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb, name, epilog in (
        (
            up,
            "up",
            examples(
                "conclave up --detach",
                "conclave up --detach --llm-url http://gpu:8000 --model Qwen/Qwen3-0.6B",
                "conclave up --simulate --simulator '--latency 2'",
            ),
        ),
        (down, "down", None),
        (status, "status", examples("conclave status", "conclave status --json | jq -r .prefect")),
        (env, "env", examples('eval "$(conclave env)"', "conclave env --events")),
        (doctor, "doctor", examples("conclave doctor", "conclave doctor --council architect")),
        (logs, "logs", examples("conclave logs", "conclave logs prefect -n 100", "conclave logs nats --follow")),
    ):
        app.command(name=name, epilog=epilog, rich_help_panel=PANEL)(verb)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is up.")] = False,
    llm_url: Annotated[str | None, typer.Option(help="Model server with an OpenAI-compatible API.")] = None,
    model: Annotated[str | None, typer.Option(help="Model on that server; its first where left out.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the simulator: rehearsals, never decisions.")
    ] = False,
    simulator: Annotated[str | None, typer.Option(help="Arguments for the simulator, such as '--latency 0.5'.")] = None,
    worker: Annotated[bool, typer.Option(help="Start a worker; or leave it to workers that run elsewhere.")] = True,
    open_: Annotated[
        bool, typer.Option("--open", help="Let everybody on this machine use the gateway without a token.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the names in Prefect over from another installation.")
    ] = False,
) -> None:
    """Start what is not there yet: NATS, the gateway, Prefect, Ray, and a model server or the simulator.

    A stack that is up already is found and completed. Without --detach it stays in the foreground, tells of parts
    that die and are started again, and Ctrl-C ends it.
    """
    from deployments.stack import UpOptions
    from deployments.stack import up as bring_up

    options = guarded(
        lambda: UpOptions(
            llm_url=llm_url,
            model=model,
            simulate=simulate,
            simulator_args=tuple((simulator or "").split()),
            worker=worker,
            open=open_,
        )
    )
    chosen = settings()
    guarded(lambda: _check_files(chosen))
    try:
        found = guarded(lambda: bring_up(options, say, chosen, lambda stack: _provision(stack, chosen, take_over)))
    except KeyboardInterrupt:
        say("interrupted: what was started here is ended")
        os._exit(INTERRUPTED)  # gRPC may hang for ever in the destructor of a call that was interrupted
    _show(found)
    if not detach:
        _stay(chosen)


def down() -> None:
    """End what `conclave up` started; what is on record stays."""
    from deployments.stack import down as bring_down

    chosen = settings()
    say("the stack is down" if guarded(lambda: bring_down(chosen, say)) else "nothing was running")


def status(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say where each part is, whether it answers, and whether it had to be started again."""
    from deployments.stack import status as ask_all

    found = guarded(lambda: ask_all(settings()))
    if as_json:
        typer.echo(plain_json(found.model_dump(mode="json")))
    else:
        _show(found)
    if not found.is_up:
        raise typer.Exit(NOT_UP)


def env(
    events: Annotated[
        bool, typer.Option("--events", help="Only NATS' URL for publishers and listeners outside, with their key.")
    ] = False,
) -> None:
    """Print what a shell needs to talk to the parts, keys included, as lines for `eval`."""
    from deployments.stack import check_keys, events_url
    from deployments.stack import status as look

    found = guarded(lambda: look(settings(), ask=False))
    if found.prefect is None:
        fail(f"the stack of {found.home} is not up: `conclave up --detach` starts it", NOT_UP)
    guarded(lambda: check_keys(found))
    if not events:
        for line in _exports(found):
            typer.echo(line)
        return
    url = events_url(found)
    if url is None:
        fail("NATS was given from outside: who publishes and listens there is its own affair", NOT_UP)
    typer.echo(f"# a client names this inbox prefix: {EVENTS_INBOX}")
    typer.echo(f"export NATS_URL={shlex.quote(url)}")


def doctor(
    council: Annotated[list[str] | None, typer.Option(help="Only this council's members; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Ask every part for a real answer, each member's model included, and say what to do about what is wrong.

    Each model is asked for a few tokens. Exit code 6 where something does not answer.
    """
    from deployments.stack import status as ask_all

    found = guarded(lambda: ask_all(settings()))
    if found.prefect is not None:
        use(found)
    from deployments.doctor import examine
    from deployments.doctor_report import tell

    if not run(tell(examine(found, settings(), council or []), as_json)):
        raise typer.Exit(NOT_UP)


def logs(
    part: Annotated[
        str | None,
        typer.Argument(
            help="nats, gateway, llm, prefect, ray, worker or supervisord; all if left out.", autocompletion=part_names
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written; Ctrl-C ends.")] = False,
) -> None:
    """Show the ends of the parts' log files."""
    from deployments.stack.logs import tail

    chosen = _logs_of(part)
    for name, path in chosen.items():
        say(f"==> {name}: {path}")
        for line in tail(path, lines):
            put(line)
    if follow:
        _follow(chosen, with_names=not part)


def _logs_of(part: str | None) -> dict[str, Path]:
    """The log file of a part, or all that there are, by part."""
    from deployments.stack.logs import log_files

    files = log_files(settings().home)
    if part is not None and part not in files:
        known = ", ".join(files) or "none yet: `conclave up` starts a stack"
        fail(f"part: there is no log of {part!r}; there are {known}", WRONG_USE)
    if not files:
        fail("no part has written a log yet: `conclave up` starts a stack", NOT_UP)
    return files if part is None else {part: files[part]}


def _follow(logs: dict[str, Path], with_names: bool) -> None:
    """Show what is written to logs from now on, until Ctrl-C."""
    from deployments.stack.logs import follow as follow_logs

    try:
        for name, line in follow_logs(logs):
            put(f"{name:12} {line}" if with_names else line)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _exports(found: StackStatus) -> Iterator[str]:
    """The variables of the stack, and what the user has set for parts from outside."""
    from deployments.stack import environment

    given = {name: os.environ[name] for name in USERS_KEYS if os.environ.get(name)}
    for name, value in (given | guarded(lambda: environment(found))).items():
        yield f"export {name}={shlex.quote(value)}"


def _check_files(chosen: Settings) -> None:
    """Read the files that worker and gateway would end with where they cannot be used. Raises EventFileError."""
    if chosen.listeners is not None:
        from deployments.listeners import read_listeners

        read_listeners(chosen.listeners)
    if chosen.webhooks is not None:
        from deployments.webhooks.configuration import read_webhooks, require_secrets

        require_secrets(chosen.webhooks, read_webhooks(chosen.webhooks))


def _provision(found: StackStatus, chosen: Settings, take_over: bool) -> None:
    """Blocks, councils and agent hosts of a stack that has just come up."""
    use(found)
    import ray

    from blocks.exceptions import ConclaveError
    from deployments.provisioning.blocks import provision

    agents = run(provision(found, chosen, say, take_over))
    started = time.monotonic()
    try:
        hosts = agents.task_runner().warm() if agents.runner == "warm" else []
    except ConclaveError as error:
        fail(str(error), NOT_UP)
    finally:
        ray.shutdown()
    say(f"{len(hosts)} agent hosts ready ({time.monotonic() - started:.1f} s)")


def _show(found: StackStatus) -> None:
    if found.prefect is None:
        say(f"the stack of {found.home} is not up: `conclave up` starts it")
        return
    for name, part in found.parts.items():
        notes = ", ".join(_notes(part, DATABASES.get(found.database or "") if name == "prefect" else None))
        put(f"{name:8} {part.state:9} {part.url or ''}{f'  ({notes})' if notes else ''}")
    put(f"Look at deliberations in Prefect's UI: {found.prefect.removesuffix('/api')}")
    if found.parts["prefect"].state != "external":
        put(f"Log in there first: it asks once for its key, which is in {found.home}/prefect_auth")
    if found.simulated:
        typer.secho("The model server is the SIMULATOR: texts are made up, for rehearsals only.", fg="yellow", err=True)
    if found.open:
        told = "The gateway is OPEN: everybody on this machine may ask, read and cancel everything without a token."
        typer.secho(told, fg="yellow", err=True)
    _show_what_is_wrong(found)


def _show_what_is_wrong(found: StackStatus) -> None:
    for problem in found.problems:
        say(problem)
    if not found.is_up:
        say("Something is wrong: `conclave doctor` says what, `conclave logs PART` shows why")


def _notes(part: PartStatus, database: str | None) -> Iterator[str]:
    if database:
        yield database
    if part.grpc:
        yield f"gRPC at {part.grpc}"
    if part.uptime_s is not None:
        yield f"up {_ago(part.uptime_s)}"
    if part.restarts:
        yield f"died and was started again {part.restarts} x"
    if part.reason:
        yield part.reason


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _stay(chosen: Settings) -> None:
    """Stay until the stack is down or Ctrl-C; tell of every part that changes."""
    from deployments.stack import down as bring_down
    from deployments.stack import status as look

    say("press Ctrl-C to end the stack")
    told: dict[str, tuple[str, int]] = {}
    try:
        while (seen := guarded(lambda: look(chosen, ask=False))).prefect:
            for name, part in seen.parts.items():
                now = (part.state, part.restarts)
                if told.setdefault(name, now) != now:
                    again = "died and was started again, " if part.restarts > told[name][1] else ""
                    say(f"{name}: {again}{part.state}{f' ({part.reason})' if part.reason else ''}")
                    told[name] = now
            time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        bring_down(chosen, say)
