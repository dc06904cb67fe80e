"""What goes over the wire: JSON bodies, CloudEvents headers, the version of both, and which stream a subject has.

Headers follow the NATS Protocol Binding for CloudEvents v1.0.2, binary mode.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks.record import subjects
from tasks.council.base import NAME_PATTERN, NAME_RULE

Body = dict[str, Any]

STREAM_OF = {
    "requests": subjects.REQUESTS,
    "answers": subjects.ANSWERS,
    "attempts": subjects.ANSWERS,
    "decisions": subjects.DECISIONS,
    "deliberations": subjects.DECISIONS,
    "dead": subjects.DEAD,
    "callbacks": subjects.CALLBACKS,
    "$KV": f"KV_{subjects.STATUS_BUCKET}",
}
VERSION_HEADER = "ce-schemaversion"
SCHEMA_VERSION = 3
"""The latest version of bodies that is read here; a body says its own in the header `ce-schemaversion`.

Readers pass over fields that they do not know, so a body says more than 1 only where a reader of that version would do
the wrong thing (`Deliberation.version`): 2 are plans, requests, closings and decisions of `strategy: escalate`, of a
council with prompts of its own, or with another tally than the first one; 3 are those with a budget."""


@dataclass(frozen=True)
class Event:
    """One event on the record: where it stands, at which sequence of its stream, and its JSON body."""

    subject: str
    sequence: int
    body: Body
    time: datetime | None = None
    """When the server stored it, by the server's clock; None where the server did not say."""


def event_headers(subject: str, event_id: str, kind: str, version: int = 1) -> dict[str, str]:
    """CloudEvents attributes as NATS headers; the trace is the deliberation's, the span the event's.

    `version` is what a reader has to know.
    """
    deliberation = subject.split(".")[1]
    trace = hashlib.sha256(deliberation.encode()).hexdigest()[:32]
    span = hashlib.sha256(event_id.encode()).hexdigest()[:16]
    return {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": f"conclave.{kind}",
        "ce-source": f"/conclave/deliberations/{deliberation}",
        "ce-time": datetime.now(UTC).isoformat(),
        VERSION_HEADER: str(version),
        "ce-traceparent": f"00-{trace}-{span}-01",
        "content-type": "application/json",
    }


def newer(headers: Mapping[str, str]) -> bool:
    """Whether a later version of Conclave wrote what these headers stand before."""
    version = headers.get(VERSION_HEADER, "")
    return version.isdecimal() and (len(version) > 9 or int(version) > SCHEMA_VERSION)


def stream_of(pattern: str) -> str:
    """The stream that keeps subjects of a pattern. Raises ValueError."""
    first = pattern.partition(".")[0]
    if first not in STREAM_OF:
        raise ValueError(f"{pattern!r} belongs to no stream; subjects begin with {', '.join(STREAM_OF)}")
    return STREAM_OF[first]


def check_tokens(subject: str) -> None:
    """An event has a stream and an id, and every token of its subject is a name. Raises ValueError."""
    stream_of(subject)
    tokens = subject.split(".")
    wrong = [token for token in tokens if re.fullmatch(NAME_PATTERN, token) is None]
    if wrong or len(tokens) < 2:
        raise ValueError(f"{subject!r} is no subject of an event: each token is {NAME_RULE}")


def dump(body: Body) -> bytes:
    """A body as it is stored."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def load(data: bytes | None) -> Body:
    """A body as it was stored. Raises ValueError and RecursionError."""
    body = json.loads(data or b"{}")
    return body if isinstance(body, dict) else {"value": body}
