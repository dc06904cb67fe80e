"""Verbs for deliberations: deliberate, watch, result, cancel, retally; and bench."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperOption

from deployments.cli.completion import council_names, rule_names
from deployments.cli.support import FAILED, NOT_UP, examples, fail, guarded, put, run, running_stack, say
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from blocks.record.envelope import Body
    from deployments.client import Client, Result

PANEL = "Deliberations"
MEASURING = "Measuring"

Id = Annotated[str, typer.Argument(metavar="ID", help="The deliberation's id.")]
CANCEL_S = 60.0
"""How long a cancel is waited for where somebody runs the deliberation; two seconds are usual."""
NOT_ASKED = ("id_", "local", "as_json")
"""Parameters of `deliberate` that say how it is run; the others are fields of a request."""
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb, name, epilog in (
        (
            deliberate,
            "deliberate",
            examples(
                'conclave deliberate "Design a rate limiter" --council architect -r "Survives a restart"',
                "conclave deliberate - --json < task.md | jq -r .decision",
                'conclave deliberate "..." --members 5 --quorum 3 --grace 10 --deadline 120',
                'conclave deliberate "..." --id ID   # the same id and request again: resumes, repeats no call',
            ),
        ),
        (watch, "watch", examples("conclave watch ID")),
        (result, "result", examples("conclave result ID", "conclave result ID --json | jq .members")),
        (cancel, "cancel", examples("conclave cancel ID")),
        (deliveries, "deliveries", examples("conclave deliveries ID", "conclave deliveries ID --again 1")),
    ):
        app.command(name=name, epilog=epilog, rich_help_panel=PANEL)(verb)
    app.command(
        cls=_Retally,
        name="retally",
        epilog=examples("conclave retally ID --rule schulze"),
        rich_help_panel=PANEL,
    )(retally)
    app.command(
        rich_help_panel=MEASURING,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(bench)


def deliberate(
    task: Annotated[str, typer.Argument(help="What the council decides; - reads it from standard input.")],
    council: Annotated[
        str, typer.Option("--council", "-c", help="Name of the council.", autocompletion=council_names)
    ] = "dev",
    rubric: Annotated[str | None, typer.Option(help="How proposals are judged.")] = None,
    requirements: Annotated[
        list[str] | None, typer.Option("--requirement", "-r", help="What a proposal has to meet; repeatable.")
    ] = None,
    answer_format: Annotated[
        str | None, typer.Option(help="Of a closed answer: number, text-exact, or a choice's options: yes,no.")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="propose: checks decide; rank: blind ballots; synthesize: a chairman, then; "
            "escalate: one member, more of them where the answers differ."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How often authors revise their proposals, 0 to 3; the council's own.")
    ] = None,
    members: Annotated[int | None, typer.Option(help="The council's first N members, or more in their roles.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Answers that decide; more than half where left out.")] = None,
    grace_s: Annotated[
        float | None, typer.Option("--grace", help="Seconds to wait after the quorum; to the deadline.")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", help="Seconds for the deliberation; the council's own.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Its id; the same id again resumes.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Run it in this process, to debug it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a council decide a task: watch its members answer, then read the decision.

    The gateway takes it, a worker runs it. The decision goes to standard output, the members to standard error. Ctrl-C
    once cancels it, twice leaves.
    Exit code: 0 decided, 3 degraded, 4 timeout, 5 cancelled, 1 failed, 2 wrong use, 6 stack not up.
    """
    fields = {name: value for name, value in locals().items() if name not in NOT_ASKED}
    if task == "-":
        fields["task"] = guarded(_standard_input)
    if answer_format is not None:
        from tasks.council.closed_answers import format_of

        fields["answer_format"] = guarded(lambda: format_of(answer_format))
    if local:
        _run_here(fields, id_, as_json)
    _run_there(fields, id_, as_json)


def _run_there(fields: dict[str, Any], deliberation_id: str | None, as_json: bool) -> NoReturn:
    """Ask the gateway for it, and follow it to its end."""
    from deployments.cli.gateway import asked, client

    gateway = client()
    receipt = asked(lambda: gateway.submit(**fields, id=deliberation_id))
    _follow(gateway, receipt.id, as_json)


def _follow(gateway: Client, deliberation_id: str, as_json: bool) -> NoReturn:
    """Show a deliberation up to its end; Ctrl-C asks for its cancel, and a second one leaves."""
    from deployments.cli.gateway import asked, show_events
    from deployments.terminal import TerminalWatcher

    watcher = TerminalWatcher()
    try:
        asked(lambda: show_events(gateway.events(deliberation_id), watcher))
    except KeyboardInterrupt:
        say("cancelling; press Ctrl-C again to leave at once")
        gateway.close()
        asked(lambda: gateway.cancel(deliberation_id))
    _present(asked(lambda: gateway.wait(deliberation_id)).body, as_json)


def _run_here(fields: dict[str, Any], id_: str | None, as_json: bool) -> NoReturn:
    """Run it in this process."""
    from tasks.council.models import DeliberationRequest, check_id

    guarded(lambda: (DeliberationRequest.read(fields), check_id(id_ or "new")))
    stack = running_stack()
    from deployments.local_run import run_deliberation
    from deployments.starts import at_will, starting
    from deployments.terminal import TerminalWatcher

    starts = starting(Path(stack.home)) if stack.database == "sqlite" else at_will()
    _present(run(run_deliberation(fields, id_ or str(uuid.uuid4()), TerminalWatcher(), starts)), as_json)


def _standard_input() -> str:
    """What is read there. Raises WrongUse where it is no UTF-8."""
    from tasks.council.exceptions import WrongUse

    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise WrongUse(f"standard input: it is not UTF-8 (byte {error.start})") from None


