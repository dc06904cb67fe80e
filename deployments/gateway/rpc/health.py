"""Whether calls are taken, as `grpc.health.v1` has it: while the record answers. Everybody may ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from blocks.exceptions import ConclaveError
from deployments.gateway.service import Service
from deployments.orchestrator.generated import orchestrator_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["OrchestratorService"].full_name
NAME: str = health.SERVICE_NAME
ASK_S = 2.0
MOST_WATCHING = 64
WATCH_S = 2.0
"""How often it is looked whether it has changed."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated, without types
    """The service."""

    def __init__(self, service: Service) -> None:
        self._service, self._watching = service, 0

    async def Check(self, request: Any, context: Any) -> Any:
        """Whether calls of a service are taken; of all where none is named."""
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there are {SERVICE!r} and ''")
        return health_pb2.HealthCheckResponse(status=await self._status())

    async def Watch(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        """The same, told whenever it changes; to so many at a time, since no token is asked for."""
        if self._watching >= MOST_WATCHING:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHING} watch already; Check answers")
        self._watching += 1
        try:
            async for status in self._changes(request):
                yield status
        finally:
            self._watching -= 1

    async def _changes(self, request: Any) -> AsyncGenerator[Any, None]:
        statuses, told = health_pb2.HealthCheckResponse, None
        while True:
            known = request.service in ("", SERVICE)
            now = await self._status() if known else statuses.SERVICE_UNKNOWN
            if now != told:
                yield statuses(status=now)
            told = now
            await asyncio.sleep(WATCH_S)

    async def _status(self) -> Any:
        statuses = health_pb2.HealthCheckResponse
        try:
            async with asyncio.timeout(ASK_S):
                await self._service.workers.get()
        except (ConclaveError, TimeoutError):
            return statuses.NOT_SERVING
        return statuses.SERVING
