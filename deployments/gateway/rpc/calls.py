"""A call over gRPC: who asks is let in as over HTTP, and what goes wrong is answered by the table of statuses."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError

from deployments.gateway.bodies import beside
from deployments.gateway.problems import bad_request
from deployments.gateway.rpc.statuses import Metadata, as_metadata, refused
from deployments.gateway.service import Service
from tasks.access.tokens import Scope, Token

OURS = "/orchestrator.v1."
"""How the paths of calls begin that a token is needed for."""
MAX_OPEN_BYTES = 4096
"""Of a message of a call that needs none."""
Answer = TypeVar("Answer")
Request = TypeVar("Request")


@dataclass(frozen=True)
class Call:
    """A call that was let in: who asks, and what came with it."""

    service: Service
    token: Token
    context: Any
    """grpc.aio.ServicerContext, which has no types."""

    @property
    def authorizations(self) -> list[str]:
        """What it says of who asks."""
        return values_of(self.context, "authorization")

    @property
    def keys(self) -> list[str]:
        """Its idempotency keys, of which one at most is right."""
        return values_of(self.context, "idempotency-key")


class Unread(NamedTuple):
    """A message as it came: it is read once its sender has been let in."""

    data: bytes
    parse: Callable[[bytes], Any]

    async def read(self) -> Any:
        """The message. Raises Problem."""
        try:
            return await beside(len(self.data), lambda: self.parse(self.data))
        except DecodeError:
            raise bad_request("the message cannot be read") from None


class Bounded(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # without types
    """Lets a message be read by its call and not before, since large ones cost much.

    What is no message gRPC itself would tell as a fault of ours, in the log, too.
    """

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The handler of a call, which gets what came unread where somebody has to be let in first."""
        handler = await continuation(details)
        if handler is None:
            return None
        parse = handler.request_deserializer
        if details.method.startswith(OURS):
            return handler._replace(request_deserializer=lambda data: Unread(data, parse))
        return handler._replace(request_deserializer=lambda data: _small(parse, data))


def _small(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """The message of a call that everybody may make: an empty one in place of what is too long, or none."""
    try:
        return parse(data if len(data) <= MAX_OPEN_BYTES else b"")
    except DecodeError:
        return parse(b"")


def values_of(context: Any, name: str) -> list[str]:
    """The values of an entry of the metadata, in the order in which they came."""
    found: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return [value for key, value in found if key == name and isinstance(value, str)]


def asking(
    *scopes: Scope,
) -> Callable[[Callable[[Any, Call, Request], Awaitable[Answer]]], Callable[[Any, Unread, Any], Awaitable[Answer]]]:
    """Make a method of a servicer of one that takes a call; its token has to have one of the scopes."""

    def made(
        method: Callable[[Any, Call, Request], Awaitable[Answer]],
    ) -> Callable[[Any, Unread, Any], Awaitable[Answer]]:
        name = method.__name__

        @wraps(method)
        async def handle(servicer: Any, request: Unread, context: Any) -> Answer:
            service: Service = servicer.service
            began, code = time.perf_counter(), grpc.StatusCode.CANCELLED  # which it stays where the client leaves
            about: Metadata = ()
            try:
                token = await service.authentication.token(values_of(context, "authorization"), scopes)
                about = as_metadata(await service.authentication.limit(token))
                context.set_trailing_metadata(about)
                answer = await method(servicer, Call(service, token, context), await request.read())
                code = grpc.StatusCode.OK
                return answer
            except grpc.aio.InternalError:  # the client has gone, which is nobody's fault
                raise
            except Exception as error:  # noqa: BLE001  # told in the log, by a number that the answer has
                told = refused(name, error)
                code = told.code
                own = {key for key, _ in told.trailing}
                kept = tuple(entry for entry in about if entry[0] not in own)
                await context.abort(code, told.text, (*kept, *told.trailing))
                raise AssertionError("abort raises") from None
            finally:
                service.counts.called(name, code.name, time.perf_counter() - began)

        return handle

    return made
