"""What the verbs share: the stack that is up, how errors end, and how lines are said."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from tasks.council.plain import plain, shortened

if TYPE_CHECKING:
    from blocks.exceptions import ConclaveError
    from blocks.record.events import Record
    from deployments.settings import Settings
    from deployments.stack import StackStatus

FAILED, WRONG_USE, NOT_UP = 1, 2, 6

KEYS = "`conclave env` prints the keys of a stack of ours"

T = TypeVar("T")


def exit_code(result: dict[str, Any]) -> int:
    """0 decided, 3 degraded or not decided (yet, or some items), 4 timeout, 5 cancelled, 1 failed."""
    from tasks.council.models import Status

    status = Status(result["status"])
    if not status.final:
        return 3
    if status is Status.COMPLETED:
        undecided = [item for item in result.get("items", ()) if item["status"] != Status.COMPLETED]
        return 3 if result["degraded"] or undecided else 0
    return {Status.TIMEOUT: 4, Status.CANCELLED: 5}.get(status, 1)


def examples(*lines: str) -> str:
    """The end of a verb's help: how it is typed."""
    return "\n\n".join(["[bold]Examples[/]", *(f"  {line}" for line in lines)])


def settings() -> Settings:
    """The settings; ends with code 2 where one is not usable."""
    from deployments.settings import load_settings

    return guarded(load_settings)


def running_stack() -> StackStatus:
    """The stack that is up, with its environment taken on. Ends with code 6 where there is none."""
    from deployments.stack import check_keys, status

    found = guarded(lambda: status(settings(), ask=False))
    if found.prefect is None and not os.environ.get("PREFECT_API_URL"):
        fail("the stack is not up: `conclave up --detach` starts it", NOT_UP)
    guarded(lambda: check_keys(found))
    use(found)
    return found


def use(found: StackStatus) -> None:
    """Take on what a process needs to use this stack; before Prefect and Ray are imported."""
    from deployments.stack import environment
    from deployments.stack.proxies import without_socks

    for name in os.environ.keys() - without_socks(os.environ).keys():
        del os.environ[name]
    os.environ.update(guarded(lambda: environment(found)))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL", "CRITICAL")  # tracebacks while its server is away
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect would put a notice about telemetry between our lines
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # and gRPC its own about servers that go
    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # else Prefect's warnings before its set-up go to the terminal


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run async work; wrong use ends with code 2, absent parts with code 6. A fault in the program is raised."""
    import httpx

    from blocks.exceptions import ConclaveError

    try:
        return asyncio.run(work)
    except ConclaveError as error:
        fail(*_text_and_code(error))
    except httpx.TransportError as error:
        fail(_away(error), NOT_UP)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        fail(f"Prefect's server refuses our key (PREFECT_API_AUTH_STRING); {KEYS}", NOT_UP)
    except RuntimeError as error:
        if not isinstance(error.__cause__, httpx.TransportError):
            raise
        fail(shortened(str(error)), NOT_UP)  # Prefect's client, which says that it cannot reach the API


def on_record(work: Callable[[Record], Awaitable[T]]) -> T:
    """Do work on the record of the home's stack, or of NATS_URL. Ends with code 6 where none is known."""
    from blocks.connections import connections
    from blocks.record.server import JetStreamServer
    from deployments.stack import environment, status

    chosen = settings()
    url = chosen.nats_url or guarded(lambda: environment(status(chosen, ask=False))).get("NATS_URL")
    if url is None:
        fail("the stack is not up: `conclave up --detach` starts it, or NATS_URL names a server", NOT_UP)
    server = JetStreamServer(servers=url.split(","), patience_s=5)

    async def worked() -> T:
        async with connections():
            return await work(await server.record())

    return run(worked())


def _text_and_code(error: ConclaveError) -> tuple[str, int]:
    """What is said of an error of ours, and the code that the command ends with."""
    from blocks.exceptions import (
        NotDecided,
        OtherInstallation,
        PrefectRefused,
        RecordRefused,
        RecordUnreadable,
        WrongUse,
    )

    said = shortened(str(error))
    if isinstance(error, WrongUse):
        return said, WRONG_USE
    if isinstance(error, NotDecided):
        return said, FAILED
    if isinstance(error, RecordUnreadable):
        return f"what stands on the record cannot be read: {said}", FAILED
    if isinstance(error, OtherInstallation):
        return str(error), NOT_UP
    if isinstance(error, PrefectRefused | RecordRefused):
        return f"{said}; {KEYS}", NOT_UP
    return _away(error), NOT_UP


def _away(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(str(error))}; `conclave doctor` says which part is away"


def guarded(call: Callable[[], T]) -> T:
    """Call; wrong use and what is wrong with the stack end with their code and one line."""
    from deployments.stack import StackError
    from tasks.council.exceptions import WrongUse

    try:
        return call()
    except StackError as error:
        fail(str(error), NOT_UP)
    except WrongUse as error:
        fail(shortened(str(error)), WRONG_USE)


def say(text: str) -> None:
    """A line on standard error, where everything but the answer goes."""
    typer.echo(plain(text), err=True)


def put(text: str) -> None:
    """A line of the answer, on standard output."""
    typer.echo(plain(text))


def fail(text: str, code: int) -> NoReturn:
    """Say what is wrong and end with a code."""
    typer.secho(f"conclave: {plain(text)}", fg="red", err=True)
    raise typer.Exit(code)
