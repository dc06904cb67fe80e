"""What a body may weigh that is sent to our own Prefect server: an ASGI middleware, before Prefect parses or stores it.

Prefect stores parameters however deep they are nested, and reads them back by recursion: one flow run with a value of
some hundred levels, and from then on every list of flow runs fails, for everybody. So does a whole number of more than
64 bits, and half a character (`"\\ud800"`). The schema of a deployment refuses a deep value, but a call may switch that
off (`enforce_parameter_schema`), and other routes have no schema.

Each piece of a body is looked at as it comes, with a few operations at C speed, so the event loop never stands still
for it: what stands in strings is cut out, brackets and commas of the rest are counted.

Prefect's form sends a JSON field as a string (`{"__prefect_kind": "json", "value": "..."}`), which Prefect parses
after the middleware (`prefect/utilities/schema_tools/hydration.py`); that string has the same bounds.
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_DEPTH = 64
"""Levels of lists and objects in a body; a flow run's parameters have some of them around what a user sent."""
MAX_NODES = 1_000_000
"""Values in a body."""
MAX_CHECKED_NODES = 100_000
"""Values where Prefect holds a body against a deployment's schema, which takes some 0.1 ms of its loop for each."""
MAX_BYTES = 96 << 20
"""Bytes of a body; Prefect bounds the parameters inside by a setting of its own."""

Message = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]|\xed[\xa0-\xbf]"
)
"""Half of a character, escaped or in bytes that a parser takes though they are no UTF-8."""
_WHOLE = re.compile(rb"(?<![\d.eE+-])-?\d{19,}(?![\d.eE])")
_NUMERIC = b"0123456789.eE+-"
_MAX_DIGITS = 4_000
_STRUCTURE = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))


class TooMuch(ValueError):
    """A body that is not taken; the text says what of it."""

    def __init__(self, said: str, status: int = 422) -> None:
        super().__init__(said)
        self.status = status


class Bounds:
    """Reads a body piece by piece, and knows where it is: in a string or not, and how deep."""

    def __init__(self, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES) -> None:
        self._max_depth, self._max_nodes = max_depth, max_nodes
        self._rest = b""
        self._in_string = False
        self._number = b""
        self._depth = self._nodes = 0

    def read(self, piece: bytes) -> None:
        """Take the next piece. Raises TooMuch."""
        if b"\0" in piece:  # JSON in UTF-16 or UTF-32, which a parser would take
            raise TooMuch("body: is no JSON in UTF-8")
        data = self._rest + piece
        backslashes = len(data) - len(data.rstrip(b"\\"))
        self._rest = data[len(data) - backslashes % 2 :]  # escapes what the next piece begins with
        data = data[: len(data) - backslashes % 2]
        parts = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b" ".join(parts[1 if self._in_string else 0 :: 2])
        self._in_string ^= len(parts) % 2 == 0
        self._count(outside)
        self._check_numbers(outside)

    def end(self, body: bytes | bytearray) -> None:
        """Look at the whole body, once there is no next piece. Raises TooMuch."""
        self._check_numbers(b" ")
        if (b"\\ud" in body or b"\\uD" in body or b"\xed" in body) and _HALF.search(body.replace(b"\\\\", b"__")):
            raise TooMuch("body: has half a character in it")

    def _check_numbers(self, outside: bytes) -> None:
        text = self._number + outside
        self._number = text[len(text.rstrip(_NUMERIC)) :]  # a number that the next piece may go on with
        if len(self._number) > _MAX_DIGITS:
            raise TooMuch("body: has a number of too many digits")
        for number in _WHOLE.findall(text[: len(text) - len(self._number)]):
            if len(number) > _MAX_DIGITS or not -(1 << 63) <= int(number) < 1 << 64:
                raise TooMuch("body: has a whole number of more than 64 bits")

    def _count(self, outside: bytes) -> None:
        brackets = outside.translate(None, _OTHERS)
        opened = brackets.count(b"[") + brackets.count(b"{")
        self._nodes += opened + outside.count(b",")
        if self._nodes > self._max_nodes:
            raise TooMuch(f"body: has more than {self._max_nodes:,} values")
        if self._depth + opened <= self._max_depth:
            self._depth = max(0, self._depth + 2 * opened - len(brackets))
            return
        for bracket in brackets:
            self._depth = self._depth + 1 if bracket in b"[{" else max(0, self._depth - 1)
            if self._depth > self._max_depth:
                raise TooMuch(f"body: is nested more than {self._max_depth} deep")


