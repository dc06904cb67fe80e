"""A client of the gateway: `Client` on the standard library alone, `AsyncClient` on aiohttp, with the same methods.

from deployments.client import Client

client = Client("http://127.0.0.1:8080", token)
receipt = client.submit(task="Name the service")
print(client.wait(receipt.id).decision)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployments.client.answers import Event, GatewayAway, GatewayError, Receipt, Result
from deployments.client.sync import Client

if TYPE_CHECKING:
    from deployments.client.aio import AsyncClient

__all__ = ["AsyncClient", "Client", "Event", "GatewayAway", "GatewayError", "Receipt", "Result"]


def __getattr__(name: str) -> Any:
    """`AsyncClient` brings aiohttp along, which the other one does without."""
    if name != "AsyncClient":
        raise AttributeError(name)
    from deployments.client.aio import AsyncClient

    return AsyncClient