def watch(deliberation_id: Id, as_json: AsJson = False) -> None:
    """Follow a deliberation that runs elsewhere until it ends, then show its result.

    Ctrl-C only stops watching. Exit codes as for deliberate.
    """
    from deployments.cli.gateway import asked, client, show_events
    from deployments.terminal import TerminalWatcher

    gateway = client()
    _tell_who_runs_it(gateway, asked(lambda: gateway.result(deliberation_id)))
    try:
        asked(lambda: show_events(gateway.events(deliberation_id), TerminalWatcher()))
        found = asked(lambda: gateway.wait(deliberation_id))
    except KeyboardInterrupt:
        say("no longer watching; the deliberation goes on")
        raise typer.Exit(FAILED) from None
    _present(found.body, as_json)


def _tell_who_runs_it(gateway: Client, found: Result) -> None:
    """Say that nobody does where no worker is there."""
    from deployments.cli.gateway import asked

    workers = asked(gateway.ready)["dependencies"].get("workers", {"ok": True})
    if not found.final and not workers["ok"]:
        say("no worker takes deliberations just now: it goes on once one does; `conclave status` says more")


def result(deliberation_id: Id, as_json: AsJson = False) -> None:
    """Show the result of an earlier deliberation, or how far one is."""
    from deployments.cli.gateway import asked, client

    _present(asked(lambda: client().result(deliberation_id)).body, as_json)


def cancel(deliberation_id: Id) -> None:
    """Stop a running deliberation, or a batch; its members' calls are closed.

    Exit code 0 when it is cancelled, 1 where it had already ended otherwise, 6 where nobody is running it.
    """
    from deployments.cli.gateway import asked, client

    gateway = client()
    if asked(lambda: _batch_was_asked_to_stop(gateway, deliberation_id)):
        return
    before = asked(lambda: gateway.result(deliberation_id))
    if before.final and before.status != "CANCELLED":
        fail(f"{deliberation_id} had already ended: {before.status}", FAILED)
    asked(lambda: gateway.cancel(deliberation_id))
    try:
        after = asked(lambda: gateway.wait(deliberation_id, CANCEL_S)).status
    except TimeoutError:
        fail(f"{deliberation_id} is asked to stop, but nobody is running it; it will stop when it is taken up", NOT_UP)
    say(f"{deliberation_id} is cancelled" if after == "CANCELLED" else f"{deliberation_id} ended first: {after}")
    if after != "CANCELLED":
        raise typer.Exit(FAILED)


def _batch_was_asked_to_stop(gateway: Client, batch_id: str) -> bool:
    """Whether there is a batch of that id, which is asked to stop."""
    from deployments.client import GatewayError

    try:
        batch = gateway.cancel_batch(batch_id)
    except GatewayError as error:
        if error.type != "unknown-batch":
            raise
        return False
    say(f"batch {batch_id} is asked to stop: {batch['status']}")
    return True


def deliveries(
    deliberation_id: Id,
    again: Annotated[int | None, typer.Option(min=1, metavar="N", help="Send the N-th again, now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every try.")] = False,
) -> None:
    """Show who is told of the end of a deliberation, and what became of that."""
    from deployments.cli.gateway import asked, client

    gateway = client()
    if again is not None:
        asked(lambda: gateway.deliver_again(deliberation_id, again))
    found = asked(lambda: gateway.deliveries(deliberation_id))
    if as_json:
        typer.echo(plain_json(found))
        return
    for one in found:
        last = one["tries"][-1] if one["tries"] else {}
        told = last.get("detail") or last.get("status") or ""
        following = f"next try {one['next_at']}" if one["next_at"] and one["tries"] else ""
        put("  ".join(filter(None, [f"{one['number']}", f"{one['state']:9}", one["target"], str(told), following])))
    if not found:
        say("nobody is told of its end, or it has not ended")


class _Retally(TyperCommand):
    """The verb `retally`: its help tells the rules, which are imported where it is shown and not with every verb."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from tasks.council.voting.rules.registry import DEFAULT, RULES

        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "rule":
                told = "; ".join(f"{rule.name}: {rule.words}" for rule in RULES.values())
                parameter.help = f"What a proposal's score is. {told}."
                parameter.default = DEFAULT
        super().format_help(ctx, formatter)


def retally(
    deliberation_id: Id,
    rule: Annotated[str | None, typer.Option(autocompletion=rule_names)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, by item.")] = False,
) -> None:
    """Tally the ballots of an earlier deliberation by another rule, without a model call; the decision stands."""
    running_stack()
    from deployments.retally import retally as tally_again
    from deployments.terminal import show_tally, stdout
    from tasks.council.voting.rules.registry import DEFAULT

    found = run(tally_again(deliberation_id, DEFAULT if rule is None else rule))
    if as_json:
        typer.echo(plain_json({item: outcome.model_dump(mode="json") for item, outcome in found.items()}))
        return
    console = stdout()
    for item, outcome in found.items():
        show_tally(item, outcome, console)


def bench(context: typer.Context) -> None:
    """Measure this machine: Conclave beside a plain client and its peers. `conclave bench --help` has the options."""
    from deployments.bench import main as bench_main

    raise typer.Exit(bench_main(context.args))


def _present(found: Body, as_json: bool) -> NoReturn:
    from deployments.cli.support import exit_code
    from deployments.terminal import show_result, stdout

    if as_json:
        typer.echo(plain_json(found))
    else:
        show_result(found, stdout(), _where(found))
    raise typer.Exit(exit_code(found))


def _where(found: Body) -> list[str]:
    run_url = found["links"].get("prefect_run")
    lines = [f"Report in Prefect's UI: {run_url}"] if run_url else []
    return [*lines, f"Again, as JSON: conclave result {found['id']} --json"]
