"""Furnishing: what a stack needs in Prefect before a council can meet, saved as blocks, idempotently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blocks.connections import connections
from blocks.exceptions import BlockMissing
from blocks.jetstream import JetStream
from blocks.loading import DEFAULT, fresh, save
from blocks.ownership import claim
from blocks.ray_agents import RayAgents
from blocks.vllm_server import VLLM
from deployments.councils import DEFAULTS, apply_councils, read_councils
from deployments.deploying import deploy
from deployments.settings import Settings
from deployments.stack import StackStatus

B = TypeVar("B", JetStream, VLLM, RayAgents)
Report = Callable[[str], None]


async def furnish(status: StackStatus, settings: Settings, report: Report, take_over: bool = False) -> RayAgents:
    """Point the default blocks at this stack, and save the councils that are missing; the agents' block.

    What a user set in a block beside its address stays. Raises OtherInstallation, before anything is written, where
    the names in Prefect belong to another installation and are not to be taken over.
    """
    councils = read_councils(DEFAULTS)
    for council in councils.values():
        council.deadline_s = settings.deadline_s
    found = await _found(JetStream, JetStream())
    jetstream = found.at((settings.nats_url or status.nats or "").split(","))
    async with connections():
        record = await jetstream.record()
        await claim(record, take_over)
    await save(jetstream, DEFAULT)
    specs = [council.spec(name) for name, council in councils.items()]
    for name in sorted({one.server for spec in specs for one in spec.everyone}):
        server = await _found(VLLM, VLLM(base_url=status.llm or ""), name)
        if settings.llm_api_key or server.base_url != status.llm:
            server.api_key = settings.llm_api_key  # a key is for one address: another never gets to see it
        server.base_url, server.model = status.llm or "", status.model
        await save(server, name)
    agents = await _found(RayAgents, RayAgents())
    await save(agents, DEFAULT)
    done = await apply_councils(councils, overwrite=False)
    report(f"councils ready: {', '.join(done)}")
    await deploy(Path(status.home), report, record.installation)
    return agents


async def _found(kind: type[B], otherwise: B, name: str = DEFAULT) -> B:
    try:
        return await fresh(kind, name)
    except BlockMissing:
        return otherwise