class BodyBounds:
    """Refuses a body of more than it may weigh with 422, and one of too many bytes with 413; everything else passes.

    Where the server asks for an auth string, the body of a request without it is not read here: the app refuses it.
    """

    def __init__(self, app: App, max_bytes: int = MAX_BYTES, auth: str | None = None) -> None:
        self._app, self._max_bytes = app, max_bytes
        self._key = auth.encode() if auth else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Read the body, then let the app read it again."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or not self._has_key(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except TooMuch as error:
            await _refuse(send, error.status, str(error))
            return
        if body is None:
            return  # whoever sent it has gone
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, again, send)

    def _has_key(self, scope: MutableMapping[str, Any]) -> bool:
        if self._key is None:
            return True
        given = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        # As Prefect reads it (`server/api/server.py`, `token_validation`): whoever it lets in is read here, too.
        words = given.decode("latin-1").split()
        try:
            key = base64.b64decode(words[1])
        except (IndexError, ValueError):
            return False
        return hmac.compare_digest(key, self._key)

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | None:
        """The body; None where the sender goes before its end. Raises TooMuch."""
        headers = [(name.lower(), value.lower()) for name, value in scope["headers"]]
        if _announced_bytes(headers) > self._max_bytes:
            raise self._too_long()
        bounds = _bounds_of(scope["path"]) if _is_json(headers) else None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            piece, more = message.get("body", b""), message.get("more_body", False)
            body += piece
            if len(body) > self._max_bytes:
                raise self._too_long()
            if bounds is not None:
                bounds.read(piece)
        if bounds is not None:
            bounds.end(body)
        return bytes(body)

    def _too_long(self) -> TooMuch:
        return TooMuch(f"body: has more than {self._max_bytes:,} bytes", 413)


def bound_bodies() -> None:
    """Let every app that Prefect's server makes in this process have the bounds, and what it parses later."""
    from prefect.server.api import server
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    bound_hydration()
    create: Callable[..., Any] = server.create_app

    @functools.wraps(create)
    def bounded(*arguments: Any, **options: Any) -> Any:
        app = create(*arguments, **options)
        if not any(one.cls is BodyBounds for one in app.user_middleware):
            app.add_middleware(BodyBounds, auth=PREFECT_SERVER_API_AUTH_STRING.value() or None)
        return app

    setattr(server, create.__name__, bounded)


def bound_hydration() -> None:
    """Let Prefect make nothing out of a body that it would not have taken in one: parsed JSON, rendered templates."""
    from prefect.utilities.schema_tools import hydration

    parse, render = hydration._handlers["json"], hydration._handlers["jinja"]

    @functools.wraps(parse)
    def bounded(given: dict[str, Any], context: hydration.HydrationContext) -> Any:
        text = given.get("value")
        if isinstance(text, dict):  # made by another of Prefect's kinds, once: a template may come out otherwise again
            text = hydration._hydrate(text, context)
            if not isinstance(text, str):
                return text
        if isinstance(text, str):
            try:
                check(text.encode(errors="surrogatepass"))
            except TooMuch as error:
                return hydration.InvalidJSON(detail=str(error))
            return parse({**given, "value": text}, context)
        return parse(given, context)

    @functools.wraps(render)
    def whole(given: dict[str, Any], context: hydration.HydrationContext) -> Any:
        text = render(given, context)
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
            return hydration.InvalidJinja(detail="has half a character in it")
        return text

    hydration.handler("json")(bounded)
    hydration.handler("jinja")(whole)


def check(body: bytes) -> None:
    """Hold a whole JSON text against the bounds of what Prefect checks by a schema. Raises TooMuch."""
    bounds = Bounds(max_nodes=MAX_CHECKED_NODES)
    bounds.read(body)
    bounds.end(body)


def _announced_bytes(headers: Headers) -> int:
    """The length that a body is announced with, the largest where there are several; 0 without one."""
    return max((_number(value) for name, value in headers if name == b"content-length"), default=0)


def _is_json(headers: Headers) -> bool:
    """Whether Prefect reads the body as JSON, as it does one of no type at all."""
    types = [value for name, value in headers if name == b"content-type"]
    return not types or any(b"json" in value for value in types)


def _bounds_of(path: str) -> Bounds:
    """Tighter ones where Prefect holds the body against a deployment's schema."""
    checked = path.rstrip("/").endswith("/create_flow_run") or "/create_flow_run/" in path
    return Bounds(max_nodes=MAX_CHECKED_NODES if checked else MAX_NODES)


async def _refuse(send: Send, status: int, said: str) -> None:
    body = json.dumps({"detail": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 20 else 0
