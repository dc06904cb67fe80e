"""The record on a NATS in memory, leases on it, and a council that no Prefect has to be asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

from tests.fakes.memory_nats import MemoryNats
from tests.fakes.short_leases import shorten_leases

LEASE_S = 0.5


@pytest_asyncio.fixture
async def record(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Any, None]:
    """As `open_record` gives it, and `open_leases` its leases, while the test runs."""
    import blocks.connections
    import blocks.record.server
    from blocks import documents
    from blocks.jetstream import JetStream
    from tasks.council.council import CouncilSpec, Member
    from tasks.deliberations import plan

    async def block() -> tuple[JetStream, Any]:
        return JetStream(servers=["nats://memory:4222"], patience_s=5), documents._nothing

    async def of_this_installation(_record: Any) -> None:
        """There is no Prefect whose mark could be compared."""

    async def spec(_name: str, _at_hand: Any = None) -> CouncilSpec:
        return CouncilSpec(name="dev", members=tuple(Member(agent_id=f"m{n}", role="DEV") for n in (1, 2, 3)))

    async def servers(_record: Any, of: Any, must_exist: bool = True, at_hand: Any = None) -> dict[str, Any]:
        return {name: plan.Server(None, "vllm") for name in of.servers}

    monkeypatch.setattr(blocks.connections, "_pools", WeakKeyDictionary())
    monkeypatch.setattr(blocks.record.server, "Client", MemoryNats().client)
    shorten_leases(monkeypatch, LEASE_S)
    monkeypatch.setattr(documents, "_read_jetstream", block)
    monkeypatch.setattr(documents, "check", of_this_installation)
    monkeypatch.setattr(plan, "council_spec", spec)
    monkeypatch.setattr(plan, "servers_of", servers)
    async with blocks.connections.connections():
        yield await documents.open_record()
