"""Who asks: bearer tokens, the rate of each, and whether a request comes from a page in somebody's browser."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from aiohttp import web
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import RateLimiter, SlidingWindowCounterRateLimiter

from blocks.record.events import Record
from blocks.refreshed import Refreshed
from deployments.gateway.problems import Problem, bad_request, forbidden, later, unauthorized
from tasks.access import tokens
from tasks.access.texts import parts_of
from tasks.access.tokens import Scope, Token

KEPT_S = 2.0
"""How long a token that was read counts: so late a revocation is heard."""
KEPT = 10_000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ANYBODY = "anybody"


class Authentication:
    """Finds out who asks, and whether they ask too often; `given` are the values of Authorization that came."""

    def __init__(self, record: Record, rate: str, hosts: Collection[str], is_open: bool) -> None:
        self._record, self._open = record, is_open
        self._limit: RateLimitItem = parse(rate)
        self._limiter: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._hosts = frozenset(host.lower() for host in (*LOOPBACK, *hosts))
        self._kept: OrderedDict[str, Refreshed[Token | None]] = OrderedDict()
        self.nobody = _anybody("submit")
        """Who asks where nobody is asked."""

    def check_origin(self, request: web.Request) -> None:
        """Raise Problem where the request names a host that is not ours, or comes from another one's page.

        A name that somebody else's DNS gives 127.0.0.1 is refused by the first, a page elsewhere by the second.
        """
        host = request.headers.get("Host", "")
        if _name_of(host) not in self._hosts:
            told = "Host: it is not one of this gateway's; CONCLAVE_HOSTS names further ones"
            raise Problem(421, "unknown-host", told)
        origin = request.headers.get("Origin")
        if origin is not None and _host_of(origin) != host.lower():
            raise forbidden("Origin: pages of other hosts may not ask")

    async def token(self, given: Sequence[str], scopes: tuple[Scope, ...]) -> Token:
        """The token that a request carries. Raises Problem where it has none with one of these scopes."""
        if self._open and not given:
            return _anybody("admin")
        token = await self._carried(given)
        if not any(map(token.may, scopes)):
            raise forbidden(f"this token has not the scope {' or '.join(scopes)}")
        return token

    async def counts_still(self, given: Sequence[str]) -> bool:
        """Whether a token that was let in has neither been revoked nor expired since. Raises RecordError."""
        if self._open and not given:
            return True
        try:
            await self._carried(given)
        except Problem:
            return False
        return True

    async def until_revoked(self, given: Sequence[str], every_s: float) -> None:
        """Return once a token that was let in counts no more; it is looked at every so many seconds."""
        while await self.counts_still(given):  # noqa: ASYNC110  # NATS is asked
            await asyncio.sleep(every_s)

    async def limit(self, token: Token) -> dict[str, str]:
        """The RateLimit headers of an answer. Raises Problem where it asked too often."""
        allowed = await self._limiter.hit(self._limit, token.id)
        reset_at, remaining = await self._limiter.get_window_stats(self._limit, token.id)
        window_s = self._limit.get_expiry()
        reset_s = min(window_s, max(1, round(reset_at - time.time())))
        headers = {
            "RateLimit-Policy": f'"token";q={self._limit.amount};w={window_s}',
            "RateLimit": f'"token";r={remaining};t={reset_s}',
        }
        if not allowed:
            problem = later(429, "rate-limit", f"more than {self._limit}; try again later", min(reset_s, 120))
            problem.headers |= headers
            raise problem
        return headers

    async def _carried(self, given: Sequence[str]) -> Token:
        if len(given) > 1:
            raise bad_request("Authorization: it stands there twice", "Authorization")
        kind, _, text = (given[0] if given else "").partition(" ")
        parts = parts_of(text.strip())
        if kind.lower() != "bearer":
            raise unauthorized("Authorization: `Bearer cnc_...` is wanted; `conclave tokens create` makes one")
        if parts is None:
            raise unauthorized("Authorization: this is no token, which is cnc_, 12 characters, _ and 43; is it whole?")
        token_id, secret = parts
        token = await self._read(token_id)
        if token is None or not tokens.opens(token, secret):
            raise unauthorized("Authorization: this token is not known")
        if token.has_expired(datetime.now(UTC)):
            raise unauthorized("Authorization: this token has expired")
        return token

    async def _read(self, token_id: str) -> Token | None:
        kept = self._kept.get(token_id)
        if kept is None:
            kept = self._kept[token_id] = Refreshed(lambda: tokens.read(self._record, token_id), KEPT_S)
        self._kept.move_to_end(token_id)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return await kept.get()


def _host_of(origin: str) -> str | None:
    """The host and port of an origin; None of what is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name_of(host: str) -> str:
    """The host without its port."""
    name, separator, port = host.lower().rpartition(":")
    return name if separator and port.isdigit() else host.lower()


def _anybody(scope: Scope) -> Token:
    """Whoever reaches the gateway."""
    return Token(id=ANYBODY, name=ANYBODY, owner=ANYBODY, scopes=(scope,), digest="", created_at=datetime.now(UTC))
