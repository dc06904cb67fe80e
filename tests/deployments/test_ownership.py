"""Two installations on one Prefect: the second is refused with both ids, or kept apart by a prefix."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from tests.blocks.conftest import free_port
from tests.conftest import until
from tests.deployments.commands import OF_THE_STACK, conclave
from tests.flows.conftest import FLOW

TASK = "Write a function to merge sorted arrays"


@contextmanager
def nats_in(folder: Path, *options: str) -> Generator[str, None, None]:
    """The URL of a NATS of its own."""
    from deployments.settings import load_settings
    from deployments.stack.parts import _nats_server

    port = free_port()  # never the one of another test: the session's connections are kept by their servers
    command = [str(_nats_server(load_settings())), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        listening(port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def listening(port: int) -> None:
    """Wait until a server takes connections."""
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture(scope="module")
def other_nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """The URL of a second NATS, another installation's."""
    with nats_in(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture
async def other(connected: Any, other_nats: str) -> Any:
    """The record of the other installation."""
    from blocks.jetstream import JetStream

    async def opened() -> Any:
        with suppress(Exception):
            return await JetStream(servers=[other_nats], connect_timeout_s=1).record()

    return await until(opened)


@pytest.fixture
def other_stack(stack: Any, other_nats: str, tmp_path: Path) -> Any:
    """What a second home's `up` finds: its own NATS, and the first one's Prefect."""
    from deployments.stack.paths import StackPaths, write_private

    home = tmp_path / "home"
    home.mkdir()
    record = json.loads(StackPaths.of(stack.home).record.read_text())
    record["parts"] = {name: {**part, "external": True} for name, part in record["parts"].items()}
    record["parts"]["nats"]["url"] = other_nats
    record["llm_key"] = os.environ["CONCLAVE_LLM_API_KEY"]  # of the model server that both use
    write_private(StackPaths.of(home).record, json.dumps(record))
    return stack.model_copy(update={"nats": other_nats, "home": str(home)})


@pytest.fixture
def other_settings(other_stack: Any) -> Any:
    """Settings of the second home."""
    from deployments.settings import load_settings

    return load_settings({"CONCLAVE_HOME": other_stack.home})


async def block_servers(name: str = "default") -> list[str]:
    """Where a JetStream block in Prefect points, under its full name."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        document = await client.read_block_document_by_name(name, "conclave-jetstream")
    return list(document.data["servers"])


async def deployment(name: str) -> Any:
    """A deployment as Prefect has it."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return await client.read_deployment_by_name(name)


async def test_an_installation_has_one_id(connected: Any, other: Any, tmp_path: Path) -> None:
    """Made once, also by many who connect at once, and another one than the first stack's."""
    from blocks.record.installation import installation_of

    with nats_in(tmp_path) as url:
        clients = [await nats.connect(url) for _ in range(8)]
        try:
            made = await asyncio.gather(*(installation_of(client.jetstream(), 1) for client in clients))
            assert set(made) == {await installation_of(clients[0].jetstream(), 1)}
        finally:
            for client in clients:
                await client.close()
    assert len({uuid.UUID(one) for one in (made[0], connected.installation, other.installation)}) == 3


async def test_up_of_a_second_home_is_refused(
    connected: Any, stack: Any, other: Any, other_stack: Any, other_settings: Any
) -> None:
    """With both ids, before anything is written: the first one's blocks and deployments are as they were."""
    from blocks.exceptions import OtherInstallation
    from deployments.provisioning.blocks import provision

    before = (await block_servers(), (await deployment("deliberate/deliberate")).updated)
    with pytest.raises(OtherInstallation) as refused:
        await provision(other_stack, other_settings, print)
    assert connected.installation in str(refused.value)
    assert other.installation in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (await block_servers(), (await deployment("deliberate/deliberate")).updated) == before
    assert f"conclave:{connected.installation}" in (await deployment("deliberate/deliberate")).tags


async def test_councils_of_a_second_home_are_refused(connected: Any, stack: Any, other: Any, other_stack: Any) -> None:
    """One line with both ids, and code 6."""
    environ = dict.fromkeys(OF_THE_STACK, "")
    environ |= {"CONCLAVE_HOME": other_stack.home, "NATS_URL": other_stack.nats}
    ended = await conclave("councils", "apply", **environ | {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]})
    assert ended.code == 6
    assert len(ended.err.splitlines()) == 1
    assert connected.installation in ended.err
    assert other.installation in ended.err


