"""The table of routes: what each is called with, what it answers, and who may call it. The spec is made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from deployments.gateway.service import Service
from tasks.access.tokens import Scope, Token


@dataclass(frozen=True)
class Call:
    """A request that was let in: who asks, and what it is answered with."""

    request: web.Request
    service: Service
    token: Token
    headers: dict[str, str]
    """What the answer carries in any case."""


SPEC = web.AppKey("spec", dict[str, Any])
"""Where the application keeps its own spec."""
Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query, the path or a header; `schema` is JSON Schema.

    `explode`: the names of an object are parameters of their own, and an array's are apart by `&` and not by commas.
    """

    name: str
    where: str
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    explode: bool = True


@dataclass(frozen=True)
class Answer:
    """What a status means, and the model of its body; `content` is its media type."""

    description: str
    model: type[BaseModel] | None = None
    content: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One call. A token has to have one of the scopes; where there is none nobody is asked who they are."""

    method: str
    path: str
    handler: Handler
    scopes: tuple[Scope, ...]
    summary: str
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
