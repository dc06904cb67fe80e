"""Blocks by name, kept for a few seconds on each event loop so that a council does not ask Prefect once a member."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client

from blocks.connections import Close, shared
from blocks.council import Council
from blocks.exceptions import BlockMissing
from blocks.jetstream import JetStream
from blocks.record import Record

B = TypeVar("B", bound=Block)

KEPT_S = 15.0
"""An edited block is used at the latest after this time."""
DEFAULT = "default"


async def load(kind: type[B], name: str = DEFAULT) -> B:
    """The block of that kind and name. Raises BlockMissing."""
    kept: dict[Any, tuple[float, Any]] = await shared("blocks", _keep)
    found = kept.get((kind, name))
    if found is not None and time.monotonic() - found[0] < KEPT_S:
        block: B = found[1]
        return block
    block = await fresh(kind, name)
    kept[kind, name] = (time.monotonic(), block)
    return block


async def fresh(kind: type[B], name: str) -> B:
    """The block as Prefect holds it now. Raises BlockMissing."""
    try:
        block: B = await kind.aload(name)
    except ValueError as error:
        raise BlockMissing(f"no block {kind.get_block_type_slug()}/{name}; `conclave up` makes the defaults") from error
    return block


async def open_record() -> Record:
    """The record of the default JetStream block, on this loop's shared connection."""
    return await (await load(JetStream)).record()


async def council_names() -> list[str]:
    """Names of all councils that Prefect holds."""
    async with get_client() as client:
        try:
            documents = await client.read_block_documents_by_type(Council.get_block_type_slug())
        except httpx.HTTPStatusError:
            return []
    return sorted(document.name for document in documents if document.name)


async def _keep() -> tuple[dict[Any, Any], Close]:
    async def forget() -> None:
        """Nothing to close."""

    return {}, forget