async def test_a_worker_of_a_second_home_takes_nothing(connected: Any, other: Any, other_nats: str) -> None:
    """Its health says whose the names are; what waits in either queue stays there."""
    from prefect.logging import get_logger

    from deployments.settings import load_settings
    from deployments.worker.flows_thread import FlowsThread
    from deployments.worker.stalls import LoopWatch

    log = get_logger("other-worker")
    watch = LoopWatch(log)
    watch.start()
    settings = load_settings().model_copy(update={"nats_url": other_nats})
    thread = FlowsThread(settings, "conclave", 1, log, watch)
    thread.start()
    try:

        async def told() -> str:
            waits = str(thread._service.report()["waiting_for"])
            return waits if "belong to installation" in waits else ""

        waits = await until(told)
        assert not thread.ready
    finally:
        await thread.stop()
        await asyncio.to_thread(watch.close)
    assert connected.installation in waits
    assert other.installation in waits


async def test_an_older_prefect_is_claimed_by_the_first_up(connected: Any, stack: Any) -> None:
    """Blocks without a mark: `up` makes it."""
    from prefect.client.orchestration import get_client

    from blocks.ownership import marked
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    async with get_client() as client:
        await client.delete_variable_by_name("conclave_installation")
    assert await marked() is None
    await provision(stack, load_settings(), print)
    assert await marked() == connected.installation


@pytest.mark.stack
async def test_names_are_taken_over_on_demand(
    connected: Any, stack: Any, other: Any, other_stack: Any, other_settings: Any
) -> None:
    """The mark, the blocks and the deployments' tags change hands, and back."""
    from blocks.ownership import marked
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    try:
        await provision(other_stack, other_settings, print, take_over=True)
        assert (await marked(), await block_servers()) == (other.installation, [other_stack.nats])
        assert f"conclave:{other.installation}" in (await deployment("deliberate/deliberate")).tags
    finally:
        await provision(stack, load_settings(), print, take_over=True)
    assert (await marked(), await block_servers()) == (connected.installation, [stack.nats])
    tags = (await deployment("deliberate/deliberate")).tags
    assert set(tags) == {"conclave", f"conclave:{connected.installation}"}


async def test_the_tag_of_a_deployment_is_no_edit(connected: Any, stack: Any) -> None:
    """What a user made of the tags stays, and a tag that was lost, as by `prefect deploy --all`, comes back."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    from deployments.provisioning.deploying import deploy

    home, lines = Path(stack.home), list[str]()

    async def tags_of(*tags: str) -> None:
        async with get_client() as client:
            one = await deployment("deliberate/deliberate")
            await client.update_deployment(one.id, DeploymentUpdate(tags=list(tags)))

    await deploy(home, print, connected.installation)
    noted, own = home / "deployed.json", f"conclave:{connected.installation}"
    before = noted.read_text()
    await tags_of("conclave", "mine")
    try:
        assert await deploy(home, lines.append, connected.installation)
        assert set((await deployment("deliberate/deliberate")).tags) == {"conclave", "mine", own}
        assert lines[-1].startswith("what was edited in Prefect stays: deliberate")
        assert not await deploy(home, lines.append, connected.installation)
    finally:
        await tags_of("conclave", own)
        noted.write_text(before)


async def test_names_that_are_anothers_by_their_prefix_are_refused(
    connected: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix that is the beginning of another, and a council whose name begins with another's prefix."""
    from prefect.client.orchestration import get_client

    from blocks.council import Council
    from blocks.documents import fresh, save
    from blocks.exceptions import BlockMissing, BlockUnusable, OtherInstallation
    from blocks.ownership import claim
    from blocks.vllm_server import VLLM

    monkeypatch.setenv("CONCLAVE_PREFIX", "one")
    await claim(other)
    try:
        monkeypatch.setenv("CONCLAVE_PREFIX", "one-two")
        with pytest.raises(OtherInstallation, match="one-two"):
            await claim(other)
        monkeypatch.delenv("CONCLAVE_PREFIX")
        with pytest.raises(BlockUnusable, match="one-dev"):
            await save(Council(members=[{"agent_id": "a", "role": "DEV"}]), "one-dev")
        await VLLM(base_url="http://127.0.0.1:9").save("one-server", overwrite=True)
        with pytest.raises(BlockMissing, match="another installation"):  # nor is its key used
            await fresh(VLLM, "one-server")
    finally:
        async with get_client() as client:
            await client.delete_variable_by_name("conclave_installation_one")


