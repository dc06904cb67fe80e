"""What Conclave asks of GitHub's REST API, in memory: permissions, comments of an issue, statuses of a commit.

Source: https://docs.github.com/rest, version 2022-11-28. Whatever is written stays readable, so a test or a person can
look at it; a token is wanted, and any one is taken. `wrong` makes the next calls go wrong in ways that GitHub has.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

MAX_COMMENT = 65_536
MAX_DESCRIPTION = 140


class StandIn:
    """The API. `comments` by `owner/name#number`, `statuses` by commit; `calls` are method and path, as they came."""

    def __init__(self, writers: Iterable[str] = ("octocat",), tell: Callable[[str], None] = lambda _: None) -> None:
        self.writers, self._tell = set(writers), tell
        self.comments: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.statuses: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: list[str] = []
        self.wrong: list[Callable[[], web.Response]] = []
        """What the next calls are answered with, in their order."""
        self.slow_s = 0.0

    def application(self) -> web.Application:
        """The application of these routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 20)
        repository = "/repos/{owner}/{name}"
        app.router.add_get(f"{repository}/collaborators/{{login}}/permission", self._permission)
        app.router.add_get(f"{repository}/issues/{{number}}/comments", self._list_comments)
        app.router.add_post(f"{repository}/issues/{{number}}/comments", self._comment)
        app.router.add_post(f"{repository}/statuses/{{sha}}", self._set_status)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        await asyncio.sleep(self.slow_s)
        if self.wrong:
            return self.wrong.pop(0)()
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return refusal(401, "Requires authentication")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _permission(self, request: web.Request) -> web.Response:
        may = request.match_info["login"] in self.writers
        return web.json_response({"permission": "write" if may else "read"})

    async def _list_comments(self, request: web.Request) -> web.Response:
        found = [one for one in self.comments[_issue(request)] if one["updated_at"] >= request.query.get("since", "")]
        page, size = int(request.query.get("page", 1)), int(request.query.get("per_page", 30))
        return web.json_response(found[(page - 1) * size : page * size])

    async def _comment(self, request: web.Request) -> web.Response:
        body = (await request.json())["body"]
        if not 0 < len(body) <= MAX_COMMENT:
            return refusal(422, "Validation Failed")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.comments[_issue(request)].append({"body": body, "created_at": now, "updated_at": now})
        self._tell(f"comment on {_issue(request)}:\n{body}\n")
        return web.json_response({"id": len(self.comments)}, status=201)

    async def _set_status(self, request: web.Request) -> web.Response:
        body = await request.json()
        if len(body.get("description") or "") > MAX_DESCRIPTION:
            return refusal(422, "description is too long (maximum is 140 characters)")
        self.statuses[request.match_info["sha"]].append(body)
        self._tell(f"status of {request.match_info['sha'][:7]}: {body['state']}, {body.get('description')}")
        return web.json_response(body, status=201)


def refusal(status: int, message: str, **headers: str) -> web.Response:
    """An error, as GitHub answers one."""
    return web.json_response({"message": message}, status=status, headers=headers)


def rate_limited(seconds: int) -> web.Response:
    """The primary rate limit: 403, and when it begins anew."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + seconds)}
    return web.json_response({"message": "API rate limit exceeded"}, status=403, headers=headers)


def _issue(request: web.Request) -> str:
    return "{owner}/{name}#{number}".format(**request.match_info)
