"""GitHub's REST API, as far as a council answers there: who may write, comments of an issue, statuses of a commit.

Source: https://docs.github.com/rest, version 2022-11-28. What an answer says of rate limits is told with the error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import aiohttp

from blocks.connections import Close, shared
from blocks.exceptions import GitHubError, ModelServerUnavailable
from blocks.model_http import bearer, bounded, new_session, way_to, without_key
from blocks.refusals import retry_after_s
from tasks.council.plain import SHOWN_BRIEFLY, one_line

API = "https://api.github.com"
MAX_ANSWER = 8 << 20
MAX_PAGES = 10
PAGE = 100
WRITERS = ("admin", "maintain", "write")
"""Permissions that include to push."""
CommitState = Literal["error", "failure", "pending", "success"]


class GitHub:
    """The API of GitHub, or of a GitHub Enterprise, by its address and a token. All methods raise GitHubError.

    Nothing here waits for longer than whoever calls it: time is theirs to bound.
    """

    def __init__(self, api: str, token: str) -> None:
        self._api, self._token = api.rstrip("/"), token

    async def may_write(self, repository: str, login: str) -> bool:
        """Whether somebody may push to a repository."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        try:
            found = await self._ask("GET", path)
        except GitHubError as error:
            if error.status == 404:  # nobody of that name is there
                return False
            raise
        return isinstance(found, dict) and found.get("permission") in WRITERS

    async def has_comment(self, repository: str, number: int, mark: str, since: datetime) -> bool:
        """Whether an issue or pull request has a comment, changed since then, that begins with this mark.

        Anybody may comment there: the mark has to be one that nobody else can know before it is written.
        """
        after = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"/repos/{repository}/issues/{number}/comments?since={after}&per_page={PAGE}&page="
        for page in range(1, MAX_PAGES + 1):
            found = await self._ask("GET", f"{path}{page}")
            comments = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
            if any(str(one.get("body", "")).startswith(mark) for one in comments):
                return True
            if len(comments) < PAGE:
                break
        return False

    async def comment(self, repository: str, number: int, text: str) -> None:
        """Write a comment, in GitHub's Markdown."""
        await self._ask("POST", f"/repos/{repository}/issues/{number}/comments", {"body": text})

    async def set_status(
        self, repository: str, sha: str, state: CommitState, context: str, description: str, url: str | None
    ) -> None:
        """Give a commit a status; of a context the newest one counts. `description` has 140 characters at most."""
        body = {"state": state, "context": context, "description": description}
        await self._ask("POST", f"/repos/{repository}/statuses/{sha}", body | ({"target_url": url} if url else {}))

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        session = await shared("github", _open_session)
        headers = {
            **bearer(self._token),
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "conclave",
        }
        url = self._api + path
        try:
            async with session.request(method, url, json=body, headers=headers, **way_to(url)) as answer:
                data = await bounded(answer, MAX_ANSWER)
                if answer.status >= 300:
                    raise self._refused(answer, data)
        except ModelServerUnavailable as error:
            raise GitHubError(f"GitHub: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise GitHubError(f"GitHub does not answer: {one_line(str(error), SHOWN_BRIEFLY)}") from error
        try:
            return json.loads(data or b"null")
        except (ValueError, RecursionError) as error:
            raise GitHubError("GitHub's answer is no JSON") from error

    def _refused(self, answer: aiohttp.ClientResponse, data: bytes) -> GitHubError:
        told = one_line(_message(without_key(data, self._token)), SHOWN_BRIEFLY)
        return GitHubError(f"GitHub answers {answer.status}: {told}", answer.status, _pause_s(answer.headers))


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return data.decode(errors="replace")


def _pause_s(headers: Mapping[str, str]) -> float | None:
    """How long GitHub wants not to be asked: `Retry-After`, or the time until its rate limit begins anew."""
    asked = retry_after_s(headers)
    if asked is not None or headers.get("X-RateLimit-Remaining") != "0":
        return asked
    reset = headers.get("X-RateLimit-Reset", "")
    return max(0.0, int(reset) - time.time()) if reset.isascii() and reset.isdecimal() and len(reset) < 12 else None


async def _open_session() -> tuple[aiohttp.ClientSession, Close]:
    session = new_session()
    return session, session.close