async def test_blocks_that_were_pointed_elsewhere_end_nothing(
    connected: Any, stack: Any, other: Any, other_nats: str, flow_process: Any, new_id: str
) -> None:
    """By hand: the next deliberation is refused before its first call, and ends nowhere; the doctor has both ids."""
    from blocks.jetstream import JetStream
    from deployments.doctor import examine
    from deployments.settings import load_settings
    from deployments.stack import status

    await JetStream(servers=[other_nats]).save("default", overwrite=True)
    try:
        process = await flow_process(task=TASK, council="dev", deliberation_id=new_id)
        await asyncio.wait_for(process.wait(), 120)
        told = {one.subject: one async for one in examine(status(load_settings()), load_settings(), ["dev"])}
    finally:
        from deployments.provisioning.blocks import provision

        await provision(stack, load_settings(), print)
    for record in (connected, other):
        assert await record.last(f"deliberations.{new_id}.finished") is None
        assert await record.last(f"deliberations.{new_id}.plan") is None
    assert told["installation"].state == "failed"
    assert connected.installation in told["installation"].text
    assert other.installation in told["installation"].text


async def test_agents_of_another_installation_are_refused_before_a_call(
    connected: Any, simulator: Any, make_council: Any, monkeypatch: pytest.MonkeyPatch, new_id: str
) -> None:
    """The driver's id goes along: where a host's record is another's, the deliberation stays open, without a call."""
    from flows.deliberate import deliberate

    council, theirs = await make_council(2), str(uuid.uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(connected, "installation", theirs)
        state = await deliberate(task=TASK, council=council, deliberation_id=new_id, return_state=True)
    assert state.is_failed()
    assert connected.installation in state.message
    assert theirs in state.message
    assert await connected.last(f"deliberations.{new_id}.finished") is None
    assert await simulator.calls(new_id) == {}
    again = await deliberate(task=TASK, council=council, deliberation_id=new_id, return_state=True)
    assert again.is_completed()


@pytest.mark.stack
async def test_a_prefix_keeps_two_apart(
    connected: Any,
    stack: Any,
    other: Any,
    other_stack: Any,
    monkeypatch: pytest.MonkeyPatch,
    new_id: str,
) -> None:
    """Blocks, councils, pool, deployments and mark carry it; users type `dev`; each decides on its own record."""
    from blocks.documents import council_names
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    ours = await council_names()
    settings = load_settings({"CONCLAVE_HOME": other_stack.home, "CONCLAVE_PREFIX": "staging"})
    with monkeypatch.context() as patched:
        patched.setenv("CONCLAVE_PREFIX", "staging")
        await provision(other_stack, settings, print)
        theirs = await council_names()
    found = await deployment("deliberate/staging-deliberate")
    assert found.work_pool_name == "staging-conclave"
    assert f"conclave:{other.installation}" in found.tags
    assert (await block_servers(), await block_servers("staging-default")) == ([stack.nats], [other_stack.nats])
    assert "dev" in theirs
    assert await council_names() == ours
    assert not [name for name in ours if name.startswith("staging-")]
    environ = {**os.environ, "CONCLAVE_PREFIX": "staging"}
    fields = json.dumps({"task": TASK, "council": "dev", "deliberation_id": new_id})
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOW, fields, env=environ)
    assert await asyncio.wait_for(process.wait(), 150) == 0, time.monotonic() - started
    finished = await other.last(f"deliberations.{new_id}.finished")
    answers = [await other.last(f"answers.{new_id}.task.propose-0.agent-dev-00{n}") for n in (1, 2, 3)]
    assert finished.body["status"] == "COMPLETED", [answer and answer.body["error"] for answer in answers]
    assert await connected.last(f"deliberations.{new_id}.finished") is None


@pytest_asyncio.fixture
async def flow_process(connected: Any) -> AsyncGenerator[Any, None]:
    """Run the flow in a process of its own; none outlives the test."""
    started: list[asyncio.subprocess.Process] = []

    async def start(**fields: Any) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOW, json.dumps(fields))
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("prefix", ["Staging", "a_b", "x" * 21])
def test_a_prefix_that_cannot_be_is_named(prefix: str) -> None:
    """The variable, and what would be right."""
    from deployments.settings import SettingsError, load_settings

    with pytest.raises(SettingsError, match=r"CONCLAVE_PREFIX=.* 1 to 20 of a-z"):
        load_settings({"CONCLAVE_PREFIX": prefix})
