"""Verbs for the secrets that callbacks are signed with: create, list, revoke. They speak to NATS, as tokens' do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.support import examples, on_record, put, say
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from blocks.record.events import Record
    from tasks.access.signing import SigningSecret

app = typer.Typer(no_args_is_help=True, help="What callbacks are signed with: secrets of the tokens' owners.")


@app.command(epilog=examples("conclave secrets create", "conclave secrets create team-a"))
def create(
    owner: Annotated[
        str, typer.Argument(help="Whose callbacks it signs: the owner of a token; `home` is that of this home's own.")
    ] = "home",
) -> None:
    """Make a secret and print it, once. A second one signs beside the first, until that is revoked."""
    from tasks.access import signing, tokens

    async def made_for(record: Record) -> tuple[SigningSecret, bool]:
        owners = {token.owner for token in await tokens.listed(record)}
        return await signing.create(record, owner), owner in {tokens.HOME, *owners}

    made, is_known = on_record(made_for)
    if not is_known:
        say(f"no token has the owner {owner!r} yet; `conclave tokens list` shows them")
    say(f"secret {made.id} of owner {owner}, in the form of Standard Webhooks. It is shown this once:")
    put(made.secret)


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the secrets that count, by their owners; what they are is not shown again."""
    from tasks.access import signing

    found = on_record(signing.listed)
    if as_json:
        told = {owner: [one.model_dump(mode="json", exclude={"secret"}) for one in own] for owner, own in found.items()}
        typer.echo(plain_json(told))
        return
    for owner, own in found.items():
        for one in own:
            put(f"{one.id}  owner {owner:20}  made {one.created_at:%Y-%m-%d %H:%M} UTC")
    if not found:
        say("there are no secrets: `conclave secrets create` makes one")


@app.command(epilog=examples("conclave secrets revoke 4f0c2a9b1d3e"))
def revoke(secret_id: Annotated[str, typer.Argument(metavar="ID", help="The secret's id.")]) -> None:
    """Let a secret sign no more."""
    from tasks.access import signing

    owner = on_record(lambda record: signing.revoke(record, secret_id))
    say(f"secret {secret_id} of owner {owner} signs no more")
