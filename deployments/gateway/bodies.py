"""Bodies of requests: JSON of a bounded size, sent in a bounded time, and read beside the loop where it is large."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from aiohttp import web

from deployments.gateway.problems import Problem, bad_request
from tasks.council.models import MAX_AGENDA

T = TypeVar("T")

MAX_BYTES = MAX_AGENDA + (1 << 20)
BODY_S = 30.0
"""How long a body may take to come."""
LARGE = 256 * 1024
"""Bytes from which on a body is read in a thread, since others would wait for it."""


async def json_of(request: web.Request) -> tuple[dict[str, Any], int]:
    """The JSON object that was sent, and its bytes. Raises Problem."""
    if request.content_type != "application/json":
        raise Problem(415, "unsupported-media-type", "Content-Type: application/json is wanted")
    data = await read_body(request, MAX_BYTES)
    return await beside(len(data), lambda: object_in(data)), len(data)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """What was sent, so many bytes at most. Raises Problem."""
    too_large = Problem(413, "too-large", f"the body has more than {max_bytes:,} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while chunk := await request.content.readany():
                found += chunk
                if len(found) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise Problem(408, "slow-body", f"the body did not come within {BODY_S:g} s") from None
    except (ConnectionError, web.RequestPayloadError):
        raise bad_request("the body broke off, or is not encoded as its headers say") from None
    return bytes(found)


def object_in(data: bytes) -> dict[str, Any]:
    """The JSON object that bytes are. Raises Problem."""
    body = _parsed(data)
    if not isinstance(body, dict):
        raise bad_request("the body is no JSON object")
    return body


async def beside(size: int, work: Callable[[], T]) -> T:
    """What work on so many bytes gives, done in a thread where they are many."""
    return await asyncio.to_thread(work) if size > LARGE else work()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        told = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise bad_request(f"the body is no JSON{told}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
