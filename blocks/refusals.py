"""What a model server's refusals say, and for how long they are waited out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from tenacity import RetryCallState
from tenacity.stop import stop_base

from blocks.chat import LIMITS, RETRYABLE, read_error
from blocks.exceptions import ModelServerError, ModelServerRefused, ModelServerUnavailable

if TYPE_CHECKING:
    import aiohttp

NOT_IMPLEMENTED = 501
"""HTTP status above 500 that stays."""
MAX_WAIT_S = 86_400.0
"""Longest pause that a server may ask for; the deadline of a call comes sooner."""


def refusal(response: aiohttp.ClientResponse, body: bytes) -> ModelServerError:
    """The error that an answer with another status than 200 is; whether it is worth another attempt is its class."""
    if 300 <= response.status < 400:
        to = urljoin(str(response.url), response.headers.get("Location", ""))
        return ModelServerRefused(
            f"HTTP {response.status}: it redirects {response.method} to {to}; set the server's URL to what is there",
            response.status,
        )
    text = f"HTTP {response.status}: {read_error(body)}"
    if response.status in RETRYABLE or (response.status >= 500 and response.status != NOT_IMPLEMENTED):
        asked_s = retry_after_s(response.headers)
        pause = f" (it asks to be tried again in {asked_s:g} s)" if asked_s else ""
        return ModelServerUnavailable(text + pause, asked_s, limited=response.status in LIMITS)
    return ModelServerRefused(text, response.status)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone for: `retry-after-ms`, or `Retry-After` as seconds or a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        if (told := headers.get(name, "").strip()) and (seconds := _seconds(told, unit_s)) is not None:
            return min(max(0.0, seconds), MAX_WAIT_S)
    return None


def _seconds(told: str, unit_s: float) -> float | None:
    """A number of units, or the time until a date of HTTP (RFC 9110, section 10.2.3)."""
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,12})?", told, re.ASCII):
        return float(told) * unit_s
    try:
        at = parsedate_to_datetime(told)
    except (ValueError, TypeError, OverflowError):
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


class Patience(stop_base):
    """When no further attempt is made: after so many that count, or where the pause would outlast the deadline."""

    def __init__(self, attempts: int, deadline: float) -> None:
        self._left, self._deadline = attempts, deadline

    def __call__(self, state: RetryCallState) -> bool:
        """Called once after each failed attempt, before the pause."""
        error = state.outcome.exception() if state.outcome else None
        if not getattr(error, "limited", False):
            self._left -= 1
        asked = getattr(error, "retry_after_s", None) or 0.0
        return self._left <= 0 or asyncio.get_running_loop().time() + asked > self._deadline
