"""A second stack beside the first, whose NATS keeps its files on a disk that gets full."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from deployments.stack import environment
from deployments.stack.ports import free_port, is_free
from deployments.stack.processes import family
from tests.faults.conftest import TASK, Stack, flow_run, home_of_a_stack, result_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

IMPATIENT = """
import sys
from blocks.jetstream import JetStream
JetStream(servers=[sys.argv[1]], patience_s=6).save("default", overwrite=True)
"""


@pytest.fixture(scope="module")
def disk() -> Generator[Path, None, None]:
    """A disk of 8 MB in memory; an ordinary folder where it cannot be mounted."""
    with tempfile.TemporaryDirectory(prefix="conclave-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", folder]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def other_home(disk: Path) -> Generator[Path, None, None]:
    """The home of the second stack, with NATS' files on the small disk."""
    with home_of_a_stack(nats=disk) as home:
        yield home


@pytest_asyncio.fixture
async def other(other_home: Path) -> AsyncGenerator[Stack, None]:
    """The second stack."""
    async with aiohttp.ClientSession() as session:
        yield Stack(other_home, session)


async def test_two_stacks_know_nothing_of_each_other(broken: Stack, other: Stack, new_id: str) -> None:
    """Other addresses; the same id deliberated in both at once, each with its own calls, record and run."""
    asked = ("deliberate", "--local", TASK, "--id", new_id, "--json")
    here, there = (result_of(ended) for ended in await asyncio.gather(broken.run(*asked), other.run(*asked)))
    addresses = [
        {stack.status.nats, stack.status.prefect, stack.status.llm, stack.status.ray} for stack in (broken, other)
    ]
    assert not addresses[0] & addresses[1]
    for stack, result, elsewhere in ((broken, here, other), (other, there, broken)):
        assert (result["status"], result["received_count"]) == ("COMPLETED", 3)
        assert set((await stack.calls(new_id)).values()) == {1}
        assert len(await stack.prefect("flow_runs", flow_runs=flow_run(result))) == 1
        assert await elsewhere.prefect("flow_runs", flow_runs=flow_run(result)) == []


async def test_the_port_of_a_part_that_is_away_is_not_given_away(broken: Stack) -> None:
    """Whoever looks for one meanwhile gets the next, and the part comes back to its own."""
    port = urlsplit(broken.status.nats or "").port
    assert port is not None
    async with broken.away("nats"):
        assert is_free(port)
        assert free_port(port) > port
    await broken.answers("nats")


async def test_a_full_disk_is_named_and_loses_nothing(other: Stack, disk: Path, new_id: str) -> None:
    """Full while members wait: code 6, and `status` says why; with room made the same id goes on."""
    if not disk.is_mount():
        pytest.skip("a small disk can be mounted only by root")
    patience = [sys.executable, "-c", IMPATIENT, environment(other.status)["NATS_URL"]]
    prefect = {**other.environ, **environment(other.status)}
    subprocess.run(patience, env=prefect, check=True, timeout=120)
    await other.fault("slow", match=f"{new_id}:.*[23]$", delay_s=4)
    running = await other.start("deliberate", "--local", TASK, "--id", new_id, "--json")
    await other.asked(new_id)
    first = await other.answered(new_id)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"." * 4096)
    ended = await running.end()
    told = await other.run("status")
    assert (ended.code, ended.out) == (6, "")
    assert "`conclave doctor` says which part is away" in ended.err
    assert "Traceback" not in ended.err
    assert told.code == 6
    assert "it stores nothing: no space left on device" in told.out
    filler.unlink()
    async with other.away("nats"):
        pass
    await other.answers("nats")
    resumed = await other.run("deliberate", "--local", TASK, "--id", new_id, "--json")
    result, calls = result_of(resumed), await other.calls(new_id)
    assert (resumed.code, result["received_count"]) == (0, 3)
    assert {calls[f"propose-0:{member}"] for member in first} == {1}


async def test_the_end_of_one_leaves_the_other(broken: Stack, other: Stack, new_id: str) -> None:
    """`down` of the second: none of its processes is left, and the first still decides."""
    ended = await other.run("down")
    assert (ended.code, family(other.settings.home).everyone) == (0, set())
    decided = await broken.run("deliberate", "--local", TASK, "--id", new_id, "--json")
    assert (decided.code, result_of(decided)["received_count"]) == (0, 3)


def test_a_stack_on_a_full_disk_is_not_begun(disk: Path) -> None:
    """`up` ends with code 6 and one line that names the place and the cause; nothing runs."""
    if not disk.is_mount():
        pytest.skip("a small disk can be mounted only by root")
    stack = Stack(disk / "home")
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"." * 4096)
    ended = stack.up()
    assert (ended.code, ended.out) == (6, "")
    assert ended.err == f"conclave: cannot write to {stack.settings.home}: No space left on device\n"
    assert family(stack.settings.home).everyone == set()
    (disk / "filler").unlink()
