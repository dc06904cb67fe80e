"""Waiting until a NATS server has everything that a client of nats-py has said."""

from __future__ import annotations

from nats.aio.client import Client


async def flushed(client: Client) -> None:
    """Return once the server has taken what was published and subscribed until now.

    nats-py 2.16 writes the PING of a `flush` past what its flusher has still to write, so the answer to the first one
    may come before that is sent; the second one cannot.
    """
    await client.flush()
    await client.flush()
