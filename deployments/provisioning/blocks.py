"""Provisioning: what a stack needs in Prefect before a council can meet, saved as blocks, idempotently."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from blocks import names
from blocks.connections import connections
from blocks.council import Council
from blocks.documents import DEFAULT, fresh, save
from blocks.exceptions import BlockMissing
from blocks.jetstream import JetStream
from blocks.ownership import claim
from blocks.ray_agents import RayAgents
from blocks.record.events import Record
from blocks.record.installation import note, read_note
from blocks.urls import without_credentials
from blocks.vllm_server import VLLM
from deployments.provisioning.councils import DEFAULTS, UNUSABLE, apply_councils, read_councils
from deployments.provisioning.deploying import deploy
from deployments.settings import Settings
from deployments.stack import StackStatus, environment
from deployments.stack.parts import model_key
from deployments.stack.paths import StackPaths, read_key
from tasks.operate.mirror import mirror_councils

NOTED = "server."
"""Notes of an installation on the model servers' blocks that it made: a digest of the address that it gave them."""

B = TypeVar("B", JetStream, VLLM, RayAgents)
D = TypeVar("D", JetStream, VLLM, RayAgents, None)
Report = Callable[[str], None]


async def provision(status: StackStatus, settings: Settings, report: Report, take_over: bool = False) -> RayAgents:
    """Point the default blocks at this stack, and save the councils that are missing; the agents' block.

    What a user set in a block beside its address stays, and so does a model server that a user made or pointed
    elsewhere. Raises OtherInstallation, before anything is written, where
    the names in Prefect belong to another installation and are not to be taken over.
    """
    councils = read_councils(DEFAULTS)
    for council in councils.values():
        council.deadline_s = settings.deadline_s
    found = await _found(JetStream, JetStream())
    if found.password and found.password.get_secret_value() == read_key(StackPaths.of(status.home).nats_password):
        found.user = found.password = None  # it is for our own server alone
    jetstream = found.at(environment(status)["NATS_URL"].split(","))
    async with connections():
        record = await jetstream.record()
        await claim(record, take_over)
        await save(jetstream, DEFAULT)
        await _point_servers(record, councils, status, settings, report, take_over)
        done = await apply_councils(councils, overwrite=False)
        await mirror_councils(record)
    agents = await _found(RayAgents, RayAgents())
    await save(agents, DEFAULT)
    unusable = {name: told for name, told in done.items() if told.startswith(UNUSABLE)}
    report(f"councils ready: {', '.join(name for name in done if name not in unusable)}")
    for name, told in unusable.items():
        report(f"council {name}: {told}; `conclave councils apply FILE` puts another one in its place")
    await deploy(Path(status.home), report, record.installation)
    return agents


async def _point_servers(
    record: Record,
    councils: Mapping[str, Council],
    status: StackStatus,
    settings: Settings,
    report: Report,
    take_over: bool,
) -> None:
    """Point the model servers of the default councils at this stack's, but those that a user made or pointed.

    Of the names that are taken over only `default` is sure to be no user's: nothing here says who made another one.
    """
    specs = [council.spec(name) for name, council in councils.items()]
    url = environment(status)["VLLM_URL"]
    key = model_key(settings, status.parts["llm"].state == "external")
    members = chain.from_iterable(spec.everyone for spec in specs)
    for name in sorted({member.server for member in members}):
        server = await _found(VLLM, None, name)
        taken_over = take_over and name == DEFAULT
        if server is not None and not taken_over and not await _was_pointed_by_up(record, name, server):
            report(f"model server {name} stays at {without_credentials(server.base_url)}, which a user gave it")
            continue
        await _point(server or VLLM(base_url=url), name, url, status.model, key)
        await note(record, NOTED + names.stored(name), _digest(url))


async def _was_pointed_by_up(record: Record, name: str, server: VLLM) -> bool:
    """Whether `up` made a model server's block, and it still points where `up` pointed it.

    The default one is also ours where nothing is noted: an older version made it.
    """
    noted = await read_note(record, NOTED + names.stored(name))
    return name == DEFAULT if noted is None else noted == _digest(server.base_url)


async def _point(server: VLLM, name: str, url: str, model: str | None, key: SecretStr | None) -> None:
    if key or server.base_url != url:
        server.api_key = key  # a key is for one address: another never gets to see it
    server.base_url, server.model = url, model
    await save(server, name)


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


async def _found(kind: type[B], otherwise: D, name: str = DEFAULT) -> B | D:
    try:
        return await fresh(kind, name)
    except BlockMissing:
        return otherwise
