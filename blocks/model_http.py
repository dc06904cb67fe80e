"""How a model server is asked over HTTP, whoever asks: the same client, headers, proxy and bounds, and no redirects."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from blocks.exceptions import ModelServerUnavailable
from blocks.urls import proxy_for

MAX_ANSWER_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 64 * 1024
"""Of one header; proxies and clouds send longer ones than aiohttp's own bound of 8 kB."""
KEEPALIVE_S = 4.0
"""Below uvicorn's 5 s: a connection that the server closes while a request is on its way fails it."""


def new_session() -> aiohttp.ClientSession:
    """A client; whoever makes it closes it. Time is bounded by each question."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


def bearer(key: str | None) -> dict[str, str]:
    """The header that a key is sent in; none without one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def way_to(url: str) -> dict[str, Any]:
    """How a request gets to a URL. A redirect is not followed: it would become a GET, and take the key elsewhere."""
    return {"allow_redirects": False, "proxy": proxy_for(url)}


async def bounded(response: aiohttp.ClientResponse, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    """The body. Raises ModelServerUnavailable where it is longer, and so no answer."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise ModelServerUnavailable(f"the answer is longer than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def without_key(body: bytes, key: str | None) -> bytes:
    """An error without our key, should the server repeat it, before any of it is cut or quoted."""
    for written in (key, json.dumps(key)[1:-1], repr(key)[1:-1]) if key else ():
        body = body.replace(written.encode(), b"***")
    return body
