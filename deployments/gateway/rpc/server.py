"""The gRPC server, in the gateway's own loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from deployments.gateway.rpc import health
from deployments.gateway.rpc.calls import Bounded
from deployments.gateway.rpc.servicer import Orchestrator
from deployments.gateway.service import Service
from deployments.orchestrator.generated import orchestrator_pb2_grpc

STOP_S = 2.0
"""How long calls may take to end; whoever waits for a decision asks again, and it goes on meanwhile."""
MOST_CALLS = 4_096
"""Calls at once, those that wait for a decision among them; a further one is RESOURCE_EXHAUSTED."""
OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second gateway would take half of the connections
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 256),  # of one connection
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # who pings more often is sent away
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 86_400_000),  # so that nobody who does not read keeps a call for ever
    ("grpc.max_connection_age_grace_ms", 600_000),
)


@asynccontextmanager
async def listening(service: Service, address: str) -> AsyncGenerator[int, None]:
    """The port that calls are taken at while the block runs. Raises OSError where the address cannot be had."""
    server = grpc.aio.server(options=OPTIONS, interceptors=(Bounded(),), maximum_concurrent_rpcs=MOST_CALLS)
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Orchestrator(service), server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health.Health(service), server)
    reflection.enable_server_reflection((health.SERVICE, health.NAME, reflection.SERVICE_NAME), server)
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen at {address}: is it in use? CONCLAVE_GRPC names another, or off") from error
    try:
        await server.start()
        yield port
    finally:
        await server.stop(STOP_S)
