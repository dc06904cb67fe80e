"""Furnishing: what a stack needs in Prefect before a council can meet, saved as blocks, idempotently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blocks.connections import connections
from blocks.documents import DEFAULT, fresh, save
from blocks.exceptions import BlockMissing
from blocks.jetstream import JetStream
from blocks.ownership import claim
from blocks.ray_agents import RayAgents
from blocks.vllm_server import VLLM
from deployments.provisioning.councils import DEFAULTS, apply_councils, read_councils
from deployments.provisioning.deploying import deploy
from deployments.settings import Settings
from deployments.stack import StackStatus, environment
from deployments.stack.parts import model_key
from deployments.stack.places import Places, read_key

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
    access = environment(status)
    found = await _found(JetStream, JetStream())
    if found.password and found.password.get_secret_value() == read_key(Places.of(status.home).nats_password):
        found.user = found.password = None  # it is for our own server alone
    jetstream = found.at(access["NATS_URL"].split(","))
    async with connections():
        record = await jetstream.record()
        await claim(record, take_over)
    await save(jetstream, DEFAULT)
    specs = [council.spec(name) for name, council in councils.items()]
    for name in sorted({one.server for spec in specs for one in spec.everyone}):
        server = await _found(VLLM, VLLM(base_url=access["VLLM_URL"]), name)
        key = model_key(settings, status.parts["llm"].state == "external")
        if key or server.base_url != access["VLLM_URL"]:
            server.api_key = key  # a key is for one address: another never gets to see it
        server.base_url, server.model = access["VLLM_URL"], status.model
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
