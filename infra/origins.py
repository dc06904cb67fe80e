"""Which pages may call a server that listens on loopback: its own, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnOrigins:
    """ASGI middleware: refuses what a page of another origin sends, and gives the server's pages one origin.

    A browser names the origin of every request that a page may not make unseen; other clients name none. Pages that are
    opened under another of the server's names are sent to the first one, where the user has logged in.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], api: str = "/api") -> None:
        """`origins` as `http://host:port`, the first being the one for pages; `api` is what holds no pages."""
        self._app, self._origins, self._api = app, tuple(origins), api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, send elsewhere, or hand on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            await PlainTextResponse("Foreign origin", status_code=403)(scope, receive, send)
        elif scope["type"] == "http" and (elsewhere := self._page_elsewhere(scope, headers)):
            await RedirectResponse(elsewhere)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _page_elsewhere(self, scope: Scope, headers: Headers) -> str | None:
        """Where a page is that was asked for under another name of this server."""
        path = str(scope["path"])
        is_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        others = {urlsplit(origin).netloc for origin in self._origins[1:]}
        if not is_page or path.startswith(f"{self._api}/") or headers.get("host") not in others:
            return None
        query = scope["query_string"].decode("latin-1")
        return f"{self._origins[0]}{path}{f'?{query}' if query else ''}"
