"""Whom the end of a deliberation is told to: a URL, or an issue of GitHub's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from tasks.council.base import CallbackUrl, Frozen, Name


def _named(repository: str) -> str:
    """The repository, if it has a name: its path is part of URLs. Raises ValueError."""
    if repository.endswith(("/.", "/..")):
        raise ValueError("must be owner/name")
    return repository


Repository = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9_.-]{1,100}$"), AfterValidator(_named)
]
"""`owner/name`, as GitHub has them."""


class UrlTarget(Frozen):
    """A receiver of signed events, by Standard Webhooks."""

    kind: Literal["url"] = "url"
    url: CallbackUrl
    by: Literal["request", "council"] = "request"
    secrets_of: Name = Field(description="The owner whose secrets sign what is sent.")

    @property
    def shown(self) -> str:
        """What it is called."""
        return self.url


class CommentTarget(Frozen):
    """An issue or pull request that gets one comment."""

    kind: Literal["github-comment"] = "github-comment"
    webhook: Name = Field(description="Whose access to GitHub is used.")
    repository: Repository
    number: int = Field(ge=1)

    @property
    def shown(self) -> str:
        """What it is called."""
        return f"{self.repository}#{self.number}"


class StatusTarget(Frozen):
    """A commit that gets a status."""

    kind: Literal["github-status"] = "github-status"
    webhook: Name = Field(description="Whose access to GitHub is used.")
    repository: Repository
    sha: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")

    @property
    def shown(self) -> str:
        """What it is called."""
        return f"{self.repository}@{self.sha[:7]}"


Target = Annotated[UrlTarget | CommentTarget | StatusTarget, Field(discriminator="kind")]


def address_in(url: str) -> IPv4Address | IPv6Address | None:
    """The address that a URL names itself; None of one that has a name there."""
    try:
        return ip_address((urlsplit(url).hostname or "").partition("%")[0])
    except ValueError:
        return None
