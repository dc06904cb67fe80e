"""GitHub, whole: who may convene a council by a label, and which issue and commit its end is told to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from blocks.github_api import API, GitHub
from deployments.webhooks.secret_references import SecretError, SecretReference
from tasks.callbacks.targets import CommentTarget, Repository, StatusTarget, Target
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_INPUT, shortened
from tasks.council.problems import first_problem

Login = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\[bot\])?$")]
"""`ann`, `ann_acme` of an enterprise that manages its users, or `robot[bot]`."""


def _api(url: str) -> str:
    """The address of an API. Raises ValueError."""
    if re.fullmatch(r"https?://[^\s@?#]+", url) is None:
        raise ValueError(f"must be an http or https URL, such as {API}")
    return url


class GitHubEntry(BaseModel):
    """What a webhook's entry says of GitHub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: SecretReference | None = None
    api: Annotated[str, AfterValidator(_api)] = API
    senders: tuple[Login, ...] = ()
    comment: bool = True
    status: bool = True

    @model_validator(mode="after")
    def _somebody_may(self) -> Self:
        if self.token is None and not self.senders:
            raise ValueError("senders: name who may send, or a token, by which GitHub is asked who may write")
        return self

    def beside(self, folder: Path) -> Self:
        """The same, where a path that is not whole begins in this folder. Raises RuntimeError for a `~` of nobody."""
        return self if self.token is None else self.model_copy(update={"token": self.token.beside(folder)})


class _Sender(BaseModel):
    login: Login


class _Repository(BaseModel):
    full_name: Repository


class _Issue(BaseModel):
    number: int = Field(ge=1)


class _Head(BaseModel):
    sha: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")


class _PullRequest(_Issue):
    head: _Head


class Event(BaseModel):
    """What is read of a payload of GitHub's, which has many more fields."""

    sender: _Sender
    repository: _Repository
    issue: _Issue | None = None
    pull_request: _PullRequest | None = None

    @classmethod
    def read(cls, payload: Any) -> Event:
        """The event that a payload is. Raises InvalidRequest that names what is missing."""
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field, f"is not as GitHub sends it: {problem.text}") from None


@dataclass(frozen=True)
class Access:
    """How a webhook reaches GitHub, and who may send by it."""

    webhook: str
    entry: GitHubEntry

    def api(self) -> GitHub | None:
        """The API with the webhook's token; None where it has none. Raises SecretError."""
        if self.entry.token is None:
            return None
        token = self.entry.token.read()
        if re.fullmatch("[!-~]+", token) is None:
            raise SecretError(f"{self.entry.token} is no token: it has blanks or other signs in it")
        return GitHub(self.entry.api, token)

    async def lets_in(self, event: Event) -> bool:
        """Whether who sent an event may convene a council. Raises SecretError and GitHubError."""
        if event.sender.login.lower() in {login.lower() for login in self.entry.senders}:
            return True
        api = self.api()
        return api is not None and await api.may_write(event.repository.full_name, event.sender.login)

    def targets(self, event: Event) -> list[Target]:
        """Whom the end is told to: the issue or pull request, and its commit. None without a token."""
        entry, repository = self.entry, event.repository.full_name
        if entry.token is None:
            return []
        told: list[Target] = []
        about = event.pull_request or event.issue
        if entry.comment and about is not None:
            told.append(CommentTarget(webhook=self.webhook, repository=repository, number=about.number))
        if entry.status and event.pull_request is not None:
            told.append(StatusTarget(webhook=self.webhook, repository=repository, sha=event.pull_request.head.sha))
        return told


def not_let_in(access: Access, event: Event) -> str:
    """What is said where somebody may not."""
    who = shortened(event.sender.login, SHOWN_INPUT)
    if access.entry.token is None:
        return f"sender: {who} is not among the webhook's senders"
    return f"sender: {who} may not write to {event.repository.full_name}, and is not among the webhook's senders"
