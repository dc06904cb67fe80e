"""`python -m deployments.gateway`: serve until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from blocks.exceptions import ConclaveError
from blocks.warm.garbage import spare_what_is_loaded
from deployments.gateway.app import application
from deployments.gateway.service import Service, serving
from deployments.gateway.settings import GatewaySettings, gateway_settings
from tasks.council.exceptions import WrongUse

SWITCH_S = 0.0005
"""How long the thread of the list may keep the interpreter from the loop, which asks for it at every read and write."""
STOP_S = 5.0
"""How long streams of events may take to end."""

_log = logging.getLogger("conclave.gateway")


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConclaveError where NATS does not answer, OSError for a port in use."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serving(settings) as service, AsyncExitStack() as more:
        runner = web.AppRunner(application(service), access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port, reuse_port=None).start()
            if settings.grpc_listen is not None:
                await more.enter_async_context(_grpc(service, settings.grpc_listen))
            if settings.open:
                _log.warning("OPEN: whoever reaches %s may ask, read and cancel everything", settings.listen)
            spare_what_is_loaded()
            _log.info("listening at %s", settings.listen)
            await stopped.wait()
        finally:
            await runner.cleanup()


@asynccontextmanager
async def _grpc(service: Service, address: str) -> AsyncGenerator[None, None]:
    """Listen for gRPC, too. Raises OSError for a port in use."""
    from deployments.gateway.rpc.server import listening  # a gateway without has no need of grpc

    async with listening(service, address):
        _log.info("listening for gRPC at %s", address)
        yield


def main() -> int:
    """Entry point; the exit code."""
    sys.setswitchinterval(SWITCH_S)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        asyncio.run(serve(gateway_settings()))
    except WrongUse as error:
        print(f"conclave: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except (ConclaveError, OSError) as error:
        print(f"conclave: {error}", file=sys.stderr)  # noqa: T201
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main())
