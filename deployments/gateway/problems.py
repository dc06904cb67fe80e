"""What goes wrong, as `application/problem+json` (RFC 9457): it names the field and tells no internals."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

from tasks.council.exceptions import ConclaveError
from tasks.council.plain import plain, shortened

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


def _field(field: str | None) -> dict[str, Any]:
    return {} if field is None else {"field": shortened(plain(field), 200)}
