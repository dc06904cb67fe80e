"""Verbs for the gateway's tokens: create, list, revoke. They speak to NATS, whose credentials are right enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.support import examples, guarded, on_record, put, say
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from blocks.record.events import Record
    from tasks.access.tokens import Token

app = typer.Typer(no_args_is_help=True, help="Who may use the gateway: bearer tokens, their rights and limits.")


@app.command(
    epilog=examples(
        "conclave tokens create ci",
        "conclave tokens create dashboard --scope read --expires 30",
        "conclave tokens create team-a --council dev --council qa --tokens-a-day 1000000 --at-once 20",
    )
)
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="submit: ask, and see and cancel one's own (if left out); read: see all; admin: all that. Repeatable."
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="Whose deliberations and idempotency keys are its own; give that of the token it replaces."),
    ] = None,
    expires: Annotated[float | None, typer.Option(help="Days that it counts; for ever if left out.")] = None,
    council: Annotated[
        list[str] | None, typer.Option(help="The only council that it may ask; repeatable; all if left out.")
    ] = None,
    tokens_a_day: Annotated[
        int | None, typer.Option(help="Model tokens that its owner may use in a day (UTC).")
    ] = None,
    at_once: Annotated[int | None, typer.Option(help="Deliberations that its owner may have open.")] = None,
) -> None:
    """Make a token and print it, once: only its digest is kept."""
    from tasks.access import tokens
    from tasks.deliberations.councils import require_known

    scopes = tuple(scope or ["submit"])
    token, text = guarded(
        lambda: tokens.make(name, scopes, owner, expires, tuple(council or ()), tokens_a_day, at_once)  # type: ignore[arg-type]
    )

    async def keep(record: Record) -> None:
        await require_known(record, token.councils or ())
        await tokens.keep(record, token)

    on_record(keep)
    say(f"token {token.id} for {token.name}, owner {token.owner}: {', '.join(token.scopes)}. It is shown this once:")
    put(text)


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="As JSON, without digests.")] = False) -> None:
    """List the tokens; what lets somebody in is not kept, and so not shown."""
    from tasks.access import tokens

    found = on_record(tokens.listed)
    if as_json:
        typer.echo(plain_json([token.model_dump(mode="json", exclude={"digest"}) for token in found]))
        return
    for token in found:
        put("  ".join([token.id, f"{token.name:20}", f"owner {token.owner}", ",".join(token.scopes), *_limits(token)]))
    if not found:
        say("there are no tokens")


@app.command(epilog=examples("conclave tokens revoke k3b9x0q2mz7a"))
def revoke(token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """Let a token count no more; gateways hear of it within two seconds."""
    from tasks.access import tokens

    token = on_record(lambda record: tokens.revoke(record, token_id))
    say(f"token {token.id} for {token.name} counts no more")


def _limits(token: Token) -> list[str]:
    told = []
    if token.expires_at is not None:
        told.append(f"expires {token.expires_at:%Y-%m-%d %H:%M} UTC")
    if token.councils is not None:
        told.append(f"councils {','.join(token.councils)}")
    if token.tokens_a_day is not None:
        told.append(f"{token.tokens_a_day:,} tokens a day")
    if token.at_once is not None:
        told.append(f"{token.at_once} at once")
    return told
