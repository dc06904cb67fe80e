"""What goes wrong, as `application/problem+json` (RFC 9457): it names the field and tells no internals.

What is answered over gRPC in its place is in `rpc/statuses.py`.
"""

from __future__ import annotations

import json
import logging
import uuid
from http import HTTPStatus
from typing import Any

from aiohttp import web

from blocks.exceptions import RecordError
from tasks.council.exceptions import ConclaveError, InvalidRequest
from tasks.council.plain import plain, shortened

_log = logging.getLogger("conclave.gateway")

CONTENT_TYPE = "application/problem+json"
RETRY_S = 5
"""When a client may try again where nothing better is known; clients' libraries wait for 120 s at most."""


class Problem(ConclaveError):
    """An answer that is an error; `more` are further members of its document."""

    def __init__(
        self, status: int, type_: str, detail: str, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.type, self.detail = status, type_, shortened(plain(detail))
        self.headers, self.more = headers or {}, more

    def response(self) -> web.Response:
        """The answer."""
        document = {
            "type": self.type,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        return web.Response(
            status=self.status,
            body=json.dumps(document, ensure_ascii=False).encode(),
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def bad_request(detail: str, field: str | None = None) -> Problem:
    """It cannot be read."""
    return Problem(400, "bad-request", detail, **_field(field))


def invalid(field: str, detail: str) -> Problem:
    """It can be read, and a field of it cannot be."""
    return Problem(422, "invalid-field", detail, **_field(field))


def unauthorized(detail: str) -> Problem:
    """Nobody has said who asks."""
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="conclave"'})


def forbidden(detail: str, field: str | None = None) -> Problem:
    """Who asks may not."""
    return Problem(403, "forbidden", detail, **_field(field))


def unknown(deliberation_id: str) -> Problem:
    """There is no such deliberation, or it is not shown to who asks."""
    return Problem(404, "unknown-deliberation", f"id: no deliberation {deliberation_id!r} is on the record")


def later(status: int, type_: str, detail: str, after_s: float = RETRY_S, **more: Any) -> Problem:
    """It can be tried again."""
    return Problem(status, type_, detail, {"Retry-After": str(max(1, round(after_s)))}, **more)


def told_of(what: str, error: ConclaveError) -> Problem:
    """What is told of an error of this call."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidRequest):
        return invalid(error.field, str(error))
    if isinstance(error, RecordError):
        _log.warning("%s: %s", what, error)
        return later(503, "record-unavailable", "the record does not answer; try again later", RETRY_S)
    return later(503, "unavailable", str(error), RETRY_S)


def fault(what: str, error: Exception) -> Problem:
    """What is told of a fault of ours in this call: the number under which the log has it."""
    number = uuid.uuid4().hex[:12]
    _log.error("%s failed (%s)", what, number, exc_info=error)
    return Problem(500, "internal", f"a fault of the gateway, which its log has under {number}")


def _field(field: str | None) -> dict[str, Any]:
    return {} if field is None else {"field": shortened(plain(field), 200)}
