"""The names of the keys of a bucket."""

from __future__ import annotations

from collections.abc import Mapping

from nats.js.errors import NotFoundError

from blocks.record.client import Streams

NO_MESSAGE = 10037
"""JetStream's error code where a stream has no such message (nats-server `errors.json`)."""
DELETED = ("DEL", "PURGE")


async def key_names(jetstream: Streams, bucket: str, begin: str = "") -> list[str]:
    """The keys that begin so, in order; `begin` ends with a dot, or is empty. Raises nats-py's errors.

    nats-py's own `keys()` finds none at times where there are some: it takes "nothing pends" for an empty bucket while
    what was sent has not arrived yet (`nats/js/kv.py`, `watch`).
    """
    prefix, after = f"$KV.{bucket}.", 0
    found: set[str] = set()
    while True:
        try:
            message = await jetstream.get_msg(f"KV_{bucket}", seq=after + 1, subject=f"{prefix}{begin}>", next=True)
        except NotFoundError as error:
            if error.err_code != NO_MESSAGE:  # the bucket itself is not there
                raise
            return sorted(found)
        after, name = max(after + 1, message.seq or 0), (message.subject or "").removeprefix(prefix)
        if _is_deleted(message.headers or {}):
            found.discard(name)
        else:
            found.add(name)


def _is_deleted(headers: Mapping[str, str]) -> bool:
    return headers.get("KV-Operation") in DELETED or "Nats-Marker-Reason" in headers
