"""What the gateway answers, as data; and what both clients share: when a call is tried again, how events are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tasks.council.exceptions import ConclaveError

TRIES = 5
AGAIN_S = 0.5
MAX_AGAIN_S = 120.0
WORTH_A_RETRY = (429, 503)
SILENT_S = 60.0
"""How long a stream of events may bring nothing, not even a heartbeat."""
WAIT_S = 30.0
"""How long one question for a result waits; it is asked again until its time is over."""


class GatewayError(ConclaveError):
    """The gateway's answer is an error (RFC 9457): `status`, `type`, `field` where one is wrong, and its document."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status, self.document, self.retry_after_s = status, dict(document), retry_after_s
        self.type, self.field = str(document.get("type", "about:blank")), document.get("field")
        super().__init__(str(document.get("detail") or document.get("title") or f"HTTP status {status}"))


class GatewayAway(ConclaveError):
    """No gateway answers there."""


class BrokenOff(GatewayAway):
    """A stream of events that had brought something ended before its end."""


class NothingFollows(ConclaveError):
    """The gateway says that no event follows a cursor any more."""


@dataclass(frozen=True)
class Receipt:
    """What was accepted; `replayed` where it had been before."""

    id: str
    status: str
    replayed: bool


@dataclass(frozen=True)
class Cancelled:
    """How many were asked to stop; `more` where others matched, too, and have to be asked in another call."""

    count: int
    more: bool


@dataclass(frozen=True)
class Result:
    """A deliberation as far as it is; `body` has all that the gateway answers."""

    id: str
    status: str
    degraded: bool
    decision: str | None
    winner_id: str | None
    body: dict[str, Any] = field(repr=False)

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.status not in ("PENDING", "IN_PROGRESS")


@dataclass(frozen=True)
class Event:
    """What happened: `plan`, `started`, `answer`, `stage`, `decision`, `progress` or `finished`; `id` is a cursor."""

    kind: str
    id: str
    data: dict[str, Any]


def result_in(body: dict[str, Any]) -> Result:
    """The result that was answered."""
    return Result(
        body["id"], body["status"], bool(body.get("degraded")), body.get("decision"), body.get("winner_id"), body
    )


def submission(fields: dict[str, Any], key: str | None) -> tuple[bytes, dict[str, str]]:
    """The body and headers that ask for a deliberation; a key of its own makes it safe to send again."""
    asked = {name: value for name, value in fields.items() if value is not None}
    headers = {"Content-Type": "application/json"}
    if key is not None or "id" not in asked:
        headers["Idempotency-Key"] = key or str(uuid.uuid4())
    return json.dumps(asked).encode(), headers


def json_of(body: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """A body as it is sent, and its header."""
    return json.dumps(body, ensure_ascii=False).encode(), {"Content-Type": "application/json"}


def row_in(line: bytes) -> dict[str, Any] | None:
    """The decided row in a line; None in one that says only that the connection lives."""
    return dict(json.loads(line)) if line.strip() else None


def error_of(status: int, data: bytes, retry_after: str | None) -> GatewayError:
    """The error that was answered."""
    try:
        document = json.loads(data)
    except ValueError:
        document = {}
    seconds = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    return GatewayError(status, document if isinstance(document, dict) else {}, seconds)


def pause_s(error: Exception, tries: int) -> float | None:
    """Seconds until a call is worth another try; None where it is not."""
    if tries >= TRIES:
        return None
    if isinstance(error, GatewayError):
        if error.status not in WORTH_A_RETRY:
            return None
        if error.retry_after_s is not None:
            return min(error.retry_after_s, MAX_AGAIN_S)
    return AGAIN_S * 2 ** (tries - 1)


class Retries:
    """When a call, or a stream that broke off, is tried again; the same for both clients."""

    def __init__(self, allowed: bool) -> None:
        self._allowed, self._tries = allowed, 0

    def heard(self) -> None:
        """Something came: what fails from now on is tried as often as anything new."""
        self._tries = 0

    def pause_s(self, error: GatewayAway | GatewayError) -> float:
        """Seconds until another try is worth while. Raises the error where none is."""
        self._tries = 1 if isinstance(error, BrokenOff) else self._tries + 1
        pause = pause_s(error, self._tries) if self._allowed else None
        if pause is None:
            raise error
        return pause


def address(url: str) -> tuple[bool, str, int, str]:
    """Whether it is https, the host, the port, and what paths begin with. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a gateway, such as http://127.0.0.1:8080")
    secure = parts.scheme == "https"
    return secure, parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/")


def path_of(deliberation_id: str, *more: str, **query: str) -> str:
    """The path of a deliberation, or of something below it."""
    path = "/".join(["/v1/deliberations", quote(deliberation_id, safe=""), *more])
    return f"{path}?{urlencode(query)}" if query else path


def path_of_batch(batch_id: str, *more: str, **query: str) -> str:
    """The path of a batch, or of something below it."""
    path = "/".join(["/v1/batches", quote(batch_id, safe=""), *more])
    return f"{path}?{urlencode(query)}" if query else path


def broken_off(url: str, heard: bool, error: Exception | None = None) -> GatewayAway:
    """A stream of events that ended before its end, and whether it had brought anything, be it a heartbeat."""
    kind = BrokenOff if heard else GatewayAway
    return kind(f"the gateway at {url} has broken off the events" + (f": {error}" if error else ""))


def document_in(url: str, status: int, body: bytes) -> Any:
    """The document of an answer that is no error. Raises GatewayAway where it is none of a gateway."""
    if not 300 <= status < 400:
        try:
            return json.loads(body) if body else None
        except ValueError:
            pass
    raise GatewayAway(f"what answers at {url} is no gateway: status {status}, and no JSON; is the address right?")


def path_of_many(
    council: str | None, status: str | None, metadata: Mapping[str, Any] | None, cursor: str | None = None
) -> str:
    """The path of the deliberations that match; of the list a page begins at its cursor."""
    query = {"council": council, "status": status, "cursor": cursor}
    query |= {f"metadata.{name}": _as_text(value) for name, value in (metadata or {}).items()}
    given = {name: value for name, value in query.items() if value is not None}
    return f"/v1/deliberations?{urlencode(given)}"


def _as_text(value: Any) -> str:
    """A value of metadata as the gateway compares it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class EventLines:
    """Reads server-sent events out of lines (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._kind, self._id = "message", ""
        self._data: list[str] = []

    def take(self, line: bytes) -> Iterator[Event]:
        """The event that this line ends, if it ends one."""
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            kind, data = self._kind, self._data
            self._kind, self._data = "message", []
            if data:
                yield Event(kind, self._id, json.loads("\n".join(data)))
            return
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "id":
            self._id = value
        elif name == "data":
            self._data.append(value)
