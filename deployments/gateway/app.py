"""The application: each request is checked, let in, handled, counted, and answered without internals."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from blocks.exceptions import ConclaveError
from deployments.gateway.openapi import spec
from deployments.gateway.problems import Problem, fault, told_of
from deployments.gateway.routes import SPEC, Call, Route
from deployments.gateway.service import Service
from deployments.gateway.table import ROUTES
from tasks.access.tokens import Token

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(service: Service) -> web.Application:
    """The application of these parts."""
    app = web.Application(middlewares=[_guarding(service)])
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _handling(service, route))
    app[SPEC] = spec(ROUTES)
    app.on_response_prepare.append(_secured)
    return app


async def _secured(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "conclave"


def _guarding(service: Service) -> Middleware:
    """What stands before every answer: the host, the page that asks, and the form of errors."""

    @web.middleware
    async def guard(request: web.Request, handler: Handle) -> web.StreamResponse:
        began = time.perf_counter()
        try:
            service.authentication.check_origin(request)
            response = await handler(request)
        except Problem as problem:
            response = problem.response()
        except web.HTTPException as error:
            response = _of_router(error)
        except Exception as error:  # noqa: BLE001  # told in the log, by a number that the answer has
            response = fault(f"{request.method} {request.path}", error).response()
        route = request.match_info.route.resource
        path = route.canonical if route is not None else "unknown"
        seconds = None if response.content_type == "text/event-stream" else time.perf_counter() - began
        service.counts.answered(request.method, path, response.status, seconds)
        return response

    return guard


def _handling(service: Service, route: Route) -> Handle:
    async def handle(request: web.Request) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            token, headers = await _let_in(service, route, request)
            return await route.handler(Call(request, service, token, headers))
        except ConclaveError as error:
            problem = told_of(f"{request.method} {route.path}", error)
            problem.headers = headers | problem.headers
            raise problem from None

    return handle


async def _let_in(service: Service, route: Route, request: web.Request) -> tuple[Token, dict[str, str]]:
    """Who asks, and what the answer carries for them. Raises Problem."""
    if not route.scopes:
        return service.authentication.nobody, {}
    token = await service.authentication.token(request.headers.getall("Authorization", []), route.scopes)
    return token, await service.authentication.limit(token)


def _of_router(error: web.HTTPException) -> web.StreamResponse:
    """The router's own refusals: no such path, or no such method there."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    told = {404: "there is no such path; /openapi.json has those that are", 405: "this path has no such method"}
    kind = (error.reason or "error").lower().replace(" ", "-")
    return Problem(error.status, kind, told.get(error.status, error.reason or ""), headers).response()
