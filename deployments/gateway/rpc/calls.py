"""A call over gRPC: who asks is let in as over HTTP, and what goes wrong is answered by the table of statuses."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import isasyncgenfunction
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from deployments.gateway.problems import bad_request
from deployments.gateway.rpc.statuses import Metadata, as_metadata, refused
from deployments.gateway.service import Service
from tasks.access.tokens import Scope, Token

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


class Readable(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # without types
    """Refuses what is no message of its call, which gRPC itself would tell as a fault of ours, in the log, too."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The call's handler, which is asked only with a message that can be read."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        read, kind = handler.request_deserializer, "unary_stream" if handler.response_streaming else "unary_unary"
        answer = getattr(handler, kind)

        def deserialize(data: bytes) -> Any:
            try:
                return read(data)
            except DecodeError:
                return None

        async def require(request: Any, context: Any) -> None:
            if request is None:
                told = refused("", bad_request("the message cannot be read"))
                await context.abort(told.code, told.text, told.trailing)

        async def handle(request: Any, context: Any) -> Any:
            await require(request, context)
            return await answer(request, context)

        async def stream(request: Any, context: Any) -> Any:
            await require(request, context)
            async for each in answer(request, context):
                yield each

        way = stream if isasyncgenfunction(answer) else handle
        return handler._replace(request_deserializer=deserialize, **{kind: way})


def values_of(context: Any, name: str) -> list[str]:
    """The values of an entry of the metadata, in the order in which they came."""
    found: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return [value for key, value in found if key == name and isinstance(value, str)]


def asking(
    *scopes: Scope,
) -> Callable[[Callable[[Any, Call, Request], Awaitable[Answer]]], Callable[[Any, Request, Any], Awaitable[Answer]]]:
    """Make a method of a servicer of one that takes a call; its token has to have one of the scopes."""

    def made(
        method: Callable[[Any, Call, Request], Awaitable[Answer]],
    ) -> Callable[[Any, Request, Any], Awaitable[Answer]]:
        name = method.__name__

        @wraps(method)
        async def handle(servicer: Any, request: Request, context: Any) -> Answer:
            service: Service = servicer.service
            began, code = time.perf_counter(), grpc.StatusCode.CANCELLED  # which it stays where the client leaves
            about: Metadata = ()
            try:
                token = await service.authentication.token(values_of(context, "authorization"), scopes)
                about = as_metadata(await service.authentication.limit(token))
                context.set_trailing_metadata(about)
                answer = await method(servicer, Call(service, token, context), request)
                code = grpc.StatusCode.OK
                return answer
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
