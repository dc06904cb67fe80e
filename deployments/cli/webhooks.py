"""Verbs for webhooks: which the file has, and one delivery to try."""

from __future__ import annotations

import http.client
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.gateway import code_of, gateway_url
from deployments.cli.support import NOT_UP, WRONG_USE, examples, fail, guarded, put, say, settings
from tasks.council.plain import plain_json

if TYPE_CHECKING:
    from deployments.webhooks.configuration import Webhook

WAIT_S = 60.0

app = typer.Typer(no_args_is_help=True, help="Webhooks: signed deliveries of others that become deliberations.")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the webhooks of the file that CONCLAVE_WEBHOOKS names, and whether their secrets can be had."""
    found = _webhooks()
    lines = [_line(webhook) for webhook in found.values()]
    if as_json:
        typer.echo(plain_json(lines))
        return
    for line in lines:
        secrets = f"{len(line['secrets'])} secret{'s' if len(line['secrets']) > 1 else ''}"
        put("  ".join([f"{line['name']:20}", f"{line['signature']:8}", line["path"], line["problem"] or secrets]))


@app.command(
    epilog=examples(
        "conclave webhooks test github",
        "conclave webhooks test github --payload delivery.json --url https://conclave.example.org",
    )
)
def test(
    name: Annotated[str, typer.Argument(help="Which webhook.")],
    payload: Annotated[
        Path | None, typer.Option(help="A file with the JSON object to deliver; the `sample` in the file if left out.")
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option("--id", help="Of the delivery; new if left out. GitHub's form goes by the payload alone."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Of the gateway; CONCLAVE_URL, or that of the stack here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Deliver a signed sample as its sender would, and show what became of it."""
    from deployments.webhooks.signatures import signed

    webhook = _named(name)
    body = json.dumps(_payload(webhook, payload), ensure_ascii=False).encode()
    secret = _secret(webhook)
    headers = signed(webhook.signature, secret, delivery or f"test_{uuid.uuid4().hex}", datetime.now(UTC), body)
    status, answer, again = _post(url, f"/v1/webhooks/{webhook.name}", body, headers)
    if as_json:
        typer.echo(plain_json({"status": status, "answer": answer, "replayed": again}))
    else:
        put(_told(webhook, status, answer, again))
    if status >= 300:
        raise typer.Exit(code_of(status))


def _webhooks() -> dict[str, Webhook]:
    from deployments.webhooks.configuration import read_webhooks

    path = settings().webhooks
    if path is None:
        fail("CONCLAVE_WEBHOOKS: names no file; docs/examples/webhooks.yaml is one", WRONG_USE)
    return guarded(lambda: read_webhooks(path))


def _named(name: str) -> Webhook:
    found = _webhooks()
    if name not in found:
        fail(f"name: there is no webhook {name!r}; there are {', '.join(found)}", WRONG_USE)
    return found[name]


def _secret(webhook: Webhook) -> str:
    """The secret that is signed with: the first that can be had. Ends with code 2 where there is none."""
    found, problems = webhook.read_secrets()
    if not found:
        fail(str(problems[0]), WRONG_USE)
    return found[0]


def _line(webhook: Webhook) -> dict[str, Any]:
    problems = webhook.problems()
    return {
        "name": webhook.name,
        "signature": webhook.signature,
        "path": f"/v1/webhooks/{webhook.name}",
        "secrets": [str(one) for one in webhook.secrets],
        "problem": str(problems[0]) if problems else None,
    }


def _payload(webhook: Webhook, path: Path | None) -> dict[str, Any]:
    """What is delivered. Ends with code 2 where there is none."""
    from blocks.files import read_regular
    from deployments.event_files import MAX_BYTES

    if path is None:
        if webhook.sample is None:
            fail(f"--payload: webhook {webhook.name!r} has no `sample` in the file: which file is it?", WRONG_USE)
        return webhook.sample
    try:
        found = json.loads(read_regular(path, MAX_BYTES))
    except OSError as error:
        fail(f"--payload: {path}: {error.strerror or error}", WRONG_USE)
    except (ValueError, RecursionError):
        fail(f"--payload: {path} is no JSON", WRONG_USE)
    if not isinstance(found, dict):
        fail(f"--payload: {path} is no JSON object", WRONG_USE)
    return found


def _post(url: str | None, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any], bool]:
    """What the gateway answers a delivery, and whether it had come before.

    Ends with code 6 where it does not answer, and 2 where the URL is none.
    """
    from deployments.client.answers import address

    try:
        secure, host, port, below = address(url or gateway_url())
    except ValueError as error:
        fail(f"--url or CONCLAVE_URL: {error}", WRONG_USE)
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, port, timeout=WAIT_S)
    try:
        connection.request("POST", below + path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if not isinstance(document, dict):
            raise ValueError(document)
        return answer.status, document, answer.getheader("Idempotency-Replayed") == "true"
    except (OSError, http.client.HTTPException) as error:
        fail(f"the gateway at {host}:{port} does not answer: {error}", NOT_UP)
    except ValueError:
        fail(f"what answers at {host}:{port} is no gateway", NOT_UP)
    finally:
        connection.close()


def _told(webhook: Webhook, status: int, answer: dict[str, Any], again: bool) -> str:
    """What became of a delivery, in a line."""
    if status == 202:
        before = ", as this delivery came before" if again else ""
        return f"{answer['id']}  {answer['status']}{before}; `conclave watch {answer['id']}` follows it"
    if status < 300:
        return f"passed over: {answer.get('reason', '')}"
    say(f"webhook {webhook.name!r} was refused:")
    return f"{status} {answer.get('type', '')}: {answer.get('detail', '')}"
