"""Files that blocks and settings name: what is no regular one is refused before it can block whoever opens it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO that nobody writes into."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("field", ["credentials_file", "tls_ca_file", "tls_cert_file"])
async def test_a_jetstream_block_names_files(fifo: Path, field: str) -> None:
    """Whoever edits the block in Prefect may name a FIFO; no loop waits for it."""
    from blocks.connections import connections
    from blocks.exceptions import RecordMisconfigured
    from blocks.jetstream import JetStream

    block = JetStream(servers=["nats://127.0.0.1:1"], **{field: fifo})
    async with asyncio.timeout(30), connections():
        with pytest.raises(RecordMisconfigured, match=rf"JetStream.{field}: .*fifo cannot be read: it is a FIFO"):
            await block.record()


def test_a_file_of_listeners_is_a_file(fifo: Path) -> None:
    """A worker does not wait for it for ever at its start."""
    from deployments.event_files import EventFileError
    from deployments.listeners import read_listeners

    with pytest.raises(EventFileError, match="fifo: it is a FIFO and no regular file"):
        read_listeners(fifo)
