"""The gateway as the verbs use it: the one that the shell names, else that of the home's stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from deployments.cli.support import FAILED, NOT_UP, WRONG_USE, fail, guarded, settings

if TYPE_CHECKING:
    from deployments.client import Client, Event, GatewayError

T = TypeVar("T")

KEYS = "CONCLAVE_TOKEN has it; `conclave env` prints that of a stack of ours"


def client(timeout_s: float = 30.0, retry: bool = True) -> Client:
    """A client of the gateway, whose questions take so long at most.

    Ends with code 6 where none is known, and 2 where CONCLAVE_URL is no URL.
    """
    from deployments.client import Client

    url, token = os.environ.get("CONCLAVE_URL"), os.environ.get("CONCLAVE_TOKEN")
    if not url:
        url, token = _of_home()
    try:
        found = Client(url, token, timeout_s, retry)
    except ValueError as error:
        fail(f"CONCLAVE_URL: {error}", WRONG_USE)
    if token:
        _refuse_stranger(url, token)
    return found


def gateway_url() -> str:
    """Where the gateway is. Ends with code 6 where none is known."""
    return os.environ.get("CONCLAVE_URL") or _of_home()[0]


def _of_home() -> tuple[str, str | None]:
    """Where the gateway of the home's stack is, and the home's token."""
    from deployments.stack.parts import GATEWAY
    from deployments.stack.paths import StackPaths, read_key

    paths = StackPaths.of(settings().home)
    record = guarded(paths.load_record)
    if record is None:
        fail("the stack is not up: `conclave up --detach` starts it", NOT_UP)
    part = record.parts.get(GATEWAY)
    if part is None:
        fail("this stack was started by an older version: `conclave down`, then `conclave up --detach`", NOT_UP)
    return part.url, read_key(paths.token)


def _refuse_stranger(url: str, token: str) -> None:
    """End with code 6 where another user has taken the port of the home's gateway, which its token would be sent to."""
    from deployments.stack.paths import StackPaths, read_key
    from deployments.stack.ports import refuse_stranger

    if token == read_key(StackPaths.of(settings().home).token):
        guarded(lambda: refuse_stranger(url))


def asked(call: Callable[[], T]) -> T:
    """Call the gateway; what it refuses ends with a line and its code."""
    from deployments.client import GatewayAway, GatewayError

    try:
        return call()
    except GatewayError as error:
        refused(error)
    except GatewayAway as error:
        fail(f"{error}; `conclave status` says what is up", NOT_UP)


def refused(error: GatewayError) -> NoReturn:
    """End with what the gateway says, and the code that it stands for."""
    fail(f"{error}; {KEYS}" if error.status == 401 else str(error), code_of(error.status))


def code_of(status: int) -> int:
    """The exit code that a refusal of the gateway's stands for, by its HTTP status."""
    if status in (401, 403, 429, 503):
        return NOT_UP
    return FAILED if status >= 500 else WRONG_USE


def show_events(events: Any, watcher: Any) -> None:
    """Let a watcher show the events of a deliberation, up to its end."""
    from tasks.council.answer import Answer
    from tasks.council.models import Deliberation

    try:
        for event in events:
            told: Event = event
            if told.kind == "plan":
                watcher.began(Deliberation.from_record(told.data))
            elif told.kind == "answer":
                watcher.answered(Answer.from_record(told.data))
    finally:
        watcher.ended()
